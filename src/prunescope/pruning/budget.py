"""From scores to what is kept: the facts that an allocation needs, its counts, and the selection by rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.pruning.allocation import Scores, checked_counts, protected
from prunescope.pruning.groups import Group
from prunescope.pruning.select import highest, some
from prunescope.pruning.streams import stream_of, whole
from prunescope.pruning.targets import owner
from prunescope.registry import Entry
from prunescope.types import PruningError


@dataclass(frozen=True)
class Request:
    """How much is to go: a sparsity, a threshold or a table, one of them; and whether a layer may lose all."""

    sparsity: float | None
    threshold: float | None
    table: Mapping[str, float] | None
    allow_empty: bool = False


def kept_of(
    groups: Sequence[Group], scores: Scores, entry: Entry, options: Mapping[str, Any], request: Request, model: nn.Module,
    inputs: Any = None,
) -> dict[str, Tensor]:  # fmt: skip
    """What is kept of each group (pieces,): above the threshold, or the highest scores of the allocation's counts."""
    if request.threshold is not None:
        kept = {name: whole(s) > request.threshold for name, s in scores.items()}
        _refuse_emptied(kept, scores, request)
        return kept
    given = facts(entry, groups, request, model, inputs)
    least = int(options.get("least", 0))
    if entry.traits.get("pooled") and least == 0:
        total = sum(s.numel() for s in scores.values())
        kept = highest({n: stream_of(s) for n, s in scores.items()}, round((request.sparsity or 0.0) * total))
        _refuse_emptied(kept, scores, request)
        return kept
    counts = checked_counts(entry.function(scores, request.sparsity, **given, **options), scores, allow_empty=request.allow_empty)
    ranked = protected(scores, least)
    return {g.name: highest({g.name: stream_of(ranked[g.name])}, counts[g.name])[g.name] for g in groups}


def _refuse_emptied(kept: Mapping[str, Tensor], scores: Scores, request: Request) -> None:
    counts = {name: k.numel() if not some(k) else 0 for name, k in kept.items()}
    checked_counts(counts, scores, allow_empty=request.allow_empty)


def facts(entry: Entry, groups: Sequence[Group], request: Request, model: nn.Module, inputs: Any = None) -> dict[str, Any]:
    """The facts that an allocation's `needs` names."""
    shapes = {n: tuple(p.shape) for n, p in model.named_parameters(remove_duplicate=False)}
    found: dict[str, Any] = {}
    for need in entry.needs:
        if need == "table":
            found[need] = request.table
        elif need == "shapes":
            found[need] = {g.name: shapes[g.slots[0].parameter] for g in groups}
        elif need == "sizes":
            found[need] = {g.name: sum(_members(g, model).values()) for g in groups}
        elif need == "costs":
            found[need] = costs(groups, model, inputs)
        else:
            raise PruningError(f"allocation {entry.name!r} needs {need!r}, which is none of table, shapes, sizes and costs")
    return found


def costs(groups: Sequence[Group], model: nn.Module, inputs: Any) -> dict[str, float]:
    """Multiplications for one sample that a piece of each group takes: its weights times the positions at which each is used."""
    if inputs is None:
        raise PruningError("a budget of multiplications needs inputs to count them on: pass example_inputs=, or data=")
    used = positions(model, inputs)
    return {g.name: sum(count * used.get(owner(name), 1.0) for name, count in _members(g, model).items()) for g in groups}


def _members(group: Group, model: nn.Module) -> dict[str, float]:
    """Entries of each weight that a piece of the group covers (their mean, should pieces differ)."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    weights = [s for s in group.slots if not s.companion and parameters[s.parameter].ndim > 1]
    found: dict[str, float] = {}
    for slot in weights:
        shape = parameters[slot.parameter].shape
        covered = int((~slot.layout.expand(torch.zeros(group.pieces, dtype=torch.bool), shape)).sum())
        found[slot.parameter] = found.get(slot.parameter, 0.0) + covered / group.pieces
    return found


@torch.no_grad()
def positions(model: nn.Module, inputs: Any) -> dict[str, float]:
    """How often each module uses each of its weights for one sample: output values a unit (1 for a plain linear layer, pixels, tokens).

    One forward pass in eval mode; the model's mode is put back.
    """
    used: dict[str, float] = {}
    handles = []

    def hook(name: str, module: nn.Module) -> Any:
        def count(_: nn.Module, __: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            weight = getattr(module, "weight", None)
            if isinstance(first, Tensor) and isinstance(weight, Tensor) and weight.ndim > 1 and len(first):
                transposed = isinstance(module, nn.modules.conv._ConvTransposeNd) or type(module).__name__ == "Conv1D"
                units = getattr(module, "out_channels", None) or weight.shape[1 if transposed else 0]
                used[name] = used.get(name, 0.0) + first.numel() / (len(first) * units)

        return count

    training = {m: m.training for m in model.modules()}
    try:
        model.eval()
        handles = [m.register_forward_hook(hook(n, m)) for n, m in model.named_modules()]
        model(**inputs) if isinstance(inputs, Mapping) else model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
    return used
