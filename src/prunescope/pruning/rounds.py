"""Rounds of scoring and pruning: signals, scores, allocation, selection, the kept weights' adaptation, masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prunescope.pruning.allocation import checked_counts
from prunescope.pruning.groups import Group, masks_of
from prunescope.pruning.masks import Masks
from prunescope.pruning.schedules import geometric
from prunescope.pruning.scoring import check_level, scores_of
from prunescope.pruning.selection import removed
from prunescope.pruning.signals import Calibration, compute
from prunescope.pruning.solvers import adapted
from prunescope.pruning.targets import Target, biases
from prunescope.registry import Entry
from prunescope.types import ConfigError

Level = tuple[float | None, float | None, Mapping[str, float] | None]  # sparsity, threshold, table


@dataclass(frozen=True)
class Work:
    """All that one round of scoring and pruning has in common with the next."""

    entries: tuple[Entry, Entry, Entry]
    options: Sequence[Mapping[str, Any]]
    targets: Mapping[str, Target]
    groups: Sequence[Group]
    calibration: Calibration
    norm: str
    bias_rule: str
    allow_empty: bool

    def rounds(self, masks: Masks | None, plan: Sequence[Level]) -> Masks:
        """The masks after one round for each level of `plan`. When a round is refused, the model is left as it was before the first."""
        model = self.calibration.model
        before = {n: p.detach().clone() for n, p in model.named_parameters()} if len(plan) > 1 else {}
        try:
            for level in plan:
                masks = self.once(masks, *level)
        except BaseException:
            for name, value in before.items():
                model.get_parameter(name).copy_(value)
            raise
        assert masks is not None
        return masks

    def once(self, masks: Masks | None, sparsity: float | None, threshold: float | None, table: Mapping[str, float] | None) -> Masks:
        """Score, allocate, select and apply; `masks` are earlier ones, which stay in force."""
        criterion, model = self.entries[0], self.calibration.model
        check_level(self.groups, criterion)
        available = compute(criterion.needs, self.calibration, self.options[0])
        scores = scores_of(self.groups, self.targets, criterion, available, self.options[0], norm=self.norm, masks=masks)
        kept = self.kept(scores, sparsity, threshold, table)
        found = masks_of(self.groups, kept, model, companions=self.bias_rule == "with-unit")
        found, weights = adapted(criterion, self.options[0], self.groups, self.targets, available, found, masks)
        dropped = biases(model) if self.bias_rule == "drop" else {}
        new = Masks(found | {n: torch.zeros_like(p, dtype=torch.bool) for n, p in dropped.items()}, model)
        for name, value in weights.items():
            self.targets[name].parameter.copy_(value)
        return ((masks & new).bind(model) if masks else new).apply()

    def kept(
        self, scores: Mapping[str, Tensor], sparsity: float | None, threshold: float | None, table: Mapping[str, float] | None
    ) -> dict[str, Tensor]:
        """What is kept of each group (pieces,): by threshold, by its pattern, or the highest scores of the allocation's counts."""
        if threshold is not None:
            kept = {name: s > threshold for name, s in scores.items()}
            checked_counts({name: int((~k).sum()) for name, k in kept.items()}, scores, allow_empty=self.allow_empty)
            return kept
        allocation = self.entries[2]
        needed = {"table": table} if "table" in allocation.needs else {}
        counts = checked_counts(
            allocation.function(scores, sparsity, **needed, **self.options[2]), scores, allow_empty=self.allow_empty
        )
        return {
            g.name: ~removed(g, scores[g.name], counts[g.name], self.entries[0], self.options[0], self.targets) for g in self.groups
        }


def levels(
    entry: Entry, options: Mapping[str, Any], sparsity: float | None, threshold: float | None, table: Mapping[str, float] | None
) -> Iterator[Level]:
    """(sparsity, threshold, table) of each round; a threshold is one round."""
    rounds = {**entry.options, **options}.get("rounds", entry.traits.get("rounds", 1)) if threshold is None else 1
    if rounds < 1:
        raise ConfigError(f"rounds = {rounds}: expected at least 1")
    for k in range(1, rounds + 1):
        share = k / rounds
        level = None if sparsity is None else geometric(share, sparsity)
        yield level, threshold, None if table is None else {n: geometric(share, s) for n, s in table.items()}
