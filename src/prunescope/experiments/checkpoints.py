"""Checkpoints of a batch of trials: what their trainings have come to, every so many seconds, in one file.

    checkpoints/<hash of the members>.safetensors     tensors of all members, their records, and who they are (JSON in the header)

One file for the whole batch is one rename: a kill finds all its members at the same epoch, and they are stacked again as they were.
Where the batches of the next run are made up differently, each member takes what is its own out of the file.

Written at the end of an epoch, before and after what is measured there; and at the end of a training, so that what follows (measuring,
deployment, storing) never costs a training that is over. A worker that does not see the run folder keeps a copy in the run's storage.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from prunescope.config import value_hash
from prunescope.experiments.recorder import Recorder
from prunescope.experiments.storage import Storage
from prunescope.experiments.trial import Training
from prunescope.results.files import write_beside
from prunescope.results.schema import Record
from prunescope.training import State
from prunescope.training.checkpoint import Snapshot, snapshot, weights_of
from prunescope.types import ConfigError, StoreError

VERSION = 2
FOLDER = "checkpoints"
SECONDS = 60.0
DAMAGE = (OSError, SafetensorError, LookupError, ValueError, TypeError, AttributeError, OverflowError, RecursionError)
ENDED_SECONDS = 1.0  # a training that took longer is written when it is over: the file takes some hundredths of that

Memories = dict[str, dict[str, Tensor]]  # of listeners, by their place


@dataclass
class Stood:
    """Where a training stood: in phase `phase`, with the first `records` of its trial's records made. `memories` are its listeners'.

    measured   False where the epoch was over and what is measured at its end was not
    """

    phase: str
    training: Snapshot
    records: int
    memories: Memories = field(default_factory=dict)
    measured: bool = True


@dataclass
class Ended:
    """What a training that is over left: the network, its listeners' memories, and how many records there were by then."""

    weights: Mapping[str, Tensor]
    records: int
    memories: Memories = field(default_factory=dict)
    last: Record | None = None  # of those records: it tells whether the trial still has them


@dataclass
class Member:
    """One trial of a batch: the phases that it has been through, the one that it is in, and its records.

    ended   trainings that are over, whether or not anything of them is still wanted
    """

    finished: dict[str, Ended] = field(default_factory=dict)
    current: Stood | None = None
    kept: Sequence[Record] = ()
    recorder: Recorder | None = None  # of a trial that has gone beyond what was kept
    ended: int = 0

    @property
    def records(self) -> Sequence[Record]:
        """All that are worth keeping."""
        return self.kept if self.recorder is None else self.recorder.records

    @property
    def progress(self) -> tuple[int, int, bool]:
        """Grows as the trial goes on."""
        now = self.current
        return self.ended, *((0, False) if now is None else (now.training.epoch, now.measured))

    def tidy(self) -> None:
        """Forget trainings whose records the trial has dropped since: rounds that tickets share are kept elsewhere by then."""
        records = self.records
        for phase, it in list(self.finished.items()):
            if it.records > len(records) or (it.records and records[it.records - 1] is not it.last):
                del self.finished[phase]


