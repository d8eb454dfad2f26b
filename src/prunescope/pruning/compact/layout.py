"""Layouts: which places of every traced tensor stay, and the arguments of operations that say sizes and places."""

from __future__ import annotations

from typing import Any

import torch
import torch.fx
from torch import Tensor

from prunescope.pruning.compact.plan import Plan
from prunescope.pruning.coupling.channels import FIRST, Value

Layout = dict[int, Tensor]


def layout(plan: Plan, value: Any) -> Layout:
    """The places (indices) that stay along every dimension of a tensor that shrinks."""
    found: Layout = {}
    removed, sets = torch.from_numpy(plan.removed), torch.from_numpy(plan.coupling.sets)
    for label in value.labels if isinstance(value, Value) else ():
        gone = removed[sets[label.ids]] & (label.ids >= FIRST)
        if not gone.any():
            continue
        for dim in label.dims:
            others = [d for d in range(gone.ndim) if d != dim]
            stays = (~gone).permute([dim, *others]).flatten(1).any(1) if gone.ndim > 1 else ~gone
            if not stays.all():
                found[dim] = stays.nonzero().flatten()
    return found


def layouts(plan: Plan) -> dict[torch.fx.Node, Any]:
    """The layout of every node, a list for one that gives several tensors."""
    return {n: _all(plan, v) for n, v in plan.coupling.values.items()}


def _all(plan: Plan, value: Any) -> Any:
    return [_all(plan, v) for v in value] if isinstance(value, list | tuple) else layout(plan, value)


def shape(node: torch.fx.Node, kept: Layout) -> tuple[int, ...]:
    """The size that a node's tensor has afterwards."""
    return tuple(len(kept[d]) if d in kept else int(s) for d, s in enumerate(node.meta["val"].shape))


def before(kept: Tensor, place: int, size: int) -> int:
    """How many of the places that stay lie before `place` (negative counts from the end) of `size`.

    >>> before(torch.tensor([0, 2, 5]), -2, 6)
    2
    """
    place = min(max(place + size if place < 0 else place, 0), size)
    return int((kept < place).sum())
