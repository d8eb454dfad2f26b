"""compact: trace, study, plan, build, check."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.pruning.compact.checking import (
    Check,
    Comparison,
    DiffersError,
    Inputs,
    cast,
    difference,
    doubled,
    precision,
    rigid,
    tolerance_of,
)
from prunescope.pruning.compact.own import UnfitError, own_classes
from prunescope.pruning.compact.places import Places, away
from prunescope.pruning.compact.plan import Plan, plan
from prunescope.pruning.compact.regraph import Traces, graph_modules
from prunescope.pruning.compact.report import CompactReport, counted, rows
from prunescope.pruning.compact.study import Study, dead_by_masks, study
from prunescope.pruning.coupling import Coupling, couple
from prunescope.pruning.coupling.trace import call_arguments
from prunescope.pruning.masks import Masks
from prunescope.pruning.normalisation import recalibrate
from prunescope.pruning.wrapping import unwrapped
from prunescope.types import PruningError

CALIBRATED = 64  # samples at a time


class CompactError(PruningError):
    """No smaller network could be built that computes what the masked one does."""


def compact(
    model: nn.Module,
    masks: Mapping[str, Tensor] | None = None,
    example_inputs: Any = None,
    *,
    approximate: bool = False,
    calibration: Tensor | None = None,
) -> tuple[nn.Module, CompactReport]:
    """A smaller dense network that computes what `model` does with its `masks`, and a report of the parameters that went.

    model            any network that torch.export or torch.fx can trace; it stays as it is, and so do the masks
    masks            True = kept, by parameter name (`Masks`); None takes the zeros of the weights as they are
    example_inputs   a tensor, a tuple of positional or a mapping of keyword inputs; a batch of two or more says most
    approximate      also drop dead channels whose numbers no bias can stand for exactly; their mean over positions is kept
    calibration      samples (n, ...) over which an approximate network's batch norms take their statistics anew (`report.recalibrated`)

    The result is the model's own class with smaller parameters where its forward allows that, else a graph of ATen operations. Before it is
    returned it is compared with the masked model in double precision, on the example, on a random sample, and on another batch size and
    another size where the model takes them; in its own precision on the first two. All of it happens on the processor, in copies; the
    result lies where the model does. CompactError where no network passes; PruningError where the model cannot be traced.

    >>> net = nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 2))
    >>> small, report = compact(net, {"0.weight": torch.tensor([[True], [False], [True], [True]]).expand(4, 3)}, torch.zeros(2, 3))
    >>> report.before, report.after, tuple(small[0].weight.shape), report.how
    (26, 20, (3, 3), 'own classes')
    """
    model = unwrapped(model)
    if calibration is not None and not approximate:
        raise CompactError("calibration belongs to approximate=True: an exact network keeps its statistics")
    if example_inputs is None:
        raise CompactError("compact needs example_inputs (a tensor, a tuple or a mapping of keywords) to trace the network with")
    clock = Clock()
    places = Places(model)
    masked = places.away(_masked(model, masks))
    inputs = away(call_arguments(example_inputs))
    work = copy.deepcopy(masked).double().eval()
    wide = doubled(inputs)
    coupling = _coupled(work, wide)
    clock.note("trace")
    tensors = {n: t.detach() for n, t in [*work.named_buffers(), *work.named_parameters()]}
    leaves = torch.utils._pytree.tree_leaves(wide)
    found = study(coupling, tensors, leaves, approximate=approximate, rigid=functools.partial(rigid, work, wide))
    clock.note("plan")
    build = Build(masked.eval(), work, inputs, wide, approximate, clock, away(calibration))
    small, report = build.first(found)
    return places.back(small), report


def _masked(model: nn.Module, masks: Mapping[str, Tensor] | None) -> nn.Module:
    try:
        made = copy.deepcopy(model)
    except Exception as error:  # the user's module may hold what cannot be copied
        raise CompactError(
            f"{type(model).__name__} cannot be copied, and compact works on a copy: {type(error).__name__}: {error}"
        ) from error
    if masks:
        Masks(masks).apply(made)
    return made


def _coupled(work: nn.Module, wide: Inputs) -> Coupling:
    if wide[0] and wide[1]:
        raise CompactError("example inputs are either positional or keywords")
    return couple(work, wide[1] or wide[0])


class Clock:
    """Seconds of each part."""

    def __init__(self) -> None:
        self.last, self.seconds = time.perf_counter(), dict[str, float]()

    def note(self, part: str) -> None:
        """The time since the last note belongs to `part`."""
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self.last
        self.last = now


class Build:
    """The candidates, from the most wanted to the least, and their checks."""

    def __init__(
        self,
        masked: nn.Module,
        work: nn.Module,
        inputs: Inputs,
        wide: Inputs,
        approximate: bool,
        clock: Clock,
        calibration: Tensor | None = None,
    ) -> None:
        self.calibration = calibration
        self.masked, self.work, self.inputs, self.wide, self.approximate, self.clock = masked, work, inputs, wide, approximate, clock
        self.dtype, self.traces = precision(masked), Traces(work, wide)

    def first(self, found: Study) -> tuple[nn.Module, CompactReport]:
        """The first candidate that passes; a graph that takes the example's size alone only where no other graph takes more."""
        said: list[str] = []
        for plans in self._plans(found):
            narrow: tuple[nn.Module, CompactReport] | None = None
            for made, how, wide, more in self._of(plans, said):
                norms = 0 if self.calibration is None else recalibrate(wide, doubled(self.calibration), CALIBRATED)
                self.clock.note("build")
                try:
                    made_wide = Comparison(self.work, wide, self.wide, self._tolerance(torch.float64, found)).example().random().resized()
                    small = returned(wide, self.masked, self.dtype)
                    rounded = self._rounded(small, made_wide.found)
                except DiffersError as error:
                    said.append(f"{how}: {error}")
                    continue
                finally:
                    self.clock.note("check")
                notes = [*dict.fromkeys(said), *([made_wide.note] if made_wide.note else [])]
                result = small, self._report(made, how, small, made_wide.found, rounded, "; ".join(notes), norms)
                if not made_wide.note or how == "own classes":
                    return result
                narrow = narrow or result
                if not more:
                    break
            if narrow is not None:
                return narrow
        why = "; ".join(dict.fromkeys(said))
        raise CompactError(f"{type(self.masked).__name__} cannot be made smaller: {why}. Model and masks are as before")

    def _plans(self, found: Study) -> Iterator[Plan]:
        """All that the masks leave dead; then all but what could not be removed in a way that passes."""
        yield plan(found, level=True)
        exclude = self._culprits(found)
        made = plan(found, exclude=exclude, level=True)
        for number in exclude:
            made.stays[number] = "could not be removed in a way that passed the check"
        yield made

    def _of(self, made: Plan, said: list[str], *, flexible: bool = True) -> Iterator[tuple[Plan, str, nn.Module, bool]]:
        """The user's own classes, then graphs; and whether later ones may take inputs of more sizes."""
        self.clock.note("plan")
        try:
            yield made, "own classes", own_classes(self.work, made), True
        except UnfitError as error:
            said.append(f"own classes: {error}")
        try:
            for module, more in graph_modules(self.traces, made, flexible=flexible):
                yield made, "graph module", module, more
        except UnfitError as error:
            said.append(f"graph module: {error}")

    def _culprits(self, found: Study) -> frozenset[int]:
        """Sets of families that stay so that the rest can go: each is the last of the shortest row of families that does not pass."""
        whole = plan(found, level=True).removed
        wanted = [f.sets.tolist() for f in found.coupling.families if whole[f.sets].any()]
        kept: set[int] = set()

        def passes(count: int) -> bool:
            later = {n for f in wanted[count:] for n in f}
            return self._passes(plan(found, exclude=frozenset(kept | later), level=True))

        good = 0  # so many of the first families can go, but for those that are kept
        while good < len(wanted) and not (kept and passes(len(wanted))):  # all of them did not pass: that is why we are here
            bad = len(wanted)
            while bad - good > 1:  # halves: each try builds the network anew
                middle = (good + bad) // 2
                good, bad = (middle, bad) if passes(middle) else (good, middle)
            kept |= set(wanted[bad - 1])
            good = bad
        return frozenset(kept)

    def _passes(self, made: Plan) -> bool:
        """Whether the example passes in the user's own classes or as a graph."""
        for _, _, module, _ in self._of(made, [], flexible=False):
            try:
                Comparison(self.work, module, self.wide, self._tolerance(torch.float64, made.study)).example()
            except DiffersError:
                continue
            return True
        return False

    def _tolerance(self, dtype: torch.dtype, found: Study) -> float:
        if self.approximate:
            return float("inf")
        narrow = any(
            isinstance(v := n.meta.get("val"), Tensor) and v.is_floating_point() and v.dtype != torch.float64
            for n in found.coupling.trace.graph.graph.nodes
        )  # the forward itself rounds to a narrower type on the way
        return tolerance_of(torch.float32 if narrow else dtype)

    def _rounded(self, small: nn.Module, wide: list[Check]) -> list[Check]:
        """The same comparison in the precision that is returned; a network that rounds much itself may differ by as much as it does."""
        if self.dtype == torch.float64:
            return wide
        allowed = float("inf") if self.approximate else tolerance_of(self.dtype)
        try:
            return Comparison(self.masked, small, self.inputs, allowed).example().random().found
        except DiffersError:
            own = 10 * self._noise()
            if own <= allowed:
                raise
        return Comparison(self.masked, small, self.inputs, own).example().random().found

    @torch.no_grad()
    def _noise(self) -> float:
        """How far the masked network in its own precision is from itself in double precision."""
        args, kwargs = self.wide
        return difference(self.work(*args, **kwargs), self.masked(*cast(args, self.dtype), **cast(kwargs, self.dtype)))

    def _report(
        self, made: Plan, how: str, small: nn.Module, checks: list[Check], rounded: list[Check], note: str, norms: int
    ) -> CompactReport:
        before, after = (sum(p.numel() for p in m.parameters()) for m in (self.masked, small))
        dead = dead_by_masks(made.study) | made.removed
        names = [n for n, _ in self.masked.named_parameters()]
        removable = counted(made.coupling, np.asarray(dead), names)
        seconds = {n: round(s, 4) for n, s in self.clock.seconds.items()}
        return CompactReport(
            before, after, removable, how, not self.approximate, rows(made, dead), tuple(checks), tuple(rounded), seconds, note, norms
        )


