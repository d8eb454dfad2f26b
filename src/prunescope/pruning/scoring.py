"""Scores of pieces: a criterion's scores of every weight (or unit) of a target, combined over all that a piece covers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from prunescope.pruning.groups import Group, Slot
from prunescope.pruning.layouts import Parts, Spans
from prunescope.pruning.masks import Masks
from prunescope.pruning.streams import Elementwise, Stream
from prunescope.pruning.targets import Target
from prunescope.registry import Entry, signals
from prunescope.types import ConfigError, PruningError

NORMS = ("l1", "l2", "linf")
SUMS: dict[str, Callable[[Tensor], Tensor]] = {"sum": torch.abs, "squared-sum": torch.square, "signed-sum": lambda v: v}


def scores_of(
    groups: Sequence[Group],
    targets: Mapping[str, Target],
    entry: Entry,
    available: Mapping[str, Mapping[str, Any]],
    options: Mapping[str, Any],
    *,
    norm: str,
    masks: Masks | None = None,
) -> Mapping[str, Tensor | Stream]:
    """The score (pieces,) of every group, in the criterion's unit; pieces that earlier `masks` removed score minus infinity.

    The criterion is asked once for each weight. PruningError where it gives another shape than the weight's or the number of units.
    """
    if norm not in NORMS:
        raise ConfigError(f"norm {norm!r}: expected {', '.join(NORMS)}")
    if entry.traits.get("elementwise") and all(len(g.scored) == 1 and g.scored[0].layout == Spans(()) for g in groups):
        return {g.name: _streamed(targets[g.name], entry, available, options, masks) for g in groups}
    raw = {s.parameter: raw_scores(targets[s.parameter], entry, available, options) for g in groups for s in g.scored}
    apart = {g.name: g.members or (g,) for g in groups}
    return {
        name: torch.cat([_without_removed(_group_scores(g, raw, targets, entry, norm), g, masks) for g in members])
        for name, members in apart.items()
    }


def _streamed(
    target: Target, entry: Entry, available: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any], masks: Masks | None
) -> Elementwise:
    """Scores of single weights that depend on nothing but their own entries: computed when they are read."""
    needs = {n: available[n][target.name] for n in entry.needs}
    kept = masks[target.name] if masks is not None and target.name in masks else None
    own = {n: v for n, v in options.items() if n in entry.options}
    combined = SUMS.get(str(entry.traits.get("units", "norm")))  # a piece of one weight: its "norm" is its score

    def criterion(weight: Tensor, **signals: Any) -> Tensor:
        found: Tensor = entry.function(weight, **signals)
        return found if combined is None else combined(found)

    return Elementwise(criterion, target.parameter.detach(), needs, own, kept, target.name)


def signals_of(entry: Entry) -> list[Entry]:
    """The signals that a criterion needs."""
    return [signals.get(name) for name in entry.needs]


def criterion_options(entry: Entry) -> dict[str, Any]:
    """The options of a criterion and of the signals that it needs, with their defaults."""
    return {**{n: v for e in signals_of(entry) for n, v in e.options.items()}, **entry.options}


def check_level(groups: Sequence[Group], entry: Entry) -> None:
    """ConfigError where a criterion of units meets pieces that are none; asked before any signal is computed."""
    for group in groups:
        if entry.traits.get("level") == "unit" and not group.unit:
            raise ConfigError(
                f"criterion {entry.name!r} scores whole units, and {group.name} is to be pruned in smaller or other pieces: "
                "choose a granularity of units (neuron, filter, channel)"
            )


def raw_scores(target: Target, entry: Entry, available: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any]) -> Tensor:
    """What the criterion says of one target: scores of the weight's shape or, for a unit-wise criterion, (units,)."""
    weight = target.parameter.detach()
    needs = {n: available[n][target.name] for n in entry.needs}
    raw = entry.function(weight, **needs, **{n: v for n, v in options.items() if n in entry.options})
    wanted = (weight.shape[target.out_dim],) if entry.traits.get("level") == "unit" else tuple(weight.shape)
    if not isinstance(raw, Tensor) or tuple(raw.shape) != wanted:
        raise PruningError(
            f"criterion {entry.name!r} gave {tuple(raw.shape) if isinstance(raw, Tensor) else type(raw).__name__} "
            f"for {target.name}: expected scores of shape {wanted}"
        )
    if bool(raw.isnan().any()):
        raise PruningError(
            f"criterion {entry.name!r}: {int(raw.isnan().sum())} of {raw.numel()} scores of {target.name} are NaN: "
            "check the weights, and the gradients or data that the scores come from"
        )
    return raw


def _group_scores(group: Group, raw: Mapping[str, Tensor], targets: Mapping[str, Target], entry: Entry, norm: str) -> Tensor:
    how = entry.traits.get("units", "norm")
    if entry.traits.get("level") == "unit":
        return torch.stack([_unit_scores(raw[s.parameter], s, targets[s.parameter]) for s in group.scored]).sum(0)
    if how == "draw":
        first = group.scored[0]
        return first.layout.fold(raw[first.parameter])[:, 0]
    return _combined([s.layout.fold(raw[s.parameter]) for s in group.scored], how, norm)


def _combined(parts: Sequence[Tensor], how: str, norm: str) -> Tensor:
    """(pieces,) from the folded scores (pieces, members) of each slot: "norm" of all members, or their sum, its size or its square."""
    if how in SUMS:
        alone = len(parts) == 1 and parts[0].shape[1] == 1
        return SUMS[how](parts[0][:, 0] if alone else torch.stack([p.sum(1) for p in parts]).sum(0))
    if len(parts) == 1 and parts[0].shape[1] == 1:
        return parts[0][:, 0]
    if norm == "l1":
        return torch.stack([p.abs().sum(1) for p in parts]).sum(0)
    if norm == "linf":
        return torch.stack([p.abs().amax(1) for p in parts]).amax(0)
    return torch.stack([p.square().sum(1) for p in parts]).sum(0).sqrt()


def _unit_scores(scores: Tensor, slot: Slot, target: Target) -> Tensor:
    """Scores (units,) of a target's units summed over the units of each piece."""
    if isinstance(slot.layout, Parts) and slot.layout.dim == target.out_dim:
        return scores[slot.layout.index.to(scores.device)].sum(1)
    return scores


def _without_removed(scores: Tensor, group: Group, masks: Masks | None) -> Tensor:
    """Pieces of which nothing is left in any scored slot go first."""
    known = [s for s in group.scored if masks is not None and s.parameter in masks]
    if not known or masks is None:
        return scores
    left = torch.stack([s.layout.fold(masks[s.parameter]).any(1) for s in known]).any(0)
    return scores.masked_fill(~left.to(scores.device), -torch.inf)
