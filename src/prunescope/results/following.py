"""Following a run from its folder alone, while it works or afterwards: what trials began, what they have recorded since, how they ended."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from prunescope import limits
from prunescope.results.live import FOLDER, Fact, LiveReader
from prunescope.results.store import TrialFolder, is_trial, read_experiment, read_records, seconds_of
from prunescope.types import StoreError

PICTURES = ("weight_histogram", "mask")  # records that are more than a number


@dataclass
class Followed:
    """A trial, or a training that several share (`shared`), as it stands: `facts` are those seen so far."""

    name: str
    label: str
    group: str = ""
    variant: str = ""
    sparsity: float | None = None
    seed: int = 0
    shared: bool = False
    status: str = "waiting"
    reason: str = ""
    seconds: float | None = None
    facts: list[Fact] = field(default_factory=list)

    @property
    def hash(self) -> str:
        """The trial's name in the run folder."""
        return self.name.rpartition("/")[2]


def moments(facts: Iterable[Fact], trained: float = 0.0) -> Iterator[tuple[float, Fact]]:
    """(epoch on one axis for training and what comes after it, fact), facts in their order; `trained` epochs were recorded before them.

    >>> facts = [Fact("loss", phase, epoch, "", "", "", 0.5) for phase, epoch in (("train", 9), ("pruned", 0), ("finetune", 2))]
    >>> [moment for moment, _ in moments(facts)]
    [9.0, 9.0, 11.0]
    """
    for fact in facts:
        if fact.phase == "train":
            trained = max(trained, fact.epoch)
        yield float(fact.epoch + (0.0 if fact.phase == "train" else trained)), fact


@dataclass(frozen=True)
class News:
    """What happened to a trial since the last look: "begun", new `facts`, or its end as "finished" or "failed".

    With "finished" `facts` are all of the trial's records that are numbers, those that were told before among them.
    """

    what: Literal["begun", "facts", "finished", "failed"]
    trial: Followed
    facts: list[Fact] = field(default_factory=list)


class Following:
    """Looks at a run folder again and again; `experiment` is None until there is one, `trials` are all that is planned by name."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.experiment: dict[str, Any] | None = None
        self.trials: dict[str, Followed] = {}
        self._seen: dict[Path, int] = {}
        self._readers: dict[Path, LiveReader] = {}

    @property
    def working(self) -> bool:
        """Whether a run is at work in the folder, or was killed there."""
        return (self.folder / FOLDER).is_dir()

    def quiet_seconds(self) -> float | None:
        """Seconds since anything of the run changed; None where nothing is known."""
        newest = max(self._seen.values(), default=None)
        live = [p.stat().st_mtime_ns for p in self._live() if p.exists()]
        times = [t for t in (newest, *live) if t is not None]
        return max(0.0, time.time() - max(times) / 1e9) if times else None

    def news(self) -> list[News]:
        """All that happened since the last call."""
        self._plan()
        found = list(self._facts())
        for trial in list(self.trials.values()):
            found += self._shared(trial) if trial.shared else self._status(trial)
        return found

    def _plan(self) -> None:
        place = self.folder / "experiment.json"
        if not self._changed(place):
            return
        try:
            self.experiment, _ = read_experiment(self.folder)
        except StoreError:
            del self._seen[place]
            return
        listed = self.experiment.get("trials")
        for planned in filter(is_trial, listed if isinstance(listed, list) else []):
            name = f"trials/{planned['hash']}"
            if name not in self.trials:
                self.trials[name] = followed(name, planned)

    def _changed(self, path: Path) -> bool:
        try:
            now = path.stat().st_mtime_ns
        except OSError:
            return False
        if self._seen.get(path) == now:
            return False
        self._seen[path] = now
        return True

    def _live(self) -> list[Path]:
        with contextlib.suppress(OSError):
            found = sorted(Path(e.path) for e in os.scandir(self.folder / FOLDER) if e.name.endswith(".jsonl"))
            return [path for path in found if limits.leads_out(path, self.folder) is None]
        return []

    def _facts(self) -> Iterator[News]:
        for path in self._live():
            reader = self._readers.setdefault(path, LiveReader(path))
            for member, facts in reader.read():
                trial = self.trials.get(member["name"])
                if trial is None:
                    if not member.get("shared"):
                        continue  # of another experiment in the same folder
                    trial = self.trials[member["name"]] = followed(member["name"], member)
                if trial.status in ("finished", "failed"):
                    continue
                if trial.status == "waiting":
                    trial.status = "running"
                    yield News("begun", trial)
                trial.facts += facts
                yield News("facts", trial, facts)

    def _shared(self, trial: Followed) -> Iterator[News]:
        """A training that is shared is over when its live file is gone; its records come again with each trial's own."""
        readers = [self._readers[p] for p in self._live() if p in self._readers]
        if trial.status == "running" and not any(m["name"] == trial.name for r in readers for m in r.members):
            trial.status = "finished"
            yield News("finished", trial, trial.facts)

    def _status(self, trial: Followed) -> Iterator[News]:
        place = TrialFolder(self.folder / trial.name)
        if not self._changed(place.status_file):
            return
        reason = place.astray(self.folder)
        status = place.status() if reason is None else {"status": "damaged", "reason": reason}
        trial.reason, trial.seconds = str(status.get("reason") or ""), seconds_of(status)
        trial.label = str(status.get("trial") or trial.label)
        now = str(status.get("status"))
        if now == "running":
            trial.status, trial.facts = now, []
            yield News("begun", trial)
        elif now == "finished":
            try:
                trial.facts = facts_of(place.records_file)
            except StoreError as error:
                trial.status, trial.reason = "failed", str(error)
                yield News("failed", trial)
                return
            trial.status = now
            yield News("finished", trial, trial.facts)
        else:
            trial.status = "failed"
            yield News("failed", trial)


def followed(name: str, about: Mapping[str, Any]) -> Followed:
    """A trial as experiment.json or a live file plans it."""
    level = about.get("sparsity")
    parts = (about.get("group"), about.get("variant"), "" if level is None else f"{level * 100:g} %", f"seed {about.get('seed')}")
    label = str(about.get("label") or ", ".join(str(p) for p in parts if p))
    shared = bool(about.get("shared"))
    own = {k: about[k] for k in ("group", "variant", "sparsity", "seed") if k in about and about[k] == about[k]}  # NaN is no level
    return Followed(name, label, **own, shared=shared, status="running" if shared else "waiting")


def facts_of(path: Path) -> list[Fact]:
    """All records of a file that are numbers."""
    records = read_records(path)
    records = records[~records["metric"].isin(PICTURES)]
    return [Fact(*row) for row in records[list(Fact._fields)].itertuples(index=False, name=None)]
