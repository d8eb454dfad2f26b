"""Layouts: how the pieces of a granularity lie in a tensor, as a fold into rows and its inverse for masks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Layout(Protocol):
    """Where pieces lie in one tensor; all tensors of a group have the same number of pieces, in the same order."""

    def fold(self, values: Tensor) -> Tensor:
        """`values` (shape of the tensor) as (pieces, members): row i holds what piece i covers."""

    def expand(self, kept: Tensor, shape: torch.Size) -> Tensor:
        """The boolean mask of the tensor (of `shape`) from that of the pieces (pieces,)."""


@dataclass(frozen=True)
class Spans:
    """Pieces that span the whole of the dimensions `spans`: () is every entry by itself, all but one is a unit.

    >>> Spans((1,)).fold(torch.tensor([[1, 2], [3, 4]])).tolist(), Spans((0,)).fold(torch.tensor([[1, 2], [3, 4]])).tolist()
    ([[1, 2], [3, 4]], [[1, 3], [2, 4]])
    """

    spans: tuple[int, ...]

    def fold(self, values: Tensor) -> Tensor:
        """(pieces, members), pieces in index order of the dimensions that are not spanned."""
        kept = [d for d in range(values.ndim) if d not in self.spans]
        pieces = math.prod(values.shape[d] for d in kept)
        return values.permute(*kept, *self.spans).reshape(pieces, -1)

    def expand(self, kept: Tensor, shape: torch.Size) -> Tensor:
        """The mask of a tensor of `shape`."""
        return kept.view([1 if d in self.spans else size for d, size in enumerate(shape)]).expand(shape).contiguous()


@dataclass(frozen=True)
class Parts:
    """Pieces that are sets of indices along one dimension, and span all others: `index` (pieces, width), long.

    Serves coupled channels (width 1 and an order of their own), heads, and channels that a flattened input repeats.
    Indices that no piece names are kept.

    >>> Parts(0, torch.tensor([[0, 1], [2, 3]])).expand(torch.tensor([True, False]), torch.Size([4, 1])).ravel().tolist()
    [True, True, False, False]
    """

    dim: int
    index: Tensor

    def fold(self, values: Tensor) -> Tensor:
        """(pieces, members), members in index order of each part."""
        rows = values.movedim(self.dim, 0)[self.index.to(values.device)]
        return rows.reshape(len(self.index), -1)

    def expand(self, kept: Tensor, shape: torch.Size) -> Tensor:
        """The mask of a tensor of `shape`."""
        line = torch.ones(shape[self.dim], dtype=torch.bool, device=kept.device)
        line[self.index.to(kept.device).flatten()] = kept.repeat_interleave(self.index.shape[1])
        return line.view([-1 if d == self.dim else 1 for d in range(len(shape))]).expand(shape).contiguous()


@dataclass(frozen=True)
class Viewed:
    """Pieces of a tensor seen in another order and shape: its dimensions in `order`, then `view`, of which `spans` are spanned.

    Serves blocks, patterns along the inputs, and the input channels of a grouped convolution.

    >>> Viewed((0, 1), (1, 2, 2, 2), (1, 3)).fold(torch.arange(8).view(2, 4)).tolist()
    [[0, 1, 4, 5], [2, 3, 6, 7]]
    """

    order: tuple[int, ...]
    view: tuple[int, ...]
    spans: tuple[int, ...]

    def fold(self, values: Tensor) -> Tensor:
        """(pieces, members), pieces in index order of the viewed dimensions that are not spanned."""
        return Spans(self.spans).fold(values.permute(self.order).reshape(self.view))

    def expand(self, kept: Tensor, shape: torch.Size) -> Tensor:
        """The mask of a tensor of `shape`."""
        seen = Spans(self.spans).expand(kept, torch.Size(self.view)).view([shape[d] for d in self.order])
        return seen.permute([self.order.index(d) for d in range(len(shape))]).contiguous()


@dataclass(frozen=True)
class Whole:
    """One piece of `pieces` that is the whole tensor: `piece` is its number, and no other piece has a share in the tensor.

    >>> Whole(1, 2).expand(torch.tensor([True, False]), torch.Size([1, 2])).tolist()
    [[False, False]]
    """

    piece: int
    pieces: int

    def fold(self, values: Tensor) -> Tensor:
        """(pieces, members): zeros for the pieces that have no share."""
        rows = values.new_zeros(self.pieces, values.numel())
        rows[self.piece] = values.flatten()
        return rows

    def expand(self, kept: Tensor, shape: torch.Size) -> Tensor:
        """The mask of a tensor of `shape`."""
        return kept[self.piece].expand(shape).contiguous()
