"""Engines: how many independent tasks are carried out. Every engine is one `map` over tasks, in any order.

A task that raises gives its error as its result; a worker that dies is replaced and its task is tried once more.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol, TypeVar

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
    """Carries out tasks and yields (task, result or exception) as they end."""

    def map(
        self, function: Callable[[T], R], tasks: Sequence[T], *, label: Callable[[T], str], watcher: Watcher
    ) -> Iterator[tuple[T, R | Exception]]:
        """`function` of every task; `label` names a task for the watcher."""


class Serial:
    """One task after another in this process."""

    jobs = 1

    def map(
        self, function: Callable[[T], R], tasks: Sequence[T], *, label: Callable[[T], str], watcher: Watcher
    ) -> Iterator[tuple[T, R | Exception]]:
        """`function` of every task, in order."""
        for task in tasks:
            watcher.started(label(task))
            try:
                yield task, function(task)
            except Exception as error:  # the sweep goes on; the caller decides what the error means
                yield task, error
            watcher.ended(label(task))


class Processes:
    """`jobs` worker processes with `threads` threads each, so that cores are not oversubscribed."""

    def __init__(self, jobs: int, threads: int = 1) -> None:
        self.jobs, self.threads = jobs, threads

    def map(
        self, function: Callable[[T], R], tasks: Sequence[T], *, label: Callable[[T], str], watcher: Watcher
    ) -> Iterator[tuple[T, R | Exception]]:
        """`function` of every task, as many at a time as there are workers; the function and tasks are sent to them."""
        waiting, tried_again = list(tasks), set[int]()
        while waiting:
            lost: list[T] = []
            with ProcessPoolExecutor(
                min(self.jobs, len(waiting)), multiprocessing.get_context("spawn"), initializer=_prepare, initargs=(self.threads,)
            ) as pool:
                for task, result in self._drain(pool, function, waiting, label, watcher):
                    if isinstance(result, BrokenProcessPool) and id(task) not in tried_again:
                        lost.append(task)
                    else:
                        yield task, result
            tried_again |= {id(task) for task in lost}
            waiting = lost

    def _drain(
        self, pool: ProcessPoolExecutor, function: Callable[[T], R], tasks: list[T], label: Callable[[T], str], watcher: Watcher
    ) -> Iterator[tuple[T, R | Exception]]:
        queue, running = list(reversed(tasks)), dict[Future[R], T]()
        while queue or running:
            while queue and len(running) < self.jobs:
                task = queue.pop()
                try:
                    running[pool.submit(function, task)] = task
                    watcher.started(label(task))
                except BrokenProcessPool as broken:
                    yield task, broken
            for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                task = running.pop(future)
                watcher.ended(label(task))
                error = future.exception()
                if error is not None and not isinstance(error, Exception):
                    raise error
                yield task, error if error is not None else future.result()


def _prepare(threads: int) -> None:
    torch.set_num_threads(threads)


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
    if isinstance(error, BrokenProcessPool):
        return "the worker process died twice while at it (killed, or out of memory)"
    first = (str(error).splitlines() or [""])[0]
    return first if isinstance(error, PrunescopeError) else f"{type(error).__name__}: {first}"
