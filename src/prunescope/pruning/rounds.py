"""Rounds of scoring and pruning: signals, scores, allocation, selection, the kept weights' adaptation, masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from prunescope.pruning.budget import Request, kept_of
from prunescope.pruning.groups import Group, masks_of
from prunescope.pruning.masks import Masks
from prunescope.pruning.schedules import geometric
from prunescope.pruning.scoring import check_level, scores_of
from prunescope.pruning.selection import rows_of
from prunescope.pruning.signals import Calibration, compute
from prunescope.pruning.solvers import adapted
from prunescope.pruning.targets import Target, biases
from prunescope.registry import Entry
from prunescope.types import ConfigError


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

    def rounds(self, masks: Masks | None, plan: Sequence[Request]) -> Masks:
        """The masks after one round for each level of `plan`. When a round is refused, the model is left as it was before the first."""
        model = self.calibration.model
        if any(g.pattern for g in self.groups):
            plan = plan[-1:]  # a pattern has no half-way
        before = {n: p.detach().clone() for n, p in model.named_parameters()} if len(plan) > 1 else {}
        try:
            for request in plan:
                masks = self.once(masks, request)
        except BaseException:
            for name, value in before.items():
                model.get_parameter(name).copy_(value)
            raise
        assert masks is not None
        return masks

    def once(self, masks: Masks | None, request: Request) -> Masks:
        """Score, allocate, select and apply; `masks` are earlier ones, which stay in force."""
        criterion, model = self.entries[0], self.calibration.model
        check_level(self.groups, criterion)
        available = compute(criterion.needs, self.calibration, self.options[0])
        scores = scores_of(self.groups, self.targets, criterion, available, self.options[0], norm=self.norm, masks=masks)
        kept = kept_of(self.groups, scores, self.entries[2], self.options[2], request, self.calibration, self.rows())
        found = masks_of(self.groups, kept, model, companions=self.bias_rule == "with-unit")
        found, weights = adapted(criterion, self.options[0], self.groups, self.targets, available, found, masks)
        dropped = biases(model) if self.bias_rule == "drop" else {}
        new = Masks(found | {n: torch.zeros_like(p, dtype=torch.bool) for n, p in dropped.items()}, model)
        for name, value in weights.items():
            self.targets[name].parameter.copy_(value)
        return ((masks & new).bind(model) if masks else new).apply()

    def rows(self) -> dict[str, Tensor]:
        """The output rows (pieces,) of each group within which the criterion compares; none for one that compares all pieces."""
        criterion = self.entries[0]
        if {**criterion.options, **self.options[0]}.get("compare", criterion.traits.get("compare")) != "row":
            return {}
        found = {g.name: rows_of(g, self.targets) for g in self.groups if len(g.scored) == 1}
        return {name: rows for name, rows in found.items() if rows is not None}


def levels(entry: Entry, options: Mapping[str, Any], request: Request) -> Iterator[Request]:
    """The request of each round; a threshold is one round."""
    rounds = {**entry.options, **options}.get("rounds", entry.traits.get("rounds", 1)) if request.threshold is None else 1
    if rounds < 1:
        raise ConfigError(f"rounds = {rounds}: expected at least 1")
    for k in range(1, rounds + 1):
        share, table = k / rounds, request.table
        level = None if request.sparsity is None else geometric(share, request.sparsity)
        yield replace(request, sparsity=level, table=None if table is None else {n: geometric(share, s) for n, s in table.items()})
