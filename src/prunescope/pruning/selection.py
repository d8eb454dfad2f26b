"""Selection within output rows, for criteria that compare the weights of one output with each other."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from prunescope.pruning.groups import Group
from prunescope.pruning.targets import Target


def rows_of(group: Group, targets: Mapping[str, Target]) -> Tensor | None:
    """The output row (pieces,) in which each piece lies; None where pieces reach over several rows."""
    slot = group.scored[0]
    target = targets[slot.parameter]
    shape = target.parameter.shape
    line = [-1 if d == target.out_dim else 1 for d in range(len(shape))]
    folded = slot.layout.fold(torch.arange(shape[target.out_dim]).view(line).expand(shape))
    return None if bool((folded != folded[:, :1]).any()) else folded[:, 0]


def smallest_within(scores: Tensor, rows: Tensor, count: int) -> Tensor:
    """True for `count` of `scores` (n,) in all, of every row the smallest of its share; among equal ones the first come first.

    Rows lose shares in proportion to what they have left (scores of minus infinity are gone already), rounded so that they sum to `count`.

    >>> smallest_within(torch.tensor([1.0, 2.0, 3.0, 9.0, 8.0, 7.0]), torch.tensor([0, 0, 0, 1, 1, 1]), 2).tolist()
    [True, False, False, False, False, True]
    """
    if count == 0:
        return torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    values, row = scores.detach().cpu().numpy(), rows.cpu().numpy()
    order = np.lexsort((values, row))  # stable: ties stay in index order
    sizes = np.bincount(row)
    gone = np.bincount(row, weights=np.isneginf(values)).astype(np.int64)
    quotas = gone + np.asarray(shares(count - int(gone.sum()), (sizes - gone).tolist()))
    rank = np.arange(len(values)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = np.zeros(len(values), dtype=bool)
    chosen[order] = rank < quotas[row[order]]
    return torch.from_numpy(chosen).to(scores.device)


def shares(total: int, sizes: list[int]) -> list[int]:
    """`total` split in proportion to `sizes`, whole numbers that sum to it, none above its size.

    >>> shares(3, [2, 2, 2])
    [1, 1, 1]
    """
    whole, ends, so_far = max(1, sum(sizes)), [0], 0
    for size in sizes:
        so_far += size
        ends.append((2 * total * so_far + whole) // (2 * whole))
    return [b - a for a, b in itertools.pairwise(ends)]
