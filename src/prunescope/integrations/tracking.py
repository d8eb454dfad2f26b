"""Trackers: a run's records handed on to TensorBoard or MLflow while it works, read from its folder like anybody else would."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from prunescope.discretion import discreet
from prunescope.registry import unknown
from prunescope.results.following import Followed, Following
from prunescope.results.live import Fact
from prunescope.types import ConfigError

SECONDS = 2.0


class Tracker(Protocol):
    """What hears of a run; a trial that was finished before may be told again."""

    def begun(self, trial: Followed) -> None:
        """A trial begins, or begins anew."""

    def facts(self, trial: Followed, facts: Sequence[Fact]) -> None:
        """Facts of a trial, in order; some of them may have been told before."""

    def ended(self, trial: Followed) -> None:
        """A trial is finished or failed (`trial.status`)."""

    def close(self) -> None:
        """There is nothing more to come."""


class Tracking:
    """Follows the run in `folder` in a thread of its own while the block runs, and tells its `trackers`.

    What a tracker raises ends it with a warning: the run goes on, and its records are in its folder.
    """

    def __init__(self, folder: Path, trackers: Mapping[str, Callable[[Following], Tracker]]) -> None:
        self._following = Following(folder)
        self._made, self._trackers = dict(trackers), dict[str, Tracker]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Tracking:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()
        self._look()
        for name in list(self._trackers):
            with self._ending(name):
                self._trackers[name].close()

    def _work(self) -> None:
        while not self._stop.wait(SECONDS):
            self._look()

    def _look(self) -> None:
        if not (self._made or self._trackers):
            return
        news = [n for n in self._following.news() if not n.trial.shared]
        if self._following.experiment is None:
            return
        for name in list(self._made):
            with self._ending(name):
                self._trackers[name] = self._made.pop(name)(self._following)
        for item in news:
            for name in list(self._trackers):
                with self._ending(name):
                    _tell(self._trackers[name], item.what, item.trial, item.facts)

    @contextlib.contextmanager
    def _ending(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a server that is down, a disk that is full: the run does not depend on it
            self._trackers.pop(name, None)
            reason = discreet(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
            warnings.warn(f"log {name}: ended by {reason}. The run goes on; the same command logs what is missing", stacklevel=2)


def _tell(tracker: Tracker, what: str, trial: Followed, facts: Sequence[Fact]) -> None:
    if what == "begun":
        tracker.begun(trial)
        return
    if facts:
        tracker.facts(trial, facts)
    if what in ("finished", "failed"):
        tracker.ended(trial)


def trackers(wanted: Iterable[str], folder: Path) -> dict[str, Callable[[Following], Tracker]]:
    """Makers of the trackers called "tensorboard" or "mlflow", or "tensorboard=DIR" and "mlflow=URI", for the run in `folder`.

    Raises ConfigError for another name, MissingExtraError where the package is not there.
    """
    found: dict[str, Callable[[Following], Tracker]] = {}
    for text in wanted:
        name, equals, place = text.partition("=")
        if equals and not place:
            raise ConfigError(f"log {text!r}: expected a place behind the sign, e.g. tensorboard=DIR or mlflow=URI")
        if name == "tensorboard":
            from prunescope.integrations import tensorboard

            found[name] = tensorboard.maker(Path(place) if place else folder / "tensorboard")
        elif name == "mlflow":
            from prunescope.integrations import mlflow

            found[name] = mlflow.maker(place, folder)
        else:
            raise ConfigError(unknown("tracker", name, ["tensorboard", "mlflow"]))
    return found


def tracked(wanted: Iterable[str], folder: Path) -> contextlib.AbstractContextManager[Any]:
    """The tracking of a run while the block runs; nothing where nothing is wanted."""
    made = trackers(wanted, folder)
    return Tracking(folder, made) if made else contextlib.nullcontext()
