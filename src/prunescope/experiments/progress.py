"""Progress: what is running and how long it will still take, as bars on a terminal and as lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from prunescope.training import State

LINE_SECONDS = 10.0  # on a pipe, a line at most this often


class Progress:
    """Counts tasks as an engine's watcher; `epochs` is a listener that shows how far the training at work has come (serial engine)."""

    def __init__(self, *, total: int, done: int = 0, extra: int = 0, quiet: bool = False, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.quiet, self.total, self.done = quiet, total + extra, done
        self._began, self._at_start, self._line = time.monotonic(), done, time.monotonic()
        self._running: list[str] = []
        self._bars = Bars(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False), console=self.console, disable=quiet or not self.console.is_terminal,
        )
        self._all = self._bars.add_task("trials", total=self.total, completed=done)
        self.epochs = EpochBar(self._bars)

    def __enter__(self) -> Progress:
        self._bars.start()
        if not self.quiet and self.done:
            self.console.print(f"{self.done} of {self.total} trials are finished already and are kept", highlight=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bars.stop()

    def started(self, label: str) -> None:
        """A task begins."""
        self._running.append(label)
        self._describe()

    def ended(self, label: str) -> None:
        """A task is over."""
        self._running.remove(label)
        self._describe()

    def advance(self) -> None:
        """One task more is done."""
        self.done += 1
        self._bars.advance(self._all)
        if not self.quiet and not self.console.is_terminal and (time.monotonic() - self._line > LINE_SECONDS or self.done == self.total):
            self._line = time.monotonic()
            spent = time.monotonic() - self._began
            left = spent / max(1, self.done - self._at_start) * (self.total - self.done)
            self.console.print(f"{self.done}/{self.total} done, {_clock(spent)} gone, about {_clock(left)} left", highlight=False)

    def notes(self, texts: Sequence[str]) -> None:
        """Say how trials are trained together, or why they are not."""
        for text in texts if not self.quiet else ():
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def failed(self, label: str, reason: str) -> None:
        """Say that a trial failed, and why."""
        if not self.quiet:
            self.console.print(f"failed: {label}: {reason}", highlight=False, markup=False, soft_wrap=True)

    def _describe(self) -> None:
        shown = "; ".join(self._running[:2]) + (f"; and {len(self._running) - 2} more" if len(self._running) > 2 else "")
        self._bars.update(self._all, description=shown.replace("[", "\\[") or "trials")


class EpochBar:
    """A listener that moves a second bar with the epochs of the training at work."""

    def __init__(self, bars: Bars) -> None:
        self._bars, self._task = bars, bars.add_task("epochs", total=None, visible=False)

    def start(self, state: State) -> None:
        """A training begins."""
        what, total = f"  {state.phase}, epochs", state.settings.epochs
        self._bars.update(self._task, description=what, total=total, completed=state.epoch, visible=True)

    def epoch_end(self, state: Any) -> None:
        """An epoch more is done."""
        self._bars.update(self._task, completed=state.epoch)

    def end(self, state: State) -> None:
        """The training is over."""
        self._bars.update(self._task, visible=False)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
