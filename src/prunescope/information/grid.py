"""Grids (cells, unitless) that turn activations into groups of samples: fixed, data and quantile ranges, or bins of a width."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from prunescope.information.partition import Groups, Ints, group_keys, row_keys
from prunescope.types import EstimateError

Range = tuple[float, float] | Literal["data", "quantile"]
Per = Literal["layer", "column"]

PACKED_BITS = 52.9  # bits of a key that float64 adds up without rounding


@dataclass(frozen=True)
class Grid:
    """Cells of a binned variable: the code of a number is floor((number - origin) * scale), clipped to [lowest, highest].

    `origin` and `scale` are one number, or one a column; `text` names the resolution for tables and reports. Clipping closes
    the top cell: a value at the upper end, or beyond it by rounding, opens no cell of its own.
    """

    origin: Tensor
    scale: Tensor
    lowest: int
    highest: int
    text: str
    edges: Tensor | None = None

    @property
    def bins(self) -> int:
        """Number of cells a column."""
        return self.highest - self.lowest + 1

    def codes(self, x: Tensor, out: Tensor) -> None:
        """Writes the code of every number of `x` into `out`, a float buffer of the same shape."""
        if self.edges is not None:
            out.copy_(_cells(x, self.edges))
            return
        if self.near_zero and x.dtype == out.dtype:
            torch.add(-self.origin * self.scale, x, alpha=float(self.scale), out=out)
        else:
            (torch.sub(x, self.origin, out=out) if x.dtype == out.dtype else out.copy_(x).sub_(self.origin)).mul_(self.scale)
        if not math.isfinite(float(out.sum())):
            _finite(x)
        out.floor_().clamp_(self.lowest, self.highest)

    @property
    def near_zero(self) -> bool:
        """Whether one pass, x * scale - origin * scale, loses nothing: the range lies around zero or near it."""
        return self.origin.ndim == 0 and abs(float(self.origin * self.scale)) <= 2 * self.bins


def _cells(x: Tensor, edges: Tensor) -> Tensor:
    _finite(x)
    if edges.ndim == 1:
        return torch.bucketize(x, edges, right=True)
    return torch.searchsorted(edges, x.T.contiguous(), right=True).T


def _finite(x: Tensor) -> None:
    bad = int((~torch.isfinite(x)).sum())
    if bad:
        raise EstimateError(f"activations: expected finite numbers, got {bad} NaN or infinite ones; drop or mend those samples")


def grid(
    x: Tensor, *, bins: int = 30, range: Range = "data", width: float | None = None, per: Per = "layer"
) -> Grid:
    """The grid (cells a column) for `x` of shape (n, d).

    range   (low, high): equal bins between them, all else clipped; "data": equal bins from minimum to maximum;
            "quantile": bins of equal population
    width   bins of this width from zero, floor(x / width), instead of `bins` and `range`
    per     "layer": one grid for all columns; "column": one for each

    >>> g = grid(torch.tensor([[-1.0], [0.0], [1.0]]), bins=30, range=(-1.0, 1.0)); out = torch.empty(3, 1)
    >>> g.codes(torch.tensor([[-1.0], [0.0], [1.0]]), out); out.flatten().tolist(), g.text
    ([0.0, 15.0, 29.0], '30 equal bins on [-1, 1]')
    """
    if width is not None:
        return _width_grid(x, width)
    if not isinstance(bins, int) or bins < 1:
        raise EstimateError(f"bins={bins!r}: expected a whole number of at least 1; choose about 10 to 100")
    if range == "quantile":
        return _quantile_grid(x, bins, per)
    if range == "data":
        return _data_grid(x, bins, per)
    if isinstance(range, str) or len(range) != 2 or not range[0] < range[1] or not all(map(math.isfinite, range)):
        raise EstimateError(f"range={range!r}: expected (low, high) with low < high, 'data' or 'quantile'")
    low, high = float(range[0]), float(range[1])
    return Grid(_like(x, low), _like(x, bins / (high - low)), 0, bins - 1, f"{bins} equal bins on [{low:g}, {high:g}]")


def _like(x: Tensor, value: float | Tensor) -> Tensor:
    dtype = x.dtype if x.dtype == torch.float64 else torch.float32
    return torch.as_tensor(value, dtype=dtype, device=x.device)


def _data_grid(x: Tensor, bins: int, per: Per) -> Grid:
    low, high = x.aminmax() if per == "layer" else (x.amin(0), x.amax(0))
    _finite(torch.stack([low, high]))
    span = high.double() - low.double()
    scale = torch.where(span > 0, bins / span, 0.0)
    where = f"[{float(low):.4g}, {float(high):.4g}], this layer's range" if per == "layer" else "each column's range"
    return Grid(_like(x, low), _like(x, scale), 0, bins - 1, f"{bins} equal bins on {where}")


def _width_grid(x: Tensor, width: float) -> Grid:
    if not (width > 0 and math.isfinite(width)):
        raise EstimateError(f"width={width!r}: expected a positive number, the width of a bin")
    low, high = x.aminmax()
    _finite(torch.stack([low, high]))
    ends = [math.floor(float(v) / width) for v in (low, high)]
    return Grid(_like(x, 0.0), _like(x, 1 / width), ends[0] - 1, ends[1] + 1, f"bins {width:g} wide from 0")


def _quantile_grid(x: Tensor, bins: int, per: Per) -> Grid:
    """Inner edges at the quantiles j / bins of the pooled numbers or of each column; equal numbers always share a cell."""
    columns = x.reshape(-1, 1) if per == "layer" else x
    _finite(columns)
    ranked = np.sort(columns.detach().cpu().numpy(), axis=0)
    places = (np.arange(1, bins) * len(ranked)) // bins
    edges = torch.from_numpy(ranked[places].T.copy()).to(x.device)
    text = f"{bins} bins of equal population " + ("over the layer" if per == "layer" else "in each column")
    return Grid(_like(x, 0.0), _like(x, 1.0), 0, bins - 1, text, edges[0] if per == "layer" else edges)


def cell_keys(x: Tensor, **options: Any) -> tuple[list[Ints], list[Grid]]:
    """Keys (n, m) of the samples of each batch of `x` (..., n, d), equal where they fall into the same cell in every column, and each grid.

    `options` are those of `grid`. A fixed range is one grid for all batches, whose narrow rows are packed in one go.
    """
    batches = x.reshape(-1, *x.shape[-2:])
    if options.get("width") is None and not isinstance(options.get("range", "data"), str):
        made = [grid(batches[0], **options)] * len(batches)
        if batches.shape[-1] * math.log2(made[0].bins) < PACKED_BITS:
            return list(_packed(batches, made[0])), made
    else:
        made = [grid(one, **options) for one in batches]
    return [row_keys(one, g.codes, g.lowest, g.highest) for one, g in zip(batches, made, strict=True)], made


def _packed(x: Tensor, g: Grid) -> Ints:
    """The keys of `row_keys`, (B, n, 1), a column of all batches at a time: activations of a stack lie column by column in memory."""
    keys = torch.zeros(x.shape[:-1], dtype=torch.float64, device=x.device)
    codes = torch.empty(x.shape[:-1], dtype=torch.float64 if g.bins > 1024 else torch.float32, device=x.device)
    for column in reversed(x.unbind(-1)):
        g.codes(column, codes)
        keys.mul_(g.bins).add_(codes)
    found: Ints = keys.to(torch.int64).unsqueeze(-1).cpu().numpy()
    return found


def cells(x: Tensor, **options: Any) -> tuple[Groups, list[Grid]]:
    """Groups of the samples of `x` (..., n, d) that fall into the same cell in every column, and each batch's grid."""
    keys, made = cell_keys(x, **options)
    return group_keys(keys), made
