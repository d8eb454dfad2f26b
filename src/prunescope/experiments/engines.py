"""Engines: how many independent tasks are carried out. Every engine is one `map` over tasks, in any order.

Tasks are drawn one at a time, when a worker is free: to draw one may be to claim it, and there may be more than fit into memory.
A task that raises gives its error as its result; a worker that dies is replaced and its task is tried once more.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, TypeVar

import torch

from prunescope.registry import unknown
from prunescope.types import ConfigError, PrunescopeError

T = TypeVar("T")
R = TypeVar("R")


class Watcher(Protocol):
    """Hears which tasks are being worked on."""

    def started(self, label: str) -> None:
        """A task begins."""

    def ended(self, label: str) -> None:
        """A task is over, well or not."""


class Engine(Protocol):
    """Carries out tasks and yields (task, result or exception) as they end: `jobs` at a time, `here` if in this very process."""

    @property
    def jobs(self) -> int:
        """How many tasks are carried out at a time."""

    @property
    def here(self) -> bool:
        """Whether tasks are carried out in this process, one after another."""

    def map(
        self, function: Callable[[T], R], tasks: Iterable[T], *, label: Callable[[T], str], watcher: Watcher
    ) -> Iterator[tuple[T, R | Exception]]:
        """`function` of every task; `label` names a task for the watcher."""


class Serial:
    """One task after another in this process."""

    jobs, here = 1, True

    def map(
        self, function: Callable[[T], R], tasks: Iterable[T], *, label: Callable[[T], str], watcher: Watcher
    ) -> Iterator[tuple[T, R | Exception]]:
        """`function` of every task, in order."""
        for task in tasks:
            watcher.started(label(task))
            try:
                yield task, function(task)
            except Exception as error:  # the sweep goes on; the caller decides what the error means
                yield task, error
            watcher.ended(label(task))


class WorkerDiedError(PrunescopeError):
    """A worker process that ended twice at the same task (killed, or out of memory)."""


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection

    @classmethod
    def start(cls, threads: int) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, threads), daemon=True)
        process.start()
        theirs.close()  # so that the worker's death ends the pipe
        return cls(process, ours)


class Processes:
    """`jobs` worker processes with `threads` threads each, so that cores are not oversubscribed.

    A pipe for each worker tells exactly whose task was lost when one is killed; the standard pools lose them all.
    """

    here = False

    def __init__(self, jobs: int, threads: int = 1) -> None:
        self.jobs, self.threads = jobs, threads

    def map(
        self, function: Callable[[T], R], tasks: Iterable[T], *, label: Callable[[T], str], watcher: Watcher
    ) -> Iterator[tuple[T, R | Exception]]:
        """`function` of every task, as many at a time as there are workers; the function and tasks are sent to them."""
        drawn, again = iter(tasks), deque[T]()  # again: those whose worker died once
        idle: list[_Worker] = []
        busy: dict[Any, tuple[_Worker, T, bool]] = {}
        try:
            while True:
                while len(busy) < self.jobs and (next_one := self._next(again, drawn)) is not None:
                    task, last = next_one
                    worker = idle.pop() if idle else _Worker.start(self.threads)
                    watcher.started(label(task))
                    with contextlib.suppress(OSError):  # a worker that is gone already shows below, as the end of its pipe
                        worker.connection.send((function, task))
                    busy[worker.connection] = worker, task, last
                if not busy:
                    return
                for connection in wait(list(busy)):
                    worker, task, last = busy.pop(connection)
                    watcher.ended(label(task))
                    try:
                        result: Any = worker.connection.recv()
                        idle.append(worker)
                    except (EOFError, OSError):
                        result = _lost(worker)
                    if isinstance(result, WorkerDiedError) and not last:
                        again.append(task)
                    else:
                        yield task, result
        finally:
            for worker in [*idle, *(w for w, _, _ in busy.values())]:
                worker.process.kill()

    @staticmethod
    def _next(again: deque[T], drawn: Iterator[T]) -> tuple[T, bool] | None:
        """A task to start and whether it is its last try; None when there is none left."""
        if again:
            return again.popleft(), True
        for task in drawn:
            return task, False
        return None


def _lost(worker: _Worker) -> WorkerDiedError:
    worker.process.join()
    return WorkerDiedError(f"the worker process died twice while at it (exit code {worker.process.exitcode}: killed, or out of memory)")


def _work(connection: Connection, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle: it ends the workers
    threading.Thread(target=_leave_with_parent, name="prunescope parent", daemon=True).start()
    torch.set_num_threads(threads)
    while True:
        try:
            function, task = connection.recv()
        except (EOFError, OSError):
            return
        try:
            result = function(task)
        except Exception as error:  # sent to the parent, which decides what it means
            error.add_note(traceback.format_exc())
            result = error
        try:
            connection.send(result)
        except OSError:
            return
        except Exception as error:  # not every exception of a user's code can be sent
            connection.send(RuntimeError(f"{type(result).__name__} that could not be sent: {result} ({error})"))


def _leave_with_parent() -> None:
    """End this worker when its run is killed: what it is at would be done twice by the next one."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def engine(name: str, *, jobs: int | None = None, threads: int = 1) -> Serial | Processes:
    """The engine called `name`: "serial" or "processes" (one worker a core unless `jobs` says otherwise)."""
    if name == "serial":
        torch.set_num_threads(threads)
        return Serial()
    if name == "processes":
        if jobs is not None and jobs < 1:
            raise ConfigError(f"jobs {jobs}: expected at least 1")
        return Processes(jobs or cores(), threads)
    raise ConfigError(unknown("engine", name, ["serial", "processes"]))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def reason(error: BaseException) -> str:
    """One line for a trial's `reason`: the sentence of our own errors, the kind and message of all others."""
    first = (str(error).splitlines() or [""])[0]
    return first if isinstance(error, PrunescopeError) else f"{type(error).__name__}: {first}"
