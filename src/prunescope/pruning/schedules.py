"""Schedules: the sparsity at a point between the start (0) and the end (1) of pruning. Pure functions of position and target.

Each rises from nothing to exactly `target`; `between` begins with a network that is sparse already.
"""

from __future__ import annotations

import math

from prunescope.registry import Entry, schedules
from prunescope.types import ConfigError


@schedules("one-shot", source="everything at once")
def one_shot(position: float, target: float) -> float:
    """`target` from the first moment on, as the fraction removed."""
    return target


@schedules("geometric", source="Frankle & Carbin 2019, arXiv:1803.03635: the same fraction of what is left in every round")
def geometric(position: float, target: float) -> float:
    """1 - (1 - target)^position, the fraction removed.

    >>> round(geometric(0.5, 0.75), 3), geometric(1.0, 0.75)
    (0.5, 0.75)
    """
    if target == 1:
        return target if position >= 1 else position
    return target if position == 1 else 1 - (1 - target) ** position


@schedules("cubic", source="Zhu & Gupta 2017, arXiv:1710.01878, eq. 1")
def cubic(position: float, target: float) -> float:
    """target * (1 - (1 - position)^3), the fraction removed: fast at first, slow towards the end.

    >>> round(cubic(0.5, 0.8), 12), cubic(1.0, 0.8)
    (0.7, 0.8)
    """
    return target if position == 1 else target * (1 - (1 - position) ** 3)


@schedules("linear", source="Zhu & Gupta 2017, arXiv:1710.01878, eq. 1 with exponent 1")
def linear(position: float, target: float) -> float:
    """target * position, the fraction removed: the same amount at every update."""
    return target * position


@schedules("cosine", source="half a cosine wave, as Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, applied to what is left")
def cosine(position: float, target: float) -> float:
    """target * (1 - cos(pi * position)) / 2, the fraction removed: slow at both ends.

    >>> round(cosine(0.5, 0.8), 12), cosine(1.0, 0.8)
    (0.4, 0.8)
    """
    return target if position == 1 else target * (1 - math.cos(math.pi * position)) / 2


@schedules("one-cycle", source="Hubens et al. 2021, arXiv:2107.02086: a logistic curve, alpha = 14, beta = 5")
def one_cycle(position: float, target: float, *, alpha: float = 14.0, beta: float = 5.0) -> float:
    """target * (1 + exp(beta - alpha)) / (1 + exp(beta - alpha * position)), the fraction removed: most of it at position beta / alpha."""
    return target if position == 1 else target * (1 + math.exp(beta - alpha)) / (1 + math.exp(beta - alpha * position))


def between(entry: Entry, position: float, target: float, start: float = 0.0) -> float:
    """The sparsity at `position` on the way from `start` to `target`: the schedule, applied to what is left at the start.

    For the cubic schedule this is eq. 1 of Zhu & Gupta 2017 with s_i = start. ConfigError where a schedule of the user's own gives no
    number from 0 to 1.

    >>> round(between(schedules.get("cubic"), 0.5, 0.9, start=0.5), 12)
    0.85
    """
    share = entry.function(position, (target - start) / (1 - start) if start < 1 else 0.0)
    if not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ConfigError(f"schedule {entry.name!r} gave {share!r} at position {position:g}: expected a fraction removed, from 0 to 1")
    return target if position == 1 else start + (1 - start) * share
