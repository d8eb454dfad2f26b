"""Scores that are read a part at a time, so that ranking a hundred million weights needs no copy of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from prunescope.types import PruningError

PART = 1 << 18  # scores at a time: what the second cache level holds


class Stream(Protocol):
    """Scores of the pieces of one group, in index order. They are not looked through for NaN: who reads them does (`refuse_nan`)."""

    def numel(self) -> int:
        """How many there are."""

    def parts(self) -> Iterator[Tensor]:
        """All of them, up to (PART,) at a time; a part may be overwritten by the next one."""

    def sample(self, count: int) -> Tensor:
        """About `count` of them, evenly spread."""

    @property
    def device(self) -> torch.device:
        """Where they are."""


@dataclass(frozen=True)
class Whole:
    """Scores that exist as one tensor (pieces,)."""

    values: Tensor

    def numel(self) -> int:
        """How many there are."""
        return self.values.numel()

    def parts(self) -> Iterator[Tensor]:
        """Views of up to PART scores."""
        yield from self.values.split(_width(self.numel()))

    def sample(self, count: int) -> Tensor:
        """About `count` of them, evenly spread."""
        return self.values[:: max(1, self.values.numel() // max(1, count))]

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.values.device


@dataclass(frozen=True)
class Elementwise:
    """Scores that each depend on one weight and on the same entry of other tensors, computed when they are read.

    criterion   (weight, **needs) -> scores, entry by entry
    weight      any shape; its entries are the pieces
    needs       tensors of the weight's shape that the criterion takes beside it
    kept        boolean, weight's shape: entries that are False score minus infinity; None: all are there
    """

    criterion: Callable[..., Tensor]
    weight: Tensor
    needs: Mapping[str, Tensor] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    kept: Tensor | None = None
    name: str = ""

    def numel(self) -> int:
        """How many there are."""
        return self.weight.numel()

    def parts(self) -> Iterator[Tensor]:
        """Scores of up to PART weights, computed now."""
        flat, width = self._flat(), _width(self.numel())
        for i in range(0, self.numel(), width):
            yield self._scores(flat, slice(i, i + width))

    def sample(self, count: int) -> Tensor:
        """About `count` of them, evenly spread."""
        return self._scores(self._flat(), slice(None, None, max(1, self.numel() // max(1, count))))

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.weight.device

    def _flat(self) -> Elementwise:
        """The same with every tensor as one line: once, because a weight in another memory order is copied for it."""
        needs = {n: v.reshape(-1) for n, v in self.needs.items()}
        return replace(self, weight=self.weight.reshape(-1), needs=needs, kept=None if self.kept is None else self.kept.reshape(-1))

    @staticmethod
    def _scores(flat: Elementwise, rows: slice) -> Tensor:
        found = flat.criterion(flat.weight[rows], **{n: v[rows] for n, v in flat.needs.items()}, **flat.options)
        if flat.kept is not None:
            found = found.masked_fill(~flat.kept[rows].to(found.device), -torch.inf)
        return found


def _width(scores: int) -> int:
    """Scores in one part: of small tensors fewer, so that a part stays small beside the tensor's mask."""
    return min(PART, max(1 << 16, scores // 64))


def refuse_nan(streams: Mapping[str, Stream]) -> None:
    """PruningError that names the first of `streams` with scores that are not numbers, and how many."""
    for stream in streams.values():
        if wrong := sum(int(part.isnan().sum()) for part in stream.parts()):
            of = f" of {name}" if (name := getattr(stream, "name", "")) else ""
            raise PruningError(
                f"{wrong} of {stream.numel()} scores{of} are NaN: check the weights, and the gradients or data that the scores come from"
            )


Scores = Mapping[str, Tensor | Stream]  # by group name


def stream_of(scores: Tensor | Stream) -> Stream:
    """Scores as a stream, whether they exist already or not."""
    return Whole(scores) if isinstance(scores, Tensor) else scores


def whole(scores: Tensor | Stream) -> Tensor:
    """All scores (pieces,) at once; computed ones are refused where some are NaN."""
    if isinstance(scores, Tensor):
        return scores
    found = torch.cat([part.clone() for part in scores.parts()])
    if bool(found.isnan().any()):
        refuse_nan({"": scores})
    return found
