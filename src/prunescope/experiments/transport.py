"""What happens on a machine of a cluster: a task finds its run folder, or works in a folder of its own and hands over what it made."""

from __future__ import annotations

import copy
import functools
import os
import tempfile
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from prunescope import __version__
from prunescope.experiments.storage import Storage, contents, unpacked
from prunescope.experiments.tasks import Batch, Task, trial_batch
from prunescope.results.store import TrialFolder
from prunescope.types import ConfigError, DataError


@dataclass(frozen=True)
class Errand:
    """What a worker has to know beside its task.

    folder, token   the run folder, and the name of a file that the driver put there: who finds it sees the same folder
    versions        the driver's packages: other ones give other numbers
    again           whether a worker died at this task before, perhaps after it had stored something
    parcels         dense trainings for those who do not see the folder, as references to {file: bytes}; None: nobody is known to need them
    """

    folder: Path | None = None
    token: str = ""
    threads: int = 1
    place: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    storage: str | None = None
    again: bool = False
    parcels: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Delivery:
    """What comes back: the function's result or exception, and what a worker that does not see the run folder made.

    files      contents by their names in the run folder
    stored     "trials/<hash>", "dense/<hash>" that lie in the storage
    lacking    nothing was done: the worker does not see the folder, and needs the parcels
    """

    result: Any = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    stored: tuple[str, ...] = ()
    lacking: bool = False


def carried(function: Callable[[Any], Any], task: Any, errand: Errand, get: Callable[[Any], Any], node: str = "") -> Delivery:
    """`function` of `task` on this machine (`node` is its name for errors); an exception is a result. `get` opens a parcel."""
    try:
        _ready(errand, node)
        if not isinstance(task, Batch) or errand.folder is None:
            return Delivery(function(task))
        task = _with_data(task, node)
        if seen(errand.folder, errand.token):
            return _at_home(function, task, errand)
        if errand.parcels is None and any(t.cache is not None for t in task.tasks):
            return Delivery(lacking=True)
        with tempfile.TemporaryDirectory(prefix="prunescope-", ignore_cleanup_errors=True) as scratch:
            return _away(function, task, errand, Path(scratch), get)
    except Exception as error:  # sent to the driver, which decides what it means
        error.add_note(traceback.format_exc())
        return Delivery(error)


@functools.cache
def versions() -> dict[str, str]:
    """The packages that make a trial's numbers."""
    return {"prunescope": __version__, "torch": torch.__version__}


def _ready(errand: Errand, node: str) -> None:
    """Make this process like the driver's: threads, working directory; refuse packages of other versions."""
    if errand.versions and (own := versions()) != errand.versions:
        told = [", ".join(f"{name} {version}" for name, version in found.items()) for found in (own, errand.versions)]
        raise ConfigError(f"worker on node {node} has {told[0]}, and the run is with {told[1]}: install the same on all machines")
    if torch.get_num_threads() != errand.threads:
        torch.set_num_threads(errand.threads)
    if errand.place and errand.place != os.getcwd() and Path(errand.place).is_dir():
        os.chdir(errand.place)  # "module:function" and paths in options start from there


def _with_data(batch: Batch, node: str) -> Batch:
    for folder in {t.data_dir for t in batch.tasks} - {None}:
        if not folder.is_dir():  # type: ignore[union-attr]
            raise DataError(
                f"{folder}: this folder of data is not there on worker node {node}: put the data there on every machine, "
                "or name with --data-dir a folder that all of them see"
            )
    return batch


@functools.lru_cache(maxsize=8)
def seen(folder: Path, token: str) -> bool:
    """Whether this process sees the run folder itself, not one of the same name, and may write there."""
    if not (folder / token).is_file():
        return False
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".seen-"):
            return True
    except OSError:
        return False


def _at_home(function: Callable[[Batch], Any], batch: Batch, errand: Errand) -> Delivery:
    result = _missing_of(function, batch) if errand.again else function(batch)
    if errand.storage is not None and errand.folder is not None:
        storage = Storage(errand.storage)
        for name in _trials(batch) if _of_trials(function) else _trainings(batch, {}):
            storage.put(errand.folder, name)
    return Delivery(result)


def _of_trials(function: Callable[[Batch], Any]) -> bool:
    return getattr(function, "func", function) is trial_batch


def _missing_of(function: Callable[[Batch], Any], batch: Batch) -> Any:
    """`function` of what the worker before did not store: a trial that is finished is not done again."""
    if not _of_trials(function):
        return function(batch)  # trainings that are shared look for what there is by themselves
    done = [_finished(t) for t in batch.tasks]
    left = tuple(t for t, there in zip(batch.tasks, done, strict=True) if not there)
    errors = iter(function(replace(batch, tasks=left)) if left else [])
    return [None if there else next(errors) for there in done]


def _away(function: Callable[[Batch], Any], batch: Batch, errand: Errand, scratch: Path, get: Callable[[Any], Any]) -> Delivery:
    """`function` of the same tasks in a folder of this machine, with the dense trainings that they build on."""
    parcels: dict[str, bytes] = {}
    for reference in (errand.parcels or {}).values():
        parcels |= get(reference)
    unpacked(scratch, parcels)
    moved = replace(batch, tasks=tuple(replace(t, folder=scratch, storage=errand.storage) for t in batch.tasks))
    result = function(moved)
    names = [*_trainings(moved, parcels), *(_trials(moved) if _of_trials(function) else [])]
    if errand.storage is None:
        return Delivery(result, {n: c for made in names for n, c in contents(scratch, made).items() if n not in parcels})
    storage = Storage(errand.storage)
    for name in names:
        storage.put(scratch, name)
    return Delivery(result, stored=tuple(names))


def _finished(task: Task) -> bool:
    return TrialFolder(task.folder / "trials" / task.trial.hash).finished()


def _trials(batch: Batch) -> list[str]:
    """The folders of a batch's finished trials."""
    return [f"trials/{t.trial.hash}" for t in batch.tasks if _finished(t)]


def _trainings(batch: Batch, known: Mapping[str, bytes]) -> list[str]:
    """The folders of dense trainings in which there is more than what is known."""
    places = {f"dense/{t.cache.name}": t.folder for t in batch.tasks if t.cache is not None and (t.cache / "records.parquet").exists()}
    return [name for name, folder in places.items() if contents(folder, name).keys() - known.keys()]


def sendable(result: Any) -> Any:
    """`result` with each exception that cannot travel replaced by one that can and says the same."""
    if isinstance(result, list):
        return [sendable(part) for part in result]
    if not isinstance(result, Exception):
        return result
    try:
        copy.copy(result)  # by the same protocol as pickling, so that one whose making takes other arguments shows here
        return result
    except Exception as error:
        return RuntimeError(f"{type(result).__name__} that could not be sent: {result} ({error})")