class Checkpoints:
    """The checkpoint of one batch, written at the first end of an epoch after `seconds`, and what earlier ones hold of its members.

    names     of each network's trial (or shared dense training), by the identity of the network
    storage   where a copy is kept, and looked for at first; one that fails costs the copy, which a warning says, and not the training
    """

    def __init__(self, folder: Path, names: Mapping[int, str], seconds: float = SECONDS, storage: Storage | None = None) -> None:
        self._names, self._seconds, self._folder, self._storage = dict(names), seconds, folder, storage
        self._name = f"{FOLDER}/{value_hash(sorted(self._names.values()))}.safetensors"
        self.file = folder / self._name
        self._kept(lambda there: there.bring(folder, self._name))
        found = read(folder, list(self._names.values()))
        self._members = {name: found.get(name, Member()) for name in self._names.values()}
        self._last = time.monotonic()
        self._able = True

    def begin(self) -> None:
        """Write down who goes together, so that they do so again after a kill: numbers of another company differ by rounding."""
        if len(self._members) > 1 and self._seconds < math.inf and not self.file.exists():
            self._write()

    def passed(self, training: Training) -> bool:
        """Whether this training was finished before; if so network, records and listeners are put where they were at its end."""
        member = self._member(training.model)
        it = member.finished.get(training.phase)
        if it is None:
            return False
        training.model.load_state_dict(dict(it.weights))
        training.recorder.records = list(member.records[: it.records])
        _remind(training, it.memories)
        return True

    def found(self, training: Training) -> Stood | None:
        """Where this training stood, if it was under way; its records and its listeners' memories are put back."""
        member = self._member(training.model)
        stood = member.current
        if stood is None or stood.phase != training.phase:
            return None
        training.recorder.records = list(member.records[: stood.records])
        _remind(training, stood.memories)
        return stood

    def watcher(self, trainings: Sequence[Training]) -> _Watcher:
        """A watcher of these trainings, to come after their recorder."""
        return _Watcher(self, {id(t.model): t for t in trainings})

    def begun(self, training: Training) -> None:
        """A training goes beyond what was kept of it."""
        member = self._member(training.model)
        if member.current is not None and member.current.phase != training.phase:
            member.current = None
        member.recorder = training.recorder

    def over(self, trainings: Sequence[Training]) -> None:
        """Trainings are over: their networks as they are now are kept until the batch is done.

        Of several the file is written now: what follows is each one's own, and those that are left after a kill were trained together.
        """
        for training in trainings:
            member, records = self._member(training.model), training.recorder.records
            member.current, member.ended = None, member.ended + 1
            last = records[-1] if records else None
            member.finished[training.phase] = Ended(weights_of(training.model), len(records), _memories(training), last)
        if self._seconds < math.inf and (len(self._members) > 1 or self._waited(min(self._seconds, ENDED_SECONDS))):
            self._write()

    def reached(self, pairs: Sequence[tuple[Training, State]], *, measured: bool = True) -> None:
        """An epoch is over: if it is time, write what all have come to. `measured`: whether what is measured there was measured."""
        ending = all(s.stop or s.epoch == s.settings.epochs for _, s in pairs)
        if not self._able or not self._waited(min(self._seconds, ENDED_SECONDS) if ending and self._seconds < math.inf else self._seconds):
            return
        try:
            for training, state in pairs:
                stood = Stood(training.phase, snapshot(state), len(training.recorder.records), _memories(training), measured)
                self._member(training.model).current = stood
        except ConfigError as error:
            warnings.warn(f"no checkpoints inside this training: {error}", stacklevel=2)
            self._able = False
            return
        self._write()

    def _waited(self, seconds: float) -> bool:
        return time.monotonic() - self._last >= seconds

    def _write(self) -> None:
        for member in self._members.values():
            member.tidy()
        tensors, about = _packed(self._members)
        write_beside(self.file, lambda p: _save(tensors, about, p))
        self._kept(lambda there: there.keep(self._folder, self._name))
        self._last = time.monotonic()

    def _kept(self, call: Callable[[Storage], object]) -> None:
        """`call` of the storage, if there is one."""
        if self._storage is not None:
            try:
                call(self._storage)
            except StoreError as error:
                warnings.warn(f"the copy of a checkpoint: {error}", stacklevel=3)

    def done(self) -> None:
        """The batch is stored: its checkpoint is of no more use."""
        with contextlib.suppress(OSError):
            self.file.unlink(missing_ok=True)
        self._kept(lambda there: there.drop(self._name))

    def _member(self, model: nn.Module) -> Member:
        return self._members[self._names[id(model)]]


class _Watcher:
    """Tells the checkpoints what happens to some trainings."""

    def __init__(self, checkpoints: Checkpoints, trainings: Mapping[int, Training]) -> None:
        self._checkpoints, self._trainings = checkpoints, trainings

    def start(self, states: Sequence[State]) -> None:
        """Before the first step."""
        for state in states:
            self._checkpoints.begun(self._trainings[id(state.model)])

    def before_measuring(self, states: Sequence[State]) -> None:
        """After an epoch at whose end something is measured, which comes next."""
        self._checkpoints.reached(self._pairs(states), measured=False)

    def epoch_end(self, states: Sequence[State]) -> None:
        """After every epoch."""
        self._checkpoints.reached(self._pairs(states))

    def end(self, states: Sequence[State]) -> None:
        """After the last one."""
        self._checkpoints.over([training for training, _ in self._pairs(states)])

    def _pairs(self, states: Sequence[State]) -> list[tuple[Training, State]]:
        return [(self._trainings[id(s.model)], s) for s in states]


def _memories(training: Training) -> Memories:
    return {str(i): x.memory() for i, x in enumerate(training.listeners) if callable(getattr(x, "memory", None))}


def _remind(training: Training, memories: Memories) -> None:
    for place, listener in enumerate(training.listeners):
        if (memory := memories.get(str(place))) is not None:
            listener.remember(memory)


def _save(tensors: Mapping[str, Tensor], about: Any, path: Path) -> None:
    try:
        safetensors.torch.save_file(dict(tensors), path, {"prunescope": json.dumps(about)})
    except SafetensorError as error:
        raise OSError(str(error)) from error  # `write_beside` says where


