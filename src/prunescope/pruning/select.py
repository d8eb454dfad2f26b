"""Selection by rank: exactly as many pieces as asked for, ties broken by index.

numpy's introselect finds the k-th smallest of a million floats in under a millisecond, where a full sort takes a hundred times as long.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from prunescope.types import PruningError


def smallest(scores: Tensor, count: int) -> Tensor:
    """True for the `count` smallest of `scores` (n,); among equal ones the first come first.

    >>> smallest(torch.tensor([3.0, 1.0, 1.0, 1.0]), 2).tolist()
    [False, True, True, False]
    """
    values = _checked(scores)
    if not 0 <= count <= values.size:
        raise PruningError(f"{count} of {values.size} scores were asked for: expected between 0 and {values.size}")
    if count == 0:
        return torch.zeros(values.size, dtype=torch.bool, device=scores.device)
    boundary = np.partition(values, count - 1)[count - 1]
    chosen = values < boundary
    ties = np.flatnonzero(values == boundary)
    chosen[ties[: count - int(chosen.sum())]] = True
    return torch.from_numpy(chosen).to(scores.device)


def best_of_each(scores: Tensor, best: int, of: int) -> Tensor:
    """True for the `best` largest of each `of` consecutive `scores` (n,); among equal ones the first go first, as in `smallest`.

    >>> best_of_each(torch.tensor([1.0, 4.0, 2.0, 3.0, 5.0, 5.0, 5.0, 5.0]), 2, 4).tolist()
    [False, True, False, True, False, False, True, True]
    """
    values = torch.from_numpy(_checked(scores)).view(-1, of)
    columns = values.t().contiguous()
    rank = torch.zeros_like(columns, dtype=torch.int16 if of > 127 else torch.int8)  # how many others of its `of` go before it
    for i in range(of):
        for j in range(i):
            first = columns[j] <= columns[i]
            rank[i] += first
            rank[j] += ~first
    return (rank >= of - best).t().reshape(-1).to(scores.device)


def smallest_together(scores: Mapping[str, Tensor], count: int) -> dict[str, int]:
    """How many of each tensor's scores are among the `count` smallest of all; ties go to the earlier tensor."""
    chosen = smallest(torch.cat([s.double().cpu() for s in scores.values()]), count)
    parts = chosen.split([s.numel() for s in scores.values()])
    return {name: int(part.sum()) for name, part in zip(scores, parts, strict=True)}


def _checked(scores: Tensor) -> np.ndarray:
    values = scores.detach().cpu().numpy()
    if np.isnan(values).any():
        raise PruningError(f"{int(np.isnan(values).sum())} of {values.size} scores are NaN: check the weights and the criterion")
    return values
