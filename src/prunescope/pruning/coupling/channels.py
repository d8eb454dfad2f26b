"""Channels: who stands where in every tensor, and the ledger of what has to go together.

Each place of a tensor belongs to a channel. A `Label` holds channel numbers in an array that broadcasts to the tensor's shape: along a
dimension that no channel runs along it has size 1. A tensor may have several labels (a weight has one for its outputs and one for its
inputs). Two numbers below `FIRST` mean no channel: OPAQUE (values that no weight of the network produces alone) and CONSTANT.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor

OPAQUE, CONSTANT, FIRST = 0, 1, 2


class State(IntEnum):
    """What a removed channel's places hold when all its weights and biases are zero: zeros, values that no input changes, or anything."""

    ZERO = 0
    CONST = 1
    VARY = 2


@dataclass(frozen=True, eq=False)
class Label:
    """Channel numbers `ids`, broadcastable to the tensor's shape, and the `state` of a removed channel there."""

    ids: Tensor
    state: State = State.ZERO

    @property
    def dims(self) -> frozenset[int]:
        """The dimensions along which channels run."""
        return frozenset(d for d, size in enumerate(self.ids.shape) if size > 1)


@dataclass(frozen=True, eq=False)
class Value:
    """What is known of one tensor of the graph.

    data    whether it depends on the network's inputs
    const   its value, for a constant of the graph that is neither input nor parameter
    flat    dimensions along which it was expanded, so that it is the same all along them
    """

    shape: tuple[int, ...]
    labels: tuple[Label, ...] = ()
    data: bool = False
    const: Tensor | None = None
    flat: frozenset[int] = frozenset()

    def along(self, dim: int) -> list[Label]:
        """The labels that run along a dimension (negative counts from the end)."""
        return [label for label in self.labels if dim % len(self.shape) in label.dims]

    def with_labels(self, labels: Iterable[Label]) -> Value:
        """The same tensor with other labels."""
        return replace(self, labels=tuple(labels))


@dataclass
class Ledger:
    """Everything that the walk through the graph writes down: channels of each tensor, pairs that go together, and reasons.

    where      the operation at work, for reasons; node: its node in the graph
    meetings   channels that meet others without a weight in between, by the node where they do
    shared     channels of a parameter and those that share them
    takers     channels of weights that take values as inputs there, by node
    """

    size: int = FIRST
    spans: list[tuple[int, int, str, int]] = field(default_factory=list)
    pairs: list[np.ndarray] = field(default_factory=list)
    frozen: list[tuple[np.ndarray, str]] = field(default_factory=list)
    mixed: list[tuple[np.ndarray, str]] = field(default_factory=list)
    marks: dict[str, list[np.ndarray]] = field(default_factory=dict)
    meetings: dict[Any, list[np.ndarray]] = field(default_factory=dict)
    takers: dict[Any, list[np.ndarray]] = field(default_factory=dict)
    shared: list[tuple[np.ndarray, np.ndarray, str]] = field(default_factory=list)
    where: str = ""
    node: Any = None

    def tensor(self, name: str, shape: Sequence[int], state: State = State.ZERO) -> Value:
        """A parameter or buffer of the model: new channels along each of its dimensions; a buffer keeps its values, `state` CONST."""
        labels = []
        for dim, size in enumerate(shape):
            if size > 1:
                ids = torch.arange(self.size, self.size + size).view([-1 if d == dim else 1 for d in range(len(shape))])
                self.spans.append((self.size, size, name, dim))
                self.size += size
                labels.append(Label(ids, state))
        return Value(tuple(shape), tuple(labels))

    def unite(self, a: Tensor, b: Tensor) -> Tensor:
        """Write down that broadcast `a` and `b` go together; returns the numbers that stand for both.

        A channel that meets opaque values cannot go: it is frozen.
        """
        a, b = torch.broadcast_tensors(a, b)
        left, right = a.flatten(), b.flatten()
        both = (left >= FIRST) & (right >= FIRST) & (left != right)
        if bool(both.any()):
            pairs = torch.stack([left[both], right[both]]).numpy()
            self.pairs.append(np.unique(pairs, axis=1))
        alone = torch.cat([left[(left >= FIRST) & (right == OPAQUE)], right[(right >= FIRST) & (left == OPAQUE)]])
        if len(alone):
            self.freeze(alone, "joins values that no weight of the network makes")
        return torch.where(a >= FIRST, a, torch.where(b >= FIRST, b, torch.minimum(a, b)))

    def freeze(self, ids: Tensor, reason: str) -> None:
        """Write down that channels cannot be removed, and why."""
        if len(numbers := self._channels(ids)):
            self.frozen.append((numbers, f"{reason} ({self.where})" if self.where else reason))

    def share(self, ids: Tensor, others: Tensor) -> None:
        """Write down that each channel of `ids` is shared by several of `others` (broadcast): it goes if these turn out to be one set."""
        self.shared.append((ids.expand(others.shape).flatten().numpy(), others.flatten().numpy(), self.where))

    def mix(self, label: Label, reason: str) -> None:
        """Write down that channels meet there without a weight of their own: a statistic over them or their product.

        Nothing is lost when a removed channel holds zeros or a constant there; one that does not is frozen.
        """
        if label.state is State.VARY:
            self.freeze(label.ids, f"{reason} of values that stay when its weights are gone")
        elif len(numbers := self._channels(label.ids)):
            self.mixed.append((numbers, f"{reason} ({self.where})"))
            self.meetings.setdefault(self.node, []).append(numbers)

    def mark(self, ids: Tensor, kind: str) -> None:
        """Note a property of channels: "producer", "consumer" or "head"."""
        if len(numbers := self._channels(ids)):
            self.marks.setdefault(kind, []).append(numbers)
            if kind == "consumer":
                self.takers.setdefault(self.node, []).append(numbers)

    def collapse(self, label: Label, dims: Iterable[int]) -> Label:
        """The label with everything along `dims` united, so that it runs along them no more."""
        ids = label.ids
        for dim in dims:
            if ids.shape[dim] > 1:
                first = ids.narrow(dim, 0, 1)
                ids = self.unite(first, ids).narrow(dim, 0, 1)
        return replace(label, ids=ids)

    @staticmethod
    def _channels(ids: Tensor) -> np.ndarray:
        found: np.ndarray = np.unique(ids.numpy())
        return found[found >= FIRST]


def compressed(ids: Tensor, dims: Iterable[int] | None = None) -> Tensor:
    """`ids` with size 1 along every dimension (of `dims`) along which they do not change."""
    for dim in range(ids.ndim) if dims is None else dims:
        if ids.shape[dim] > 1 and bool((ids == ids.narrow(dim, 0, 1)).all()):
            ids = ids.narrow(dim, 0, 1)
    return ids


def vector(label: Label, dim: int, size: int) -> Tensor:
    """The channel numbers (size,) of a label that runs along `dim` alone."""
    return label.ids.movedim(dim, 0).reshape(-1).expand(size)


def line(ids: Tensor, dim: int, ndim: int) -> Tensor:
    """Channel numbers (n,) laid along dimension `dim` of a tensor with `ndim` dimensions."""
    return ids.view([-1 if d == dim % ndim else 1 for d in range(ndim)])
