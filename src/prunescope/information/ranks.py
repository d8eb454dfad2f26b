"""Columns as normal scores of their ranks (standard deviations): what makes an estimate blind to the marginals.

A column is ordered by sorting whole numbers that hold its value in their upper bits and the sample's number in the lower ones: no
second array has to follow the sort, and vector instructions sort whole numbers. Float32 values fit in full. Of a float64 value the
last bits give way to the number; where two values are then equal, their order is settled by the values themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

TOGETHER = 1 << 20  # numbers whose order is held at a time, so that memory does not follow the number of columns


def normal_scores(x: Tensor) -> Tensor:
    """Columns of x (..., n, d) mapped to normal quantiles (standard deviations) of rank / (n + 1), float64; ties share their mean.

    >>> [round(v, 9) for v in normal_scores(torch.tensor([[5.0], [1.0], [3.0]])).flatten().tolist()]
    [0.67448975, -0.67448975, 0.0]
    """
    return torch.from_numpy(score_rows([x]).swapaxes(-1, -2))


def score_rows(parts: Sequence[Tensor]) -> Floats:
    """Normal scores (..., columns of all parts, n), no unit, of variables (..., n, d) of the same samples: a row for each column."""
    batch, n = parts[0].shape[:-2], parts[0].shape[-2]
    table = ndtri(np.arange(1, n + 1) / (n + 1))
    out = np.empty((int(np.prod(batch)), sum(p.shape[-1] for p in parts), n))
    start = 0
    for part in parts:
        values, stop = _numbers(part), start + part.shape[-1]
        for one, rows in zip(values.reshape(-1, *values.shape[-2:]), out[:, start:stop], strict=True):
            _score(one, rows, table)
        start = stop
    return out.reshape(*batch, *out.shape[1:])


def _numbers(x: Tensor) -> NDArray[Any]:
    """float32 or float64 numbers, in which minus zero has become zero (they are equal, but their bits are not)."""
    x = x.detach().cpu()
    return np.asarray((x if x.dtype in (torch.float32, torch.float64) else x.double()).numpy())


def _score(values: NDArray[Any], out: Floats, table: Floats) -> None:
    """Scores of the columns of `values` (n, d) into the rows of `out` (d, n), some columns at a time."""
    n, d = values.shape
    step = max(1, TOGETHER // n)
    for start in range(0, d, step):
        columns = np.ascontiguousarray(values[:, start : start + step].T)
        order, alike = np.empty(columns.shape, dtype=np.int64), np.zeros(columns.shape, dtype=bool)
        for column, places, same, scores in zip(columns + 0, order, alike, out[start : start + step], strict=True):
            _sort(column, places, same)  # of a sum, since -0.0 + 0 is 0.0
            scores[places] = table
        if alike.any():
            _share(out[start : start + step], order, alike, table)


def _sort(column: NDArray[Any], places: Integers, same: NDArray[np.bool_]) -> None:
    """Sample numbers (n,) in rising order of the column's values into `places`; `same` where a value equals the one before it."""
    n, wide = len(column), column.dtype == np.float64
    low = max(1, (n - 1).bit_length()) if wide else 32
    bits: NDArray[Any] = column.view(np.int64 if wide else np.int32)
    top = np.iinfo(np.int64 if wide else np.int32)
    rising = (bits >> (top.bits - 1)) & top.max ^ bits  # of negative values the larger bits are the smaller
    if wide:
        np.bitwise_and(rising, -(1 << low), out=places)
    else:
        np.left_shift(rising, low, out=places, dtype=np.int64)
    places |= np.arange(n)
    places.sort()
    np.less((places[1:] ^ places[:-1]).view(np.uint64), 1 << low, out=same[1:])  # where signs differ it is large
    places &= (1 << low) - 1
    if wide and same.any():
        places[:] = places[np.argsort(column[places], kind="stable")]  # almost sorted: one pass of this sort
        ranked = column[places]
        np.equal(ranked[1:], ranked[:-1], out=same[1:])


def _share(scores: Floats, order: Integers, alike: NDArray[np.bool_], table: Floats) -> None:
    """Gives the samples of each run of equal values the mean of the run's scores; `order`, `alike` as `_sort` leaves them."""
    n = order.shape[1]
    later = np.flatnonzero(alike)
    first = np.flatnonzero(np.diff(later, prepend=-1) > 1)  # a row begins with False: no run crosses from one to the next
    sizes = np.diff(first, append=len(later)) + 1
    ends = np.cumsum(sizes)
    places = np.arange(ends[-1]) + np.repeat(later[first] - 1 - (ends - sizes), sizes)
    means = np.add.reduceat(table[places % n], ends - sizes) / sizes
    scores[places // n, order.reshape(-1)[places]] = np.repeat(means, sizes)
