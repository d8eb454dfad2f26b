"""Recording many replicates in one pass: one forward of the stack for curves and plane, one call of each estimator for all."""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.experiments.recorder import Recorder
from prunescope.information import PlanePoint
from prunescope.measures.capture import HELD_BYTES, OUTPUT, Streamed, Viewed, capture
from prunescope.measures.flow import InformationPlane
from prunescope.measures.quality import Measurement, scored_together
from prunescope.pruning import prunable
from prunescope.registry import estimators
from prunescope.training import State
from prunescope.training.replicas import ReplicateState
from prunescope.training.stacked_capture import StackCapture

RECORDED_BYTES = HELD_BYTES  # activations held at a time while replicates are recorded together

Pairs = Sequence[tuple[Recorder, State]]


class StackRecorder:
    """A watcher that records several replicates together, or one that trains alone.

    before   called at an epoch's end before something is measured, which may take long
    late     identities of networks that were put down between an epoch's end and its measuring: they are measured at the start
    """

    def __init__(
        self, recorders: Sequence[Recorder], *, before: Callable[[Sequence[State]], None] | None = None, late: Collection[int] = ()
    ) -> None:
        self._before, self._late = before, set(late)
        self._by_model = {id(r.model): r for r in recorders}
        self._captures: dict[tuple[tuple[int, ...], tuple[str, ...] | None], StackCapture] = {}
        self._moments: dict[int, _Moments] = {}
        if any(r.measure.gradients for r in recorders):  # else no step has to stop for us
            self.epoch_start, self.gradients = self._epoch_start, self._gradients

    def start(self, states: Sequence[State]) -> None:
        """Before the first step; a training that is taken up again was recorded when it was put down, but for `late` ones."""
        for state in states:
            self._by_model[id(state.model)].prepare(state)
        self._look([s for s in states if s.epoch == s.settings.from_epoch or id(s.model) in self._late])
        self._late = set()

    def epoch_end(self, states: Sequence[State]) -> None:
        """After every epoch."""
        for moments in self._moments.values():  # first, so that nothing of the epoch is left to remember but the networks
            moments.hand_out(states, self._by_model)
        self._moments = {}
        if self._before is not None and any(self._by_model[id(s.model)].due(s) for s in states):
            self._before(states)
        self._look(states)

    def _epoch_start(self, states: Sequence[State]) -> None:
        """Gradients are summed over the epochs that end in a record."""
        if any(self._by_model[id(s.model)].hears_gradients(s.epoch + 1) for s in states):
            self._moments[_stack_of(states)] = _Moments()

    def _gradients(self, states: Sequence[State]) -> None:
        """After every backward pass of a stack, or of a network alone."""
        if self._moments and (moments := self._moments.get(_stack_of(states))) is not None:
            moments.add(states)

    def _look(self, states: Sequence[State]) -> None:
        due = [(r, s) for s in states if (r := self._by_model[id(s.model)]).due(s)]
        alike: dict[int, list[tuple[Recorder, State]]] = {}
        for recorder, state in due:
            alike.setdefault(id(recorder.curves["train"]), []).append((recorder, state))
        for pairs in alike.values():
            size = _replicates_at_once(pairs[0][0])
            for i in range(0, len(pairs), size):
                self._record(pairs[i : i + size])

    def _record(self, pairs: Pairs) -> None:
        """Curves and planes of replicates that share their data."""
        first, plane = pairs[0][0], pairs[0][0].plane
        values: Mapping[str, Tensor] = {} if plane is None else self._streamed(pairs, plane)
        for name, split in first.curves.items():
            if not len(split):
                continue
            if (rows := first.plane_rows.get(name)) is None:
                outputs = self._captured(pairs, [])(split.x)[OUTPUT]
            else:  # the plane's samples are the curve's too; taken with the samples last, as they lie in memory
                outputs = values[OUTPUT].transpose(1, -1).index_select(-1, rows).transpose(1, -1)
            for (recorder, state), measured in zip(pairs, scored_together(outputs, split, first.loss), strict=True):
                recorder.add_curve(state, name, measured)
        if plane is not None:
            without = OUTPUT if plane.layers is not None and OUTPUT not in plane.layers else ""
            self._add_points(pairs, Viewed(values, lambda _, v: v, without=without))

    def _streamed(self, pairs: Pairs, plane: InformationPlane) -> Mapping[str, Tensor]:
        """The plane's layers and the output; of a network whose values take more than is held at a time, some layers at a time."""
        whole = self._captured(pairs, plane.layers)
        if len(pairs) > 1 or _bytes_of(pairs[0][0]) <= RECORDED_BYTES:
            return whole(plane.x)
        return Streamed(lambda names: self._captured(pairs, names)(plane.x), whole(plane.x[:1]), len(plane.x), axis=1)

    def _captured(self, pairs: Pairs, layers: Sequence[str] | None) -> StackCapture:
        """The networks' layers and always their output."""
        key = (tuple(id(r.model) for r, _ in pairs), None if layers is None else tuple(layers))
        if key not in self._captures:
            models: list[nn.Module] = [r.model for r, _ in pairs]
            self._captures[key] = StackCapture(models, layers if layers is None or OUTPUT in layers else [*layers, OUTPUT])
        return self._captures[key]

    @staticmethod
    def _add_points(pairs: Pairs, values: Mapping[str, Tensor]) -> None:
        first = pairs[0][0].plane
        assert first is not None, "the caller has seen to that"
        each: list[list[PlanePoint]] = [[] for _ in pairs]
        if _one_pass(first.estimators):
            for point in first.estimated(values, replicates=True):
                each[point.replicate or 0].append(point)
        else:
            for place, (recorder, _) in enumerate(pairs):
                assert recorder.plane is not None, "replicates share their settings"
                each[place] = recorder.plane.estimated(Viewed(values, functools.partial(_replicate, place)))
        texts: dict[Any, str] = {}
        for (recorder, state), points in zip(pairs, each, strict=True):
            recorder.add_points(state, points, texts)


