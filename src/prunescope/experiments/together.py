"""Trials together: each goes its own way up to its next training, and trainings of one kind are carried out as a stack.

A trial is a generator that stops at every training. Alone, the training is done at once; together, all trials go on until each of them
waits, those that wait for the same kind of training train as one stack, and all go on again.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, TypeVar

from prunescope.experiments.recorder import Recorder
from prunescope.experiments.trial import Steps, Training
from prunescope.measures.capture import OUTPUT
from prunescope.measures.quality import scored
from prunescope.registry import estimators
from prunescope.training import State
from prunescope.training.replicas import train_stack
from prunescope.training.stacked_capture import capture_stack
from prunescope.types import StoreError

T = TypeVar("T")
RECORDED_BYTES = 128 << 20  # activations held at a time while replicates are recorded together


def together(trials: Sequence[Steps[T]], *, stack: str | int = "auto") -> list[T | Exception]:
    """The results of `trials` in order; one that raises gives its error, and those whose stack fails give the stack's."""
    results: dict[int, T | Exception] = {}
    going = dict(enumerate(trials))
    while going:
        waiting: dict[str, list[tuple[int, Training]]] = {}
        for place, steps in list(going.items()):
            try:
                training = next(steps)
            except StopIteration as end:
                results[place] = end.value
                del going[place]
            except StoreError:
                raise  # a disk that is full fails all trials alike: the sweep stops
            except Exception as error:  # the trial is a row with its reason; the others go on
                results[place] = error
                del going[place]
            else:
                kind = f"{training.alone} {training.phase} {training.settings.model_dump_json()}"
                waiting.setdefault(kind, []).append((place, training))
        for group in waiting.values():
            try:
                carry_out([t for _, t in group], stack="off" if group[0][1].alone else stack)
            except Exception as error:
                for place, _ in group:
                    results[place] = error
                    del going[place]
    return [results[place] for place in range(len(trials))]


def carry_out(trainings: Sequence[Training], *, stack: str | int = "auto") -> None:
    """Train the networks of `trainings`, which have one phase and one set of settings, as stacks where that pays."""
    first = trainings[0]
    recorders = [t.recorder for t in trainings]
    train_stack(
        [t.model for t in trainings],
        [t.data for t in trainings],
        first.settings,
        seeds=[t.seed for t in trainings],
        phase=first.phase,
        masks=[t.masks for t in trainings],
        listeners=[[*([_Gradients(t.recorder)] if t.recorder.measure.gradients else []), *t.listeners] for t in trainings],
        watchers=[StackRecorder(recorders)],
        stack=stack,
    )


class _Gradients:
    """The part of a recorder that has to hear every step."""

    def __init__(self, recorder: Recorder) -> None:
        self.epoch_start, self.gradients = recorder.epoch_start, recorder.gradients


class StackRecorder:
    """A watcher that records several replicates in one pass: one forward of all, one call of each estimator for all."""

    def __init__(self, recorders: Sequence[Recorder]) -> None:
        self._by_model = {id(r.model): r for r in recorders}

    def start(self, states: Sequence[State]) -> None:
        """Before the first step."""
        self._look(states)

    def epoch_end(self, states: Sequence[State]) -> None:
        """After every epoch."""
        for recorder, state in self._look(states):
            recorder.add_gradients(state)

    def _look(self, states: Sequence[State]) -> list[tuple[Recorder, State]]:
        due = [(r, s) for s in states if (r := self._by_model[id(s.model)]).due(s)]
        alike: dict[int, list[tuple[Recorder, State]]] = {}
        for recorder, state in due:
            alike.setdefault(id(recorder.curves["train"]), []).append((recorder, state))
        for pairs in alike.values():
            size = _replicates_at_once(pairs[0][0])
            for i in range(0, len(pairs), size):
                _record(pairs[i : i + size])
        return due


def _replicates_at_once(recorder: Recorder) -> int:
    """As many as have their units' values in RECORDED_BYTES; a unit is a row of a weight."""
    units = sum(p.shape[0] for p in recorder.model.parameters() if p.ndim > 1)
    rows = max([len(split) for split in recorder.curves.values()] + ([len(recorder.plane.x)] if recorder.plane is not None else []))
    return max(1, RECORDED_BYTES // (4 * max(1, rows * units)))


def _record(pairs: Sequence[tuple[Recorder, State]]) -> None:
    """Curves and planes of replicates that share their data."""
    first, models = pairs[0][0], [r.model for r, _ in pairs]
    for name, split in first.curves.items():
        outputs = capture_stack(models, split.x, [OUTPUT])[OUTPUT] if len(split) else [split.x] * len(pairs)
        for (recorder, state), output in zip(pairs, outputs, strict=True):
            recorder.add_curve(state, name, scored(output, split, recorder.loss))
    if first.plane is None:
        return
    if not _one_pass(first.plane.estimators):
        for recorder, state in pairs:
            assert recorder.plane is not None, "replicates share their settings"
            recorder.add_points(state, recorder.plane.record(state.epoch + recorder.epoch_offset))
        return
    found = first.plane.estimated(capture_stack(models, first.plane.x, first.plane.layers), replicates=True)
    for place, (recorder, state) in enumerate(pairs):
        recorder.add_points(state, [p for p in found if p.replicate == place])


def _one_pass(specs: Sequence[Any]) -> bool:
    """Whether the estimators draw no numbers, so that all replicates may share a call: else each has a generator of its own seed."""
    for spec in specs:
        entry = estimators.get(spec if isinstance(spec, str) else str(spec["name"]))
        function = entry.traits.get("plane")
        if function is None or "generator" in inspect.signature(function).parameters:
            return False
    return True
