"""The sparsities that pruning in rounds goes through."""

from __future__ import annotations

import math

from prunescope.config import PruneConfig
from prunescope.pruning.schedules import between
from prunescope.registry import schedules

DIGITS = 12  # so that 1 - 0.8^2 is the level 0.36 that somebody else asks for


def levels(settings: PruneConfig, target: float) -> list[float]:
    """The sparsity after each round, the last of them `target`: `rounds` of them by the schedule, or by `rate` as many as it takes.

    With a rate the levels of a lower target are the first ones of a higher target, so that trials can share rounds.

    >>> [round(level, 4) for level in levels(PruneConfig(when="rewind", rate=0.2), 0.5)]
    [0.2, 0.36, 0.488, 0.5]
    >>> [round(level, 4) for level in levels(PruneConfig(when="iterative", rounds=2), 0.75)]
    [0.5, 0.75]
    """
    if settings.rate is None:
        entry = schedules.get(settings.schedule or "geometric")
        return [between(entry, (number + 1) / settings.rounds, target) for number in range(settings.rounds)]
    if target >= 1:
        return [target]
    count = max(1, math.ceil(math.log(1 - target) / math.log(1 - settings.rate) - 1e-6))
    return [*(round(1 - (1 - settings.rate) ** (number + 1), DIGITS) for number in range(count - 1)), target]
