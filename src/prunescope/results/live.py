"""What trials at work have recorded so far, in the run folder, for whoever looks on: pages that watch a run and trackers.

    live/<hash of the members>.jsonl     a line that names the trials of a batch, then lines [member, [fact, ...]] as facts come

A file lives as long as its batch: what is finished is in records.parquet. Half a line at the end is a line that is being written.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prunescope import limits
from prunescope.results.schema import Record

FOLDER = "live"
VERSION = 1
METRICS = frozenset(("accuracy", "loss", "sparsity", "mi_input", "mi_label"))  # the curves; all the rest comes with the finished trial
SECONDS = 1.0
DAMAGE = (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError)  # of a line, which costs its own facts


class Fact(NamedTuple):
    """A number of a trial as those see it who look on; `value` may be NaN."""

    metric: str
    phase: str
    epoch: float
    split: str
    layer: str
    estimator: str
    value: float


class LiveFile:
    """The file of one batch: `members` say what its trials are called, `write` adds what their records have become.

    Nothing is written in the first second, so that short batches leave no file. A disk that cannot be written to ends it without a word:
    nobody's results depend on it.
    """

    def __init__(self, path: Path, members: Sequence[Mapping[str, Any]], seconds: float | None = None) -> None:
        self._path, self._members, self._seconds = path, list(members), SECONDS if seconds is None else seconds
        self._seen = [0] * len(self._members)
        self._last, self._begun = time.monotonic(), False

    def write(self, records: Sequence[Sequence[Record]]) -> None:
        """Add what is new in the records of each member, at most once a second."""
        if time.monotonic() - self._last < self._seconds:
            return
        lines = [] if self._begun else [json.dumps({"version": VERSION, "members": self._members})]
        for place, found in enumerate(records):
            new = (r for r in found[self._seen[place] :] if shown(r))
            facts = [Fact(r.metric, r.phase, r.epoch, r.split, r.layer, r.estimator, r.value) for r in new]
            self._seen[place] = len(found)
            if facts:
                lines.append(json.dumps([place, facts]))
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a" if self._begun else "w", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)
            self._begun = True
        self._last = time.monotonic()

    def remove(self) -> None:
        """The batch is over."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def shown(record: Record) -> bool:
    """Whether a record is a point of a curve: of layers only information, not how sparse each of them is."""
    return record.metric in METRICS and not (record.metric == "sparsity" and record.layer)


def forget(folder: Path) -> None:
    """Remove what a run that is over, or was killed, left."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


class LiveReader:
    """Reads a live file bit by bit."""

    def __init__(self, path: Path) -> None:
        self.path, self.members = path, list[dict[str, Any]]()
        self._offset, self._inode = 0, -1

    def read(self) -> Iterable[tuple[dict[str, Any], list[Fact]]]:
        """(member, its new facts) of all whole lines since the last time. A file that was begun anew is read from its start."""
        try:
            with self.path.open("rb") as file:
                about = self.path.stat()
                if about.st_ino != self._inode or about.st_size < self._offset:
                    self._offset, self._inode, self.members = 0, about.st_ino, []
                file.seek(self._offset)
                text = file.read(limits.limit("live"))
        except OSError:
            return
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            with contextlib.suppress(*DAMAGE):
                content = json.loads(line)
                if isinstance(content, dict):
                    self.members = [dict(m) for m in content["members"] if _is_member(m)] if content["version"] == VERSION else []
                else:
                    yield self.members[content[0]], [_fact(row) for row in content[1]]


def _is_member(member: Any) -> bool:
    """Whether an entry names a trial as a batch's first line does."""
    level = member.get("sparsity") if isinstance(member, dict) else ""
    texts = isinstance(member, dict) and all(isinstance(member.get(k, ""), str) for k in ("name", "group", "variant", "label"))
    return texts and "name" in member and (level is None or isinstance(level, int | float)) and isinstance(member.get("seed", 0), int)


def _fact(row: Sequence[Any]) -> Fact:
    """The fact in a line; ValueError for one of other types than ours, or of no epoch."""
    fact = Fact(*row)
    texts = all(isinstance(t, str) for t in (fact.metric, fact.phase, fact.split, fact.layer, fact.estimator))
    if not texts or not math.isfinite(fact.epoch):
        raise ValueError(f"{row!r} is no fact")
    return fact._replace(epoch=float(fact.epoch), value=float(fact.value))
