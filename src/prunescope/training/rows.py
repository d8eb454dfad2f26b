"""Batches for a stack: every replicate's own order over one table of samples, gathered in one call a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from prunescope import rng
from prunescope.types import Split


class StackedRows:
    """The samples that r replicates train on, in the order in which each would see them alone.

    Yields `x` (r, n, features) and the target: one-hot (r, classes, n) where `classes` is given, as slopes by hand want it (one
    class: the label itself), else class numbers (r, n). Labels ride in the same table as the samples, so that one gather brings both.
    """

    def __init__(self, splits: Sequence[Split], size: int, *, drop_last: bool, classes: int | None) -> None:
        unique = list({id(s): s for s in splits}.values())
        self._n, self._size, self._r, self._classes = len(splits[0]), size, len(splits), classes
        starts = {id(s): i * self._n for i, s in enumerate(unique)}
        self._offsets = [starts[id(s)] for s in splits]
        x = torch.cat([s.x.flatten(1) for s in unique])
        self._y = torch.cat([s.y for s in unique])
        self._features = x.shape[1]
        if classes is not None:
            hot = one_hot(self._y, classes) if classes > 1 else self._y.unsqueeze(1)
            x = torch.cat([x, hot.to(x.dtype)], 1)
        self._table, self._shared = x, len(unique) == 1
        self._used = self._n - self._n % size if drop_last else self._n
        self._buffers: dict[int, Tensor] = {}

    def epoch(self, seeds: Sequence[int], *purpose: str | int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch, whose orders (seed, purpose) fix; a batch of all rows comes as it is."""
        if self._size >= self._n:
            yield self._whole()
            return
        orders = torch.stack(
            [
                torch.randperm(self._n, generator=rng.torch_generator(seed, *purpose)) + start
                for seed, start in zip(seeds, self._offsets, strict=True)
            ]
        ).to(self._table.device)
        for rows in orders[:, : self._used].split(self._size, dim=1):
            yield self._gathered(rows)

    def _gathered(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        n, flat = rows.shape[1], rows.reshape(-1)
        if n not in self._buffers:
            self._buffers[n] = self._table.new_empty(len(flat), self._table.shape[1])
        taken = torch.index_select(self._table, 0, flat, out=self._buffers[n]).view(self._r, n, -1)
        if self._classes is None:
            return taken, self._y[rows]
        return taken[:, :, : self._features], taken[:, :, self._features :].transpose(1, 2)

    def _whole(self) -> tuple[Tensor, Tensor]:
        if self._shared:
            table, y = self._table.expand(self._r, -1, -1), self._y.expand(self._r, -1)
        else:
            parts = [slice(start, start + self._n) for start in self._offsets]
            table, y = torch.stack([self._table[p] for p in parts]), torch.stack([self._y[p] for p in parts])
        if self._classes is None:
            return table, y
        return table[:, :, : self._features], table[:, :, self._features :].transpose(1, 2)
