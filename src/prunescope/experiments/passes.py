"""Passes: what is missing in a run folder is claimed, carried out by an engine, and what other runs are at is waited for.

Several runs may work in one folder, from one machine or from many: each trial, and each training that trials share, is done by the run
that claims it. What another one is at is left for last; if that one goes away, it is taken over.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from prunescope.discretion import discreet
from prunescope.experiments import checkpoints, engines
from prunescope.experiments.progress import Progress
from prunescope.experiments.sweep import Trial
from prunescope.experiments.tasks import (
    Batch,
    Task,
    batches,
    deepest,
    dense_batch,
    dense_done,
    dense_name,
    fail,
    rounds_batch,
    rounds_done,
    rounds_name,
    trial_batch,
    trial_done,
    trial_name,
)
from prunescope.results import live
from prunescope.results.claims import LEASE, Runner
from prunescope.results.files import sweep
from prunescope.results.store import TrialFolder
from prunescope.types import StoreError

POLL = 0.5  # seconds between looks at what other runs are at


@dataclass(frozen=True)
class Kind:
    """What a pass carries out: trials, or a training that trials share."""

    function: Callable[..., list[Exception | None]]
    name: Callable[[Trial], str]
    done: Callable[[Task], bool]
    prefix: str


DENSE = Kind(dense_batch, dense_name, dense_done, "training ")
ROUNDS = Kind(rounds_batch, rounds_name, rounds_done, "rounds of ")
TRIALS = Kind(trial_batch, trial_name, trial_done, "")


def carry_out(
    tasks: Sequence[Task], engine: engines.Engine, *, stack: str | int = "auto", quiet: bool = True, lease: float = LEASE
) -> None:
    """Carry out what is missing of `tasks`, which share a run folder: first the trainings that trials share, then the trials."""
    if not tasks:
        return
    folder = tasks[0].folder
    with Runner(folder, lease) as runner:
        missing = [t for t in tasks if not trial_done(t)]
        shared: dict[Path, Task] = {}
        for task in missing:
            if task.cache is not None and not dense_done(task):
                shared.setdefault(task.cache, task)
        chains = deepest(missing)
        if runner.alone():
            live.forget(folder)
            sweep(folder, ("experiment.json", "experiment.toml", "report.html"))
            for name in ("dense", checkpoints.FOLDER):
                sweep(folder / name, deep=True)
        (folder / live.FOLDER).mkdir(parents=True, exist_ok=True)  # while it is there, a run is at work
        extra = len(shared) + len(chains)
        try:
            with Progress(total=len(tasks), done=len(tasks) - len(missing), extra=extra, quiet=quiet) as progress:
                work = _Work(engine, runner, progress)
                before = checkpoints.companies(folder)
                arranged = functools.partial(batches, stack=stack, jobs=engine.jobs)
                dense = arranged(list(shared.values()), lambda t: t.dense_kind, before=before, name=dense_name, apart=lambda _: None)
                work.do(DENSE, *dense)
                work.do(ROUNDS, *arranged(chains, lambda t: t.kind, before=before, name=rounds_name, apart=lambda _: None))
                work.do(TRIALS, *arranged(missing, lambda t: t.kind if t.trains else None, before=before))
        finally:
            if runner.alone():
                live.forget(folder)
        # what is left belongs to trials that failed; those of another run are its own
        checkpoints.forget(folder, [name for t in tasks for name in (trial_name(t.trial), dense_name(t.trial), rounds_name(t.trial))])
        with contextlib.suppress(OSError):
            (folder / checkpoints.FOLDER).rmdir()


@dataclass
class _Theirs:
    """A task that another run is at, the batch that it came in, and when its trial.json was written by the time we saw that."""

    task: Task
    batch: Batch
    written: int


@dataclass
class _Work:
    """What all passes of a run work with."""

    engine: engines.Engine
    runner: Runner
    progress: Progress
    theirs: list[_Theirs] = field(default_factory=list)

    def do(self, kind: Kind, todo: Sequence[Batch], texts: Sequence[str]) -> None:
        """Carry out a pass, that of other runs included; `texts` say how it is trained."""
        self.progress.notes(texts)
        self._pass(kind, todo)
        told = False
        while self.theirs:
            again = self._taken_over(kind)
            if again:
                self._pass(kind, again)
            elif self.theirs:
                if not told:
                    self.progress.notes([f"waiting for another run in this folder, which is at {len(self.theirs)} more"])
                told = True
                time.sleep(POLL)

    def _pass(self, kind: Kind, todo: Sequence[Batch]) -> None:
        """Carry out what of `todo` can be claimed; what fails in company is tried again alone, and what fails alone is a failed trial."""
        function = functools.partial(kind.function, listener=self.progress.epochs) if self.engine.here else kind.function
        again: list[Batch] = []
        results = self.engine.map(function, self._claimed(kind, todo), label=lambda b: kind.prefix + b.label, watcher=self.progress)
        for batch, result in results:
            errors = [result] * len(batch.tasks) if isinstance(result, Exception) else result
            for task, error in zip(batch.tasks, errors, strict=True):
                if isinstance(error, StoreError):
                    raise error
                if error is not None and len(batch.tasks) > 1:
                    again.append(Batch((task,), "off"))
                    continue
                if error is not None and kind is TRIALS:
                    fail(task, error)
                    self.progress.failed(task.trial.label, discreet(engines.reason(error)))
                self._over(kind, task)
        if again:
            self._pass(kind, again)

    def _claimed(self, kind: Kind, todo: Sequence[Batch]) -> Iterator[Batch]:
        """`todo` without what other runs have done or are at; drawing a batch claims it."""
        for batch in todo:
            mine = []
            for task in batch.tasks:
                if not self.runner.claim(kind.name(task.trial)):
                    self.theirs.append(_Theirs(task, batch, _written(task)))
                elif kind.done(task):
                    self._over(kind, task)
                else:
                    mine.append(task)
            if mine:
                yield replace(batch, tasks=tuple(mine))

    def _over(self, kind: Kind, task: Task) -> None:
        self.runner.release(kind.name(task.trial))
        self.progress.advance()

    def _taken_over(self, kind: Kind) -> list[Batch]:
        """What another run has left undone, in the batches that it came in; what it has done, or failed at, is over."""
        found: dict[int, tuple[Batch, list[Task]]] = {}
        waiting = []
        for one in self.theirs:
            if not self.runner.claim(kind.name(one.task.trial)):
                waiting.append(one)
            elif kind.done(one.task) or self._failed(kind, one):
                self._over(kind, one.task)
            else:
                found.setdefault(id(one.batch), (one.batch, []))[1].append(one.task)
        self.theirs = waiting
        return [replace(batch, tasks=tuple(tasks)) for batch, tasks in found.values()]

    def _failed(self, kind: Kind, one: _Theirs) -> bool:
        """Whether the other run has given the trial up since: it would fail here as well."""
        if kind is not TRIALS or _written(one.task) == one.written:
            return False
        status = _place(one.task).status()
        if status.get("status") != "failed":
            return False
        self.progress.failed(one.task.trial.label, str(status.get("reason")))
        return True


def _place(task: Task) -> TrialFolder:
    return TrialFolder(task.folder / "trials" / task.trial.hash)


def _written(task: Task) -> int:
    try:
        return _place(task).status_file.stat().st_mtime_ns
    except OSError:
        return 0