def returned(wide: nn.Module, like: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The network in the precisions and modes of `like`: by name, and in `dtype` what has no counterpart."""
    small = copy.deepcopy(wide)
    dtypes = {n: t.dtype for n, t in [*like.named_parameters(remove_duplicate=False), *like.named_buffers(remove_duplicate=False)]}
    for path, module in small.named_modules():
        for store in (module._parameters, module._buffers):
            for last, tensor in store.items():
                if tensor is not None and tensor.is_floating_point():
                    tensor.data = tensor.data.to(dtypes.get(f"{path}.{last}".lstrip("."), dtype))
    if isinstance(small, torch.fx.GraphModule) and dtype != torch.float64:
        _retyped(small, dtype)
    small.train(like.training) if isinstance(small, torch.fx.GraphModule) else None
    return small


def _retyped(module: torch.fx.GraphModule, dtype: torch.dtype) -> None:
    """Types that the code names: the double precision of the trace becomes the network's own, and so does its largest number (masks)."""
    most = torch.finfo(dtype).max

    def change(argument: Any) -> Any:
        if isinstance(argument, list | tuple):
            return type(argument)(change(a) for a in argument) if not hasattr(argument, "_fields") else argument
        if isinstance(argument, float) and most < abs(argument) < float("inf"):
            return most if argument > 0 else -most
        return dtype if argument is torch.float64 else argument

    for node in module.graph.nodes:
        if node.op == "call_function":
            node.args = tuple(change(a) for a in node.args)
            node.kwargs = {n: change(a) for n, a in node.kwargs.items()}
    module.recompile()
