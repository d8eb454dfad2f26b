"""Numbers as the page holds them (five significant digits, what is not finite as null) and sizes as people read them."""

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


def size(count: float) -> str:
    """Bytes in a readable decimal unit.

    >>> size(7880), size(2.4e6)
    ('7.88 kB', '2.4 MB')
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} bytes"
