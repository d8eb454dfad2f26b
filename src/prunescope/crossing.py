"""Where one time falls below another for good: what back-ends and reports both ask of curves against sparsity."""

from __future__ import annotations

import math
from collections.abc import Sequence


def crossing(levels: Sequence[float], ratios: Sequence[float]) -> float | None:
    """The sparsity from which on `ratios` (time sparse / time dense, one a level, levels rising) stay below 1; None if the last does not.

    Between levels the ratio is taken to be linear in the sparsity, as the time of a kernel that skips zeros is. It is the lowest level
    where all ratios are below 1. A ratio may be infinite.

    >>> round(crossing([0.5, 0.8, 0.9], [2.6, 1.1, 0.6]), 4)
    0.82
    """
    slow = [i for i, r in enumerate(ratios) if not r < 1]
    if not slow:
        return levels[0]
    i = slow[-1]
    if i == len(levels) - 1:
        return None
    share = (ratios[i] - 1) / (ratios[i] - ratios[i + 1]) if math.isfinite(ratios[i]) else 1.0
    return levels[i] + share * (levels[i + 1] - levels[i])
