"""Schedules: the sparsity at a point between the start (0) and the end (1) of pruning. Pure functions of position and target."""

from __future__ import annotations

from prunescope.registry import schedules


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
