"""Nearest neighbours in a product of spaces, and how many samples lie within a radius in each of them: what knn estimators count.

The distance of two samples is the largest of their distances in each block of columns (x, y, ...); inside a block it is Euclidean or
maximum. In few dimensions trees answer. Elsewhere all distances are formed tile by tile at reduced precision (float32 matrix products;
16-bit integers for the maximum norm), and every comparison that this precision cannot settle is made again in float64: the counts are
those of float64 arithmetic, whatever the tile size or the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from prunescope.information.tiles import Exact, Floats, Integers, MatrixProducts, Metric, Tiles, WholeNumbers, Work

Rule = Literal["inside", "box", "closed"]

EDGE = 1e-10  # relative: a sample AT the radius is told from one inside it although both distances are rounded
TILE = 320_000  # pairs in a tile of weight 1: what is written of it is read again from a cache of a few MB
TREE_DIMENSIONS = 4  # beyond it the tiles are faster at N = 10,000
SPARE = 6  # candidates beyond k that are re-checked in float64


@dataclass(frozen=True)
class Search:
    """Neighbours of each of n samples: `distances` (n, k, blocks) and `indices` (n, k), nearest first, and `counts` (n, sets).

    A count is the number of OTHER samples within the limit that the rule sets, in the product of one set of blocks. Where a sample has
    fewer than k others at a finite distance (small classes), the missing distances are infinite.
    """

    distances: Floats
    indices: Integers
    counts: Integers

    @property
    def radius(self) -> Floats:
        """Distance (n, k) to each neighbour in the product of all blocks."""
        return _largest(self.distances)


def _largest(distances: Floats) -> Floats:
    """Largest over the last axis, which is short: a pass for each entry beats a reduction."""
    return reduce(np.maximum, np.moveaxis(distances, -1, 0))


def search(
    blocks: Sequence[Floats], *, k: int, metric: Metric, counted: Sequence[Sequence[int]] = (), rule: Rule = "inside",
    labels: Integers | None = None,
) -> Search:  # fmt: skip
    """The k nearest neighbours in the product of all `blocks` and the counts in each set of blocks in `counted`.

    rule     "inside": strictly nearer than the k-th neighbour; "closed": the same, but at distance 0 where the k-th neighbour is at
             0; "box": within the largest distance that the k neighbours have in that set, border included
    labels   only samples of the same label can be neighbours (counts take all)
    """
    flat = [np.ascontiguousarray(block - block.mean(axis=0)) for block in blocks]
    same = metric == "max" or all(block.shape[1] == 1 for block in flat)
    if same and sum(block.shape[1] for block in flat) <= TREE_DIMENSIONS:
        return _by_trees(flat, k, counted, rule, labels)
    return _by_tiles(flat, k, metric, counted, rule, labels)


def _limits(distances: Floats, counted: Sequence[Sequence[int]], rule: Rule) -> Floats:
    """The largest distance (n, sets) that counts as within."""
    joint = _largest(distances)
    reached = _largest(np.where(np.isfinite(joint), joint, -np.inf))
    if rule == "box":
        sides = [np.where(np.isfinite(joint), _largest(distances[:, :, list(s)]), -np.inf).max(axis=1) for s in counted]
        return np.stack(sides, axis=1) * (1 + EDGE)
    limit = reached * (1 - EDGE)
    if rule == "inside":
        limit = np.where(reached > 0, limit, -1.0)
    return np.repeat(limit[:, None], len(counted), axis=1)


# --- trees ---------------------------------------------------------------------------------------------------------------------------


def _by_trees(
    blocks: list[Floats], k: int, counted: Sequence[Sequence[int]], rule: Rule, labels: Integers | None
) -> Search:
    joint = np.concatenate(blocks, axis=1)
    order = np.argsort(joint[:, 0])  # neighbours in space become near in memory
    joint, blocks = joint[order], [block[order] for block in blocks]
    indices, found = _in_groups(joint, k, None if labels is None else labels[order])
    own = np.arange(len(joint))[:, None]
    distances = np.stack([_distance(block, own, indices, "max") for block in blocks], axis=2)
    if not found.all():
        distances[~found] = np.inf
    limits = _limits(distances, counted, rule)
    sets = [np.concatenate([blocks[b] for b in s], axis=1) for s in counted]
    counts = [_within(columns, limits[:, i]) for i, columns in enumerate(sets)]
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    table = np.stack(counts, axis=1) if counts else np.zeros((len(joint), 0), dtype=np.int64)
    return Search(distances.take(back, axis=0), order.take(indices.take(back, axis=0)), table.take(back, axis=0))


def _in_groups(joint: Floats, k: int, labels: Integers | None) -> tuple[Integers, NDArray[np.bool_]]:
    """Indices (n, k) of the nearest others of the same label, and where there are that many."""
    if labels is None:
        return _nearest_in_tree(joint, k), np.ones((len(joint), k), dtype=bool)
    indices, found = np.zeros((len(joint), k), dtype=np.int64), np.zeros((len(joint), k), dtype=bool)
    for rows in (np.flatnonzero(labels == c) for c in np.unique(labels)):
        near = _nearest_in_tree(joint[rows], min(k, len(rows) - 1))
        indices[rows, : near.shape[1]], found[rows, : near.shape[1]] = rows[near], True
    return indices, found


def _nearest_in_tree(points: Floats, k: int) -> Integers:
    """Indices (n, k) of the nearest others. Among exact duplicates the tree may list a sample before itself: it is moved out."""
    if k < 1:
        return np.zeros((len(points), 0), dtype=np.int64)
    tree = cKDTree(points, leafsize=10, balanced_tree=False, compact_nodes=False)
    found = tree.query(points, k=k + 1, p=np.inf)[1]
    if np.array_equal(found[:, 0], np.arange(len(points))):
        return np.asarray(found[:, 1:], dtype=np.int64)
    own = found == np.arange(len(points))[:, None]
    own[:, -1] |= ~own.any(axis=1)  # not listed at all: k + 1 duplicates came first, any one can go
    return np.asarray(found[~own].reshape(len(points), k), dtype=np.int64)


def _within(columns: Floats, limit: Floats) -> Integers:
    """How many others lie within `limit` (n,) of each row, maximum norm, border included."""
    if columns.shape[1] == 1:
        return np.where(limit < 0, 0, _within_on_line(columns[:, 0], limit))
    tree = cKDTree(columns, balanced_tree=False, compact_nodes=False)
    counts = tree.query_ball_point(columns, np.maximum(limit, 0), p=np.inf, return_length=True)
    return np.where(limit < 0, 0, counts - 1)


def _within_on_line(line: Floats, reach: Floats) -> Integers:
    """As `_within`, of one column."""
    if (line[1:] >= line[:-1]).all():
        return np.asarray(np.searchsorted(line, line + reach, side="right") - np.searchsorted(line, line - reach, side="left") - 1)
    order = np.argsort(line)  # sorted questions are answered from the cache: four times faster
    counts = np.empty(len(line), dtype=np.int64)
    counts[order] = _within_on_line(line[order], reach[order])
    return counts


# --- tiles ---------------------------------------------------------------------------------------------------------------------------


def _distance(columns: Floats, i: Integers, j: Integers, metric: Metric) -> Floats:
    """Float64 distances of the pairs (i, j) in one block."""
    if columns.shape[1] == 1:
        return np.asarray(np.abs(columns[i, 0] - columns[j, 0]))
    gap = columns[i] - columns[j]
    if metric == "max":
        return np.asarray(np.abs(gap).max(axis=-1))
    return np.asarray(np.sqrt(np.einsum("...d,...d->...", gap, gap)))


class _Unsettled(Exception):
    """Not an error but the signal to go on with `Exact`: too many comparisons of a tile cannot be settled at its precision."""


@dataclass(frozen=True)
class _Task:
    blocks: list[Floats]
    k: int
    metric: Metric
    counted: Sequence[Sequence[int]]
    rule: Rule
    labels: Integers | None

    def fast(self) -> list[Tiles]:
        if self.metric == "max":
            unit = WholeNumbers.unit(self.blocks)
            return [WholeNumbers(block, unit) for block in self.blocks]
        scale = max(float(np.median(np.abs(block).max(axis=1))) for block in self.blocks) or 1.0
        return [MatrixProducts(block, scale) for block in self.blocks]

    def exact(self) -> list[Tiles]:
        return [Exact(block, self.metric) for block in self.blocks]


def _by_tiles(
    blocks: list[Floats], k: int, metric: Metric, counted: Sequence[Sequence[int]], rule: Rule, labels: Integers | None
) -> Search:
    task = _Task(blocks, k, metric, counted, rule, labels)
    n = len(blocks[0])
    tiles = task.fast()
    height = max(1, int(TILE * max(tile.weight for tile in tiles)) // n)
    work = Work(tiles, min(height, n), n)
    parts: list[Search] = []
    start = 0
    while start < n:
        rows = np.arange(start, min(start + height, n))
        try:
            parts.append(_rows(task, work, rows))
        except _Unsettled:
            height = max(1, height // 4)
            work = Work(task.exact(), min(height, n), n)
            continue
        start += len(rows)
    return Search(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("distances", "indices", "counts")))


def _rows(task: _Task, work: Work, rows: Integers) -> Search:
    """Neighbours and counts of some rows."""
    work.measure(rows)
    if task.labels is not None:
        work.exclude(task.labels[rows][:, None] != task.labels)
    candidates, last = work.smallest(min(task.k + SPARE, work.n))
    distances, indices = _nearest(task, rows, candidates)
    _require_settled(work, rows, distances, last)
    limits = _limits(distances, task.counted, task.rule)
    counts = [_count(task, work, rows, limits[:, i], list(s)) for i, s in enumerate(task.counted)]
    return Search(distances, indices, np.stack(counts, axis=1) if counts else np.zeros((len(rows), 0), dtype=np.int64))


def _nearest(task: _Task, rows: Integers, candidates: Integers) -> tuple[Floats, Integers]:
    """Float64 distances (rows, k, blocks) and indices of the k nearest candidates."""
    each = np.stack([_distance(block, rows[:, None], candidates, task.metric) for block in task.blocks], axis=2)
    each[candidates == rows[:, None]] = np.inf
    if task.labels is not None:
        each[task.labels[candidates] != task.labels[rows][:, None]] = np.inf
    order = np.argsort(_largest(each), axis=1, kind="stable")[:, : task.k]
    return np.take_along_axis(each, order[:, :, None], axis=1), np.take_along_axis(candidates, order, axis=1)


def _require_settled(work: Work, rows: Integers, distances: Floats, last: NDArray[Any]) -> None:
    """Nothing outside the candidates may be nearer than the k-th of them."""
    if work.exact:
        return
    reached = _largest(distances).max(axis=1)
    sure = np.maximum.reduce([tile.bounds(rows, np.where(np.isfinite(reached), reached, 0))[1] for tile in work.tiles])
    if not np.all((last >= work.largest) | (np.isfinite(reached) & (last > sure))):
        raise _Unsettled


def _count(task: _Task, work: Work, rows: Integers, limit: Floats, blocks: list[int]) -> Integers:
    """Others within `limit` in the product of `blocks`; pairs between the two bounds are measured again in float64."""
    bounds = [work.tiles[b].bounds(rows, limit) for b in blocks]
    inner = work.within(blocks, [low for low, _ in bounds])
    counts = np.fromiter((np.count_nonzero(row) for row in inner), dtype=np.int64, count=len(rows))
    if not work.exact:
        i, j = work.between(blocks, [high for _, high in bounds])
        if len(i) > inner.size // 50:
            raise _Unsettled
        gap = reduce(np.maximum, (_distance(task.blocks[b], rows[i], j, task.metric) for b in blocks))
        counts += np.bincount(i[gap <= limit[i]], minlength=len(rows))
    return np.where(limit < 0, 0, counts - 1)
