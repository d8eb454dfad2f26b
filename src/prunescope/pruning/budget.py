"""From scores to what is kept: the facts that an allocation needs, its counts, and the selection by rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.pruning.allocation import checked_counts, protected
from prunescope.pruning.groups import Group
from prunescope.pruning.latency import Times, latency_costs, layer_times, refuse_fragments, weights_of
from prunescope.pruning.positions import positions
from prunescope.pruning.select import best_of_each, highest, some
from prunescope.pruning.selection import shares, smallest_within
from prunescope.pruning.sensitivity import scan
from prunescope.pruning.signals.calibration import Calibration, mapped
from prunescope.pruning.streams import Scores, Stream, stream_of, whole
from prunescope.pruning.targets import owner
from prunescope.registry import Entry
from prunescope.types import ConfigError, PruningError


@dataclass(frozen=True)
class Request:
    """How much is to go: a sparsity, a threshold or a table, one of them; and whether a layer may lose all."""

    sparsity: float | None
    threshold: float | None
    table: Mapping[str, float] | None
    allow_empty: bool = False


def kept_of(
    groups: Sequence[Group], scores: Scores, entry: Entry, options: Mapping[str, Any], request: Request, calibration: Calibration,
    rows: Mapping[str, Tensor],
) -> dict[str, Tensor]:  # fmt: skip
    """What is kept of each group (pieces,): above the threshold, or the highest scores of the allocation's counts.

    `rows` names, for some groups, the row of each piece; their pieces are then compared within rows.
    """
    if "latency" in entry.needs:
        refuse_fragments(groups)
    if any(g.pattern for g in groups):
        return {g.name: best_of_each(whole(scores[g.name]), *_pattern(g, request.sparsity)) for g in groups}
    if request.threshold is not None:
        kept = {name: whole(s) > request.threshold for name, s in scores.items()}
        _refuse_emptied(kept, scores, request)
        return kept
    given = facts(entry, groups, scores, request, calibration, options)
    least = int({**entry.options, **options}.get("least", 0))
    if entry.traits.get("pooled") and least == 0 and not rows:
        total = sum(s.numel() for s in scores.values())
        kept = highest({n: stream_of(s) for n, s in scores.items()}, round((request.sparsity or 0.0) * total))
        _refuse_emptied(kept, scores, request)
        return kept
    asked = entry.function(scores, request.sparsity, **given, **options)
    asked = _settled(asked, scores) if {"scan", "shapes"} & set(entry.needs) else asked
    counts = checked_counts(asked, scores, allow_empty=request.allow_empty)
    ranked = protected(scores, least)
    return {n: _highest(ranked[n], counts[n], rows.get(n)) for n in (g.name for g in groups)}


def _settled(counts: Mapping[str, int], scores: Scores) -> dict[str, int]:
    """`counts` of at least what is gone already (minus infinity), the surplus taken evenly off the other layers, so that the sum stays.

    For allocations that may ask less of a layer in a later round than an earlier round took.
    """
    gone = {n: int((whole(scores[n]) == -torch.inf).sum()) for n in counts}
    spare = [max(0, counts[n] - gone[n]) for n in counts]
    owed = sum(max(0, gone[n] - counts[n]) for n in counts)
    back = shares(min(owed, sum(spare)), spare)
    return {n: max(counts[n], gone[n]) - b for n, b in zip(counts, back, strict=True)}


def _pattern(group: Group, sparsity: float | None) -> tuple[int, int]:
    """The pattern of a group, refused where the request is for another sparsity than that of the pattern."""
    if group.pattern is None:
        raise PruningError(f"{group.name} has no pattern and other layers have one: give all groups of a granularity a pattern, or none")
    kept, of = group.pattern
    if sparsity is None or abs(sparsity - (1 - kept / of)) > 1e-9:
        asked = f"got {sparsity:g}" if sparsity is not None else "a threshold or table cannot change it"
        raise ConfigError(f"{group.name} keeps {kept} of every {of} pieces, which is sparsity {1 - kept / of:g}: {asked}")
    return kept, of


def _highest(scores: Tensor | Stream, removed: int, rows: Tensor | None) -> Tensor:
    return highest({"": stream_of(scores)}, removed)[""] if rows is None else ~smallest_within(whole(scores), rows, removed)


def _refuse_emptied(kept: Mapping[str, Tensor], scores: Scores, request: Request) -> None:
    counts = {name: k.numel() if not some(k) else 0 for name, k in kept.items()}
    checked_counts(counts, scores, allow_empty=request.allow_empty)


def facts(
    entry: Entry, groups: Sequence[Group], scores: Scores, request: Request, calibration: Calibration, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The facts that an allocation's `needs` names."""
    model = calibration.model
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
            found[need] = costs(groups, model, _inputs(calibration))
        elif need == "latency":
            found[need] = latency_costs(groups, model, options.get("times") or _measured(groups, calibration))
        elif need == "scan":
            found[need] = scan(groups, scores, calibration)
        else:
            raise PruningError(f"allocation {entry.name!r} needs {need!r}, which is none of table, shapes, sizes, costs, latency and scan")
    return found


def _inputs(calibration: Calibration) -> Any:
    """Inputs of one forward pass: the caller's example, else the first rows of the calibration set."""
    given = calibration.extra.get("example_inputs")
    if given is not None or not calibration.batches:
        return given
    return mapped(calibration.batches[0][0], lambda t: t[:2])


def _measured(groups: Sequence[Group], calibration: Calibration) -> Times:
    inputs = _inputs(calibration)
    if inputs is None:
        raise PruningError("a budget of latency needs inputs to time the layers on: pass example_inputs=, or the option times=")
    return layer_times(calibration.model, inputs, layers=weights_of(groups, calibration.model))


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
