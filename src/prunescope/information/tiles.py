"""All distances of some samples to all others, at a precision that costs little, and where it settles a comparison and where not.

A tile is formed, searched and compared in buffers that are made once: memory does not grow with the number of pairs, and what is
written is read again from the cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Metric = Literal["max", "euclidean"]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

STRIDE = 32  # members of a group whose smallest entry stands for it in the search
CACHED = 160_000  # whole numbers that a pass over a column keeps in a cache of 512 KB, twice


class Tiles(Protocol):
    """Distances of some rows to all samples in one block, in units of its own that rise with the distance."""

    kind: Any
    weight: float  # how much larger than usual its tiles should be

    def tile(self, rows: Integers, out: NDArray[Any]) -> None:
        """Writes approximate distances (len(rows), n)."""

    def bounds(self, rows: Integers, limit: Floats) -> tuple[NDArray[Any], NDArray[Any]]:
        """Two values for each row: at most the first is surely within `limit`, above the second surely not."""


class MatrixProducts:
    """Squared Euclidean distances as one float32 matrix product; columns (n, d) are centred and scaled to about 1."""

    kind: Any = np.float32

    def __init__(self, columns: Floats, scale: float) -> None:
        scaled = columns / scale
        squares = (scaled**2).sum(axis=1, keepdims=True)
        ones = np.ones_like(squares)
        self.left = torch.from_numpy(np.concatenate([-2 * scaled, squares, ones], axis=1).astype(np.float32))
        self.right = torch.from_numpy(np.concatenate([scaled, ones, squares], axis=1).astype(np.float32).T.copy())
        self.norm, self.scale = np.sqrt(squares[:, 0]), scale
        # rounding of the inputs and of a sum of d + 2 products, whose errors add up like a random walk (8 deviations allowed)
        self.unit = 2.0**-24 * (8 + 8 * math.sqrt(columns.shape[1]))
        self.weight = min(4.0, max(1.0, columns.shape[1] / 16))  # every product packs all samples anew: few high tiles for wide columns

    def tile(self, rows: Integers, out: NDArray[Any]) -> None:
        torch.mm(self.left[torch.from_numpy(rows)], self.right, out=torch.from_numpy(out))

    def bounds(self, rows: Integers, limit: Floats) -> tuple[NDArray[Any], NDArray[Any]]:
        reach, norm = limit / self.scale, self.norm[rows]
        slack = self.unit * (norm**2 + (norm + np.maximum(reach, 0)) ** 2)
        square = np.where(reach < 0, -1e30, reach**2)
        return (square - slack).astype(np.float32), (square + slack).astype(np.float32)


class WholeNumbers:
    """Maximum-norm distances of columns rounded to 15-bit whole numbers: twice as many fit a vector register as float32."""

    kind: Any = np.int16
    weight = 4.0

    def __init__(self, columns: Floats, scale: float) -> None:
        self.columns, self.scale = np.ascontiguousarray(np.rint(columns.T / scale).astype(np.int16)), scale
        self.together = max(1, CACHED // len(columns))
        self.gap = np.empty((self.together, len(columns)), dtype=np.int16)

    @staticmethod
    def unit(blocks: Sequence[Floats]) -> float:
        """The step (same for all blocks) at which the widest column still fits."""
        return max(float(np.abs(block).max()) for block in blocks) / 16_000 or 1.0

    def tile(self, rows: Integers, out: NDArray[Any]) -> None:
        for start in range(0, len(rows), self.together):
            piece, own = out[start : start + self.together], self.columns[:, rows[start : start + self.together], None]
            gap = self.gap[: len(piece)]
            np.subtract(own[0], self.columns[0], out=piece)
            np.absolute(piece, out=piece)
            for j in range(1, len(self.columns)):
                np.subtract(own[j], self.columns[j], out=gap)
                np.absolute(gap, out=gap)
                np.maximum(piece, gap, out=piece)

    def bounds(self, rows: Integers, limit: Floats) -> tuple[NDArray[Any], NDArray[Any]]:
        steps = np.clip(limit / self.scale, -10, 32_000)
        return (np.floor(steps) - 2).astype(np.int16), (np.ceil(steps) + 1).astype(np.int16)


class Exact:
    """Float64 distances, for data on which the fast tiles settle too little (heavy tails, blocks of very different scale)."""

    kind: Any = np.float64
    weight = 1.0

    def __init__(self, columns: Floats, metric: Metric) -> None:
        self.columns, self.metric = columns, {"max": "chebyshev", "euclidean": "euclidean"}[metric]

    def tile(self, rows: Integers, out: NDArray[Any]) -> None:
        cdist(self.columns[rows], self.columns, self.metric, out=out)

    def bounds(self, rows: Integers, limit: Floats) -> tuple[NDArray[Any], NDArray[Any]]:
        return limit, limit


class Work:
    """Buffers for some rows' distances to all n samples: one for each block of columns, and one for their product.

    The product's rows are padded to groups of `STRIDE` members that lie `groups` apart, the truth values' to whole words of 8.
    """

    def __init__(self, tiles: Sequence[Tiles], height: int, n: int) -> None:
        self.tiles, self.n, self.exact = tiles, n, isinstance(tiles[0], Exact)
        kind = np.dtype(tiles[0].kind)
        self.largest: float = np.iinfo(kind).max if kind.kind == "i" else math.inf
        self.groups = -(-n // STRIDE)
        self._near = [np.empty((height, n), dtype=kind) for _ in tiles]
        self._joint = np.full((height, self.groups * STRIDE), self.largest, dtype=kind)
        self._inner, self._outer, self._spare = (np.zeros((height, -(-n // 8) * 8), dtype=bool) for _ in range(3))

    def measure(self, rows: Integers) -> None:
        """Forms the distances of `rows` in every block and in the product, in which no sample is its own neighbour."""
        self.near, self.height = [near[: len(rows)] for near in self._near], len(rows)
        for tile, near in zip(self.tiles, self.near, strict=True):
            tile.tile(rows, near)
        self.joint = self._joint[: len(rows), : self.n]
        np.maximum(self.near[0], self.near[-1], out=self.joint)
        for near in self.near[1:-1]:
            np.maximum(self.joint, near, out=self.joint)
        self.joint[np.arange(len(rows)), rows] = self.largest

    def exclude(self, pairs: NDArray[np.bool_]) -> None:
        """Takes pairs (rows, n) out of the search for neighbours."""
        self.joint[pairs] = self.largest

    def smallest(self, number: int) -> tuple[Integers, NDArray[Any]]:
        """Columns (rows, number) of the smallest entries of the product, in no order, and the largest of those entries in each row.

        They lie in the groups whose own smallest entries are the smallest, of which there need be no more than entries: one quick
        pass over all, and a selection from a few hundred.
        """
        joint = torch.from_numpy(self._joint[: self.height])
        if self.groups <= 2 * number:
            values, places = torch.topk(joint, number, dim=1, largest=False, sorted=False)
        else:
            grouped = joint.view(self.height, STRIDE, self.groups)
            chosen = torch.topk(grouped.amin(1), number, dim=1, largest=False, sorted=False)[1]
            members = grouped.gather(2, chosen[:, None].expand(-1, STRIDE, -1)).flatten(1)
            values, within = torch.topk(members, number, dim=1, largest=False, sorted=False)
            member, group = within // number, within % number
            places = member * self.groups + chosen.gather(1, group)
        return places.numpy(), values.amax(dim=1).numpy()

    def within(self, blocks: Sequence[int], limits: Sequence[NDArray[Any]]) -> NDArray[np.bool_]:
        """Which of the n samples (rows, n) lie within the rows' limits in all `blocks`."""
        return self._compare(blocks, limits, self._inner)

    def between(self, blocks: Sequence[int], limits: Sequence[NDArray[Any]]) -> tuple[Integers, Integers]:
        """Rows and columns of the pairs that lie within these limits and not within those that `within` was last asked for."""
        self._compare(blocks, limits, self._outer)
        band = np.logical_xor(self._inner[: self.height], self._outer[: self.height], out=self._outer[: self.height])
        words = np.flatnonzero(band.view(np.uint64) != 0)  # few: eight truth values are looked at together
        place, byte = np.nonzero(band.reshape(-1, 8)[words])
        i, j = np.divmod(words[place] * 8 + byte, band.shape[1])
        return i, j

    def _compare(self, blocks: Sequence[int], limits: Sequence[NDArray[Any]], into: NDArray[np.bool_]) -> NDArray[np.bool_]:
        result = into[: self.height, : self.n]
        np.less_equal(self.near[blocks[0]], limits[0][:, None], out=result)
        for b, limit in zip(blocks[1:], limits[1:], strict=True):
            also = np.less_equal(self.near[b], limit[:, None], out=self._spare[: self.height, : self.n])
            np.logical_and(result, also, out=result)
        return result
