"""Numbers as the page holds them: five significant digits, what is not finite as null."""

from __future__ import annotations

import math
from collections.abc import Iterable


def number(value: float) -> float | int | None:
    """A number with five significant digits for JSON; None where it is not finite.

    >>> number(0.123456789), number(3.0), number(float("nan"))
    (0.12346, 3, None)
    """
    if not math.isfinite(value):
        return None
    if value == int(value) and abs(value) < 1e15:
        return int(value)
    return float(f"{value:.5g}")


def numbers(values: Iterable[float]) -> list[float | int | None]:
    """Each of `values` as `number` gives it."""
    return [number(v) for v in values]