def _packed(members: Mapping[str, Member]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors under names of their own, and what the header says."""
    tensors: dict[str, Tensor] = {}
    about: list[dict[str, Any]] = []
    for i, (name, member) in enumerate(members.items()):
        phases = []
        for j, (phase, it) in enumerate(member.finished.items()):
            tensors |= {f"{i}/finished {j}/{n}": w for n, w in it.weights.items()}
            tensors |= _listed(f"{i}/memory {j}", it.memories)
            phases.append([phase, it.records])
        entry: dict[str, Any] = {"name": name, "ended": member.ended, "finished": phases, "current": None}
        if (stood := member.current) is not None:
            t = stood.training
            tensors |= {f"{i}/weights/{n}": w for n, w in t.weights.items()}
            tensors |= {f"{i}/numbers/{n}/{k}": v for n, kept in t.numbers.items() for k, v in kept.items()}
            tensors |= _listed(f"{i}/memory", stood.memories)
            entry["current"] = {"phase": stood.phase, "epoch": t.epoch, "steps": t.steps, "records": stood.records, "groups": t.groups}
            entry["current"] |= {"stop": t.stop, "measured": stood.measured}
        tensors[f"{i}/records"] = _records_packed(member.records)
        about.append(entry)
    return {name: t.contiguous() for name, t in tensors.items()}, {"version": VERSION, "members": about}


def _listed(prefix: str, memories: Memories) -> dict[str, Tensor]:
    return {f"{prefix}/{place}/{k}": v.clone() for place, memory in memories.items() for k, v in memory.items()}


def _records_packed(records: Sequence[Record]) -> Tensor:
    """Records as JSON, a column at a time; texts that come again and again are written once."""
    columns: list[Any] = []
    for column in zip(*records, strict=True):
        if all(isinstance(v, str) for v in column):
            places = {text: i for i, text in enumerate(dict.fromkeys(column))}
            columns.append({"texts": list(places), "places": [places[v] for v in column]})
        else:
            columns.append(list(column))
    return torch.from_numpy(np.frombuffer(json.dumps(columns).encode(), dtype=np.uint8).copy())


def _records_unpacked(packed: Tensor) -> list[Record]:
    columns = json.loads(packed.numpy().tobytes())
    plain = [[c["texts"][i] for i in c["places"]] if isinstance(c, dict) else c for c in columns]
    return [Record(*row) for row in zip(*plain, strict=True)]


def read(folder: Path, names: Sequence[str]) -> dict[str, Member]:
    """What the checkpoints of a run folder hold of the trials `names`; of several, the one that has come furthest.

    A file that cannot be read is named in a warning: what it held is done again.
    """
    found: dict[str, Member] = {}
    wanted = set(names)
    for path, about in _headers(folder):
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                keys = list(file.keys())
                for i, entry in enumerate(about["members"]):
                    if entry["name"] in wanted:
                        member = _unpacked({k.partition("/")[2]: file.get_tensor(k) for k in keys if k.startswith(f"{i}/")}, entry)
                        best = found.get(entry["name"])
                        found[entry["name"]] = member if best is None or member.progress > best.progress else best
        except DAMAGE as error:
            _unreadable(path, error)
    return found


def _headers(folder: Path) -> Iterator[tuple[Path, Any]]:
    for path in sorted((folder / FOLDER).glob("[!.]*.safetensors")):
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["prunescope"])
            if about["version"] == VERSION and all(isinstance(entry["name"], str) for entry in about["members"]):
                yield path, about
        except DAMAGE as error:
            _unreadable(path, error)


def _unreadable(path: Path, error: Exception) -> None:
    reason = (str(error).splitlines() or [""])[0]
    warnings.warn(f"{path}: cannot be read as a checkpoint ({type(error).__name__}: {reason}); what it held is done again", stacklevel=3)


def _unpacked(tensors: Mapping[str, Tensor], entry: Mapping[str, Any]) -> Member:
    records = _records_unpacked(tensors["records"])
    finished: dict[str, Ended] = {}
    for j, (phase, count) in enumerate(entry["finished"]):
        weights = {n.partition("/")[2]: t for n, t in tensors.items() if n.startswith(f"finished {j}/")}
        finished[phase] = Ended(weights, count, _remembered(tensors, f"memory {j}/"), records[count - 1] if count else None)
    stood, now = None, entry["current"]
    if now is not None:
        weights = {n.removeprefix("weights/"): t for n, t in tensors.items() if n.startswith("weights/")}
        numbers: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("numbers/"):
                parameter, _, number = name.removeprefix("numbers/").rpartition("/")
                numbers.setdefault(parameter, {})[number] = tensor
        training = Snapshot(now["epoch"], now["steps"], weights, numbers, now["groups"], now["stop"])
        stood = Stood(now["phase"], training, now["records"], _remembered(tensors, "memory/"), now["measured"])
    return Member(finished, stood, records, ended=entry["ended"])


def _remembered(tensors: Mapping[str, Tensor], prefix: str) -> Memories:
    found: Memories = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            place, _, key = name.removeprefix(prefix).partition("/")
            found.setdefault(place, {})[key] = tensor
    return found


def companies(folder: Path) -> list[list[str]]:
    """The trials that trained together when the run was killed, one list a checkpoint."""
    return [[entry["name"] for entry in about["members"]] for _, about in _headers(folder)]


def forget(folder: Path, names: Sequence[str]) -> None:
    """Remove the checkpoints that hold any of `names`."""
    for path, about in _headers(folder):
        if {entry["name"] for entry in about["members"]} & set(names):
            path.unlink(missing_ok=True)