def _stack_of(states: Sequence[State]) -> int:
    first = states[0]
    return id(first.flat) if isinstance(first, ReplicateState) else id(first.model)


def _replicates_at_once(recorder: Recorder) -> int:
    """As many as have their units' values in RECORDED_BYTES; a unit is a row of a weight."""
    units = sum(p.shape[0] for p in recorder.model.parameters() if p.ndim > 1)
    rows = max([len(split) for split in recorder.curves.values()] + ([len(recorder.plane.x)] if recorder.plane is not None else []))
    return max(1, RECORDED_BYTES // max(1, 4 * rows * units, _bytes_of(recorder)))


def _bytes_of(recorder: Recorder) -> int:
    """What the values of the plane's layers take, maps and sequences in full."""
    plane = recorder.plane
    if plane is None:
        return 0
    if (known := _SIZES.get(recorder.model)) is None:
        known = _SIZES[recorder.model] = sum(v.nbytes for v in capture(recorder.model, plane.x[:1], plane.layers).values())
    return known * len(plane.x)


_SIZES: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()


def _replicate(place: int, name: str, value: Tensor) -> Tensor:
    return value[place]


def _one_pass(specs: Sequence[Any]) -> bool:
    """Whether the estimators draw no numbers, so that all replicates may share a call: else each has a generator of its own seed."""
    for spec in specs:
        entry = estimators.get(spec if isinstance(spec, str) else str(spec["name"]))
        function = entry.traits.get("plane")
        if function is None or "generator" in inspect.signature(function).parameters:
            return False
    return True


class _Moments:
    """Sums over an epoch's batches of each weight's gradient and of its square: of a whole stack in two calls a step.

    What is recorded are the norms per layer of their mean and standard deviation (Shwartz-Ziv & Tishby 2017).
    """

    def __init__(self) -> None:
        self._count, self._sums, self._squares = 0, dict[str, Tensor](), dict[str, Tensor]()
        self._places: dict[int, int] = {}
        self._names: list[str] = []

    def add(self, states: Sequence[State]) -> None:
        """One batch more."""
        first = states[0]
        together = isinstance(first, ReplicateState) and first.flat is not None
        if not self._count:
            self._names = list(prunable(first.model))
            self._places = {id(s.model): s.place if isinstance(s, ReplicateState) else 0 for s in states}
        now = {"": first.flat.slopes} if together else {n: p.grad for n, p in prunable(first.model).items() if p.grad is not None}  # type: ignore[attr-defined]
        for name, slopes in now.items():
            if name not in self._sums:
                self._sums[name], self._squares[name] = torch.zeros_like(slopes), torch.zeros_like(slopes)
            self._sums[name] += slopes
            self._squares[name].addcmul_(slopes, slopes)
        self._count += 1

    def hand_out(self, states: Sequence[State], recorders: Mapping[int, Recorder]) -> None:
        """Give the recorders what the gradients of their networks were like."""
        ours = [s for s in states if id(s.model) in self._places]
        if not ours or self._count < 2:
            return
        for state, measured in zip(ours, self._measurements(ours), strict=True):
            recorders[id(state.model)].add_gradients(state, measured)

    def _measurements(self, states: Sequence[State]) -> list[list[Measurement]]:
        found: list[list[Measurement]] = [[] for _ in states]
        sums, squares = self._of_all(states[0], self._sums), self._of_all(states[0], self._squares)
        places = [self._places[id(s.model)] for s in states]
        for name in (n for n in self._names if n in sums):
            mean = sums[name].flatten(1).double() / self._count
            spread = (squares[name].flatten(1).double() / self._count - mean.square()).clamp_min(0)
            norms, deviations = mean.norm(dim=1).tolist(), spread.sum(1).sqrt().tolist()
            for own, place in zip(found, places, strict=True):
                norm, deviation = norms[place], deviations[place]
                values = {"gradient_mean": norm, "gradient_sd": deviation}
                if deviation > 0:
                    values["gradient_snr"] = norm / deviation
                own += [Measurement(m, v, "", self._count, parameters={"layer": name}) for m, v in values.items()]
        return found

    @staticmethod
    def _of_all(state: State, sums: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """By parameter, with the replicates first."""
        if isinstance(state, ReplicateState) and state.flat is not None:
            return state.flat.views(sums[""])
        return {name: s.unsqueeze(0) for name, s in sums.items()}
