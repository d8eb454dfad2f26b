"""Drawing parts of the rows: shuffled, seeded, and stratified with exact counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prunescope.types import DataError

Rows = NDArray[np.int64]


def draw(labels: Rows, size: int, generator: np.random.Generator, *, stratify: bool) -> tuple[Rows, Rows]:
    """`size` row numbers drawn without replacement and the rows left, both shuffled.

    Stratified: each class gives its share of `size`, rounded so that the counts add up exactly.

    >>> some, rest = draw(np.repeat([0, 1], [6, 2]), 4, np.random.default_rng(0), stratify=True)
    >>> sorted(int(r) >= 6 for r in some), len(rest)
    ([False, False, False, True], 4)
    """
    order = generator.permutation(len(labels))
    if not stratify:
        return order[:size], order[size:]
    quota = shares(np.bincount(labels), size)
    rank = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = labels[order] == label
        rank[members] = np.arange(members.sum())
    chosen = rank < quota[labels[order]]
    return order[chosen], order[~chosen]


def shares(counts: Rows, size: int) -> Rows:
    """How many of `size` rows each class gives, in proportion to `counts`; the largest remainders are rounded up.

    >>> shares(np.array([5, 3, 2]), 5).tolist()
    [3, 1, 1]
    """
    exact = counts * (size / counts.sum())
    quota: Rows = np.floor(exact + 1e-9).astype(np.int64)
    remainders = np.round(exact - quota, 9)  # so that equal shares tie and the lower class number wins
    quota[np.argsort(-remainders, kind="stable")[: size - quota.sum()]] += 1
    return quota


def size_of(name: str, part: str, fraction: float, rows: int) -> int:
    """round(fraction * rows), or a DataError where that leaves the part or the rest empty."""
    size = round(fraction * rows)
    if size == 0 or size == rows:
        empty = part if size == 0 else "training"
        raise DataError(
            f"{name}: the {empty} part is empty: {part} = {fraction:g} of {rows:,} rows is {size:,}: "
            f"take more rows or another fraction{', or validation = 0 for none' if part == 'validation' else ''}"
        )
    return size
