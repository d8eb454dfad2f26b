"""compact: trace, study, plan, build, check."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.pruning.compact.checking import Check, DiffersError, Inputs, cast, compare, doubled, precision, tolerance_of
from prunescope.pruning.compact.own import UnfitError, own_classes
from prunescope.pruning.compact.plan import Plan, plan
from prunescope.pruning.compact.regraph import graph_module
from prunescope.pruning.compact.report import CompactReport, counted, rows
from prunescope.pruning.compact.study import dead_by_masks, study
from prunescope.pruning.coupling import couple
from prunescope.pruning.coupling.trace import call_arguments
from prunescope.pruning.masks import Masks
from prunescope.pruning.wrapping import unwrapped
from prunescope.types import PruningError


class CompactError(PruningError):
    """No smaller network could be built that computes what the masked one does."""


def compact(model: nn.Module, masks: Mapping[str, Tensor] | None = None, example_inputs: Any = None) -> tuple[nn.Module, CompactReport]:
    """A smaller dense network that computes what `model` does with its `masks`, and a report of what went (parameters) and what stayed.
    """
    model = unwrapped(model)
    clock = Clock()
    masked = copy.deepcopy(model)
    if masks:
        Masks(masks).apply(masked)
    inputs = call_arguments(example_inputs)
    work = copy.deepcopy(masked).double().eval()
    wide: Inputs = doubled(inputs)
    coupling = couple(work, wide[0] if not wide[1] else wide[1])
    clock.note("trace")
    tensors = {n: t.detach() for n, t in [*work.named_buffers(), *work.named_parameters()]}
    leaves, _ = torch.utils._pytree.tree_flatten(wide)
    found = study(coupling, tensors, leaves)
    made = plan(found, level=True)
    clock.note("plan")
    how, note = "own classes", ""
    try:
        small = own_classes(work, made)
        clock.note("build")
        checks = compare(work, small, wide, 1e-10)
    except (UnfitError, DiffersError) as error:
        note = str(error)
        small, free = graph_module(work, made, wide)
        how = "graph module"
        note += "" if free else " FROZEN"
        clock.note("build")
        checks = compare(work, small, wide, 1e-10, batches=free)
    clock.note("check")
    return small, report_of(masked, small, made, how, checks, [], clock, note)


class Clock:
    """Seconds of each part."""

    def __init__(self) -> None:
        self.last, self.seconds = time.perf_counter(), {}

    def note(self, part: str) -> None:
        """The time since the last note belongs to `part`."""
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self.last
        self.last = now


def report_of(model, small, made, how, checks, rounded, clock, note=""):
    names = [n for n, _ in model.named_parameters()]
    dead = dead_by_masks(made.study)
    before, after = (sum(p.numel() for p in m.parameters()) for m in (model, small))
    return CompactReport(before, after, counted(made.coupling, dead | made.removed, names), how, True, rows(made, dead), tuple(checks), tuple(rounded),
                         clock.seconds, note)
