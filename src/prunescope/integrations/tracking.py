"""Trackers: a run's records handed on to TensorBoard or MLflow while it works, read from its folder like anybody else would."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from prunescope.registry import unknown
from prunescope.results.following import Followed, Following, moments
from prunescope.results.live import Fact
from prunescope.types import ConfigError

SECONDS = 2.0
TRAINING = ("train", "pruned", "finetune")
LEFT_OUT = ("entropy", "chance")  # the same in other words, or the same everywhere


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
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
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


class Told:
    """What has been told of each trial already, so that nothing is written twice."""

    def __init__(self) -> None:
        self._seen: dict[str, set[tuple[str, str, float]]] = {}
        self._trained: dict[str, float] = {}

    def new(self, trial: Followed, facts: Iterable[Fact]) -> list[tuple[str, int, float]]:
        """(tag, step, value) of what is new and of use to a tracker; the step is the epoch, fine-tuning comes after training."""
        seen, found = self._seen.setdefault(trial.name, set()), list[tuple[str, int, float]]()
        trained = 0.0 if facts is trial.facts else self._trained.get(trial.name, 0.0)  # all of a trial's, or what is new of them
        for moment, fact in moments(facts, trained):
            if fact.phase == "train":
                self._trained[trial.name] = max(moment, self._trained.get(trial.name, 0.0))
            key = (fact.phase, tag(fact), fact.epoch)
            if fact.metric not in LEFT_OUT and key not in seen:
                seen.add(key)
                found.append((key[1], round(moment), fact.value))
        return found

    def forget(self, trial: Followed) -> None:
        """A trial is over, or begins anew."""
        self._seen.pop(trial.name, None)
        self._trained.pop(trial.name, None)


def tag(fact: Fact) -> str:
    """What a fact is called: "accuracy/validation", "mi_input/binning/fc1", and after training "final/accuracy/test".

    >>> tag(Fact("mi_label", "train", 3, "train", "fc1", "binning", 1.2)), tag(Fact("bytes", "final", 0, "", "", "", 80))
    ('mi_label/binning/fc1', 'final/bytes')
    """
    split = "" if fact.estimator else fact.split  # the plane has one split in a run
    parts = ("" if fact.phase in TRAINING else fact.phase, fact.metric, fact.estimator, fact.layer, split)
    return "/".join(part for part in parts if part)


def parameters(trial: Followed, config: Mapping[str, Any]) -> dict[str, Any]:
    """What tells the trial from others, and the settings that all share, with dotted names."""
    level = {} if trial.sparsity is None else {"sparsity": trial.sparsity}
    own = {"group": trial.group, "variant": trial.variant, **level, "seed": trial.seed}
    shared = {k: v for section in ("data", "model", "training", "finetune", "prune") for k, v in _dotted(section, config.get(section))}
    variant: Mapping[str, Any] = next((v for v in config.get("variant", []) if v.get("name") == trial.variant), {})
    changed = {k: v for section in ("data", "model", "training", "finetune", "prune") for k, v in _dotted(section, variant.get(section))}
    return {**{k: v for k, v in own.items() if v != ""}, **shared, **changed}


def _dotted(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _dotted(f"{name}.{key}", inner)
    elif value is not None and value != []:
        yield name, value
