"""Trials together: each goes its own way up to its next training, and trainings of one kind are carried out as a stack.

A trial is a generator that stops at every training. Alone, the training is done at once; together, all trials go on until each of them
waits, those that wait for the same kind of training train as one stack, and all go on again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from prunescope.experiments.checkpoints import Checkpoints, Stood
from prunescope.experiments.stackrecorder import StackRecorder
from prunescope.experiments.trial import Steps, Training
from prunescope.training.checkpoint import Snapshot
from prunescope.training.replicas import train_stack
from prunescope.types import StoreError

T = TypeVar("T")


def together(
    trials: Sequence[Steps[T]], *, stack: str | int = "auto", checkpoints: Checkpoints | None = None, watchers: Sequence[object] = ()
) -> list[T | Exception]:
    """The results of `trials` in order; one that raises gives its error, and those whose stack fails give the stack's.

    `watchers` hear all trainings after their recorders.
    """
    results: dict[int, T | Exception] = {}
    going = dict(enumerate(trials))
    while going:
        waiting: dict[str, list[tuple[int, Training]]] = {}
        for place, steps in list(going.items()):
            try:
                training = _next(steps, checkpoints)
            except StopIteration as end:
                results[place] = end.value
                del going[place]
            except StoreError:
                raise  # a disk that is full fails all trials alike: the sweep stops
            except Exception as error:  # the trial is a row with its reason; the others go on
                results[place] = error
                del going[place]
            else:
                kind = f"{training.alone} {training.apart} {training.phase} {training.settings.model_dump_json()}"
                waiting.setdefault(kind, []).append((place, training))
        for group in waiting.values():
            try:
                first = group[0][1]
                carry_out([t for _, t in group], stack="off" if first.alone else stack, checkpoints=checkpoints, watchers=watchers)
            except Exception as error:
                for place, _ in group:
                    results[place] = error
                    del going[place]
    return [results[place] for place in range(len(trials))]


def _next(steps: Steps[T], checkpoints: Checkpoints | None) -> Training:
    """The trial's next training that was not finished before: past those at once, so that all trials stand where they stood together."""
    training = next(steps)
    while checkpoints is not None and checkpoints.passed(training):
        training = next(steps)
    return training


def carry_out(
    trainings: Sequence[Training], *, stack: str | int = "auto", checkpoints: Checkpoints | None = None, watchers: Sequence[object] = ()
) -> None:
    """Train the networks of `trainings`, which have one phase and one set of settings, as stacks where that pays.

    Those whose `checkpoints` have come equally far go on together.
    """
    if checkpoints is None:
        return _train(trainings, [None] * len(trainings), stack, [StackRecorder([t.recorder for t in trainings]), *watchers])
    ahead: dict[int, list[tuple[Training, Stood | None]]] = {}
    for training in trainings:
        stood = checkpoints.found(training)
        ahead.setdefault(0 if stood is None else stood.training.epoch, []).append((training, stood))
    for pairs in ahead.values():
        group = [t for t, _ in pairs]
        watcher = checkpoints.watcher(group)
        late = [id(t.model) for t, s in pairs if s is not None and not s.measured]
        recorder = StackRecorder([t.recorder for t in group], before=watcher.before_measuring, late=late)
        _train(group, [None if s is None else s.training for _, s in pairs], stack, [recorder, watcher, *watchers])


def _train(trainings: Sequence[Training], stood: Sequence[Snapshot | None], stack: str | int, watchers: Sequence[object]) -> None:
    first = trainings[0]
    train_stack(
        [t.model for t in trainings],
        [t.data for t in trainings],
        first.settings,
        seeds=[t.seed for t in trainings],
        phase=first.phase,
        masks=[t.masks for t in trainings],
        listeners=[t.listeners for t in trainings],
        watchers=watchers,
        stack=stack,
        resume=stood,
        teachings=[t.teaching for t in trainings],
        apart=first.apart,
    )
