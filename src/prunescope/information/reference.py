"""What the layers of an information plane are compared with: the labels and the network's input, grouped once for all epochs."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from prunescope.information.grid import cells
from prunescope.information.partition import Groups, symbols
from prunescope.information.raw import Raw
from prunescope.information.samples import columns
from prunescope.types import EstimateError

InputMode = Literal["identity", "binned", "codes"]
PlaneFunction = Callable[..., Mapping[str, Raw]]  # (activations (B, n, d), Reference, bounds=..., **parameters)


@dataclass(frozen=True)
class Reference:
    """Labels y and input x of the n samples that a plane is measured on; entropies in nats, plug-in.

    labels, label_groups   (n,) int64, and their groups
    input_groups           samples with equal inputs: duplicates (identity), equal cells (binned) or equal codes
    input_values           (n, dx) numbers, for estimators that compare activations with the input itself
    text                   what stands for the input, for tables and reports
    memo                   what an estimator computed of the input or the labels alone, kept for the next layer and epoch
    """

    labels: Tensor
    label_groups: Groups
    input_groups: Groups
    input_values: Tensor | None
    text: str
    mode: InputMode
    memo: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def n(self) -> int:
        return len(self.labels)

    @property
    def label_ids(self) -> Tensor:
        """Labels as class numbers from 0 (n,) int64."""
        return torch.from_numpy(self.label_groups.ids[0])

    @functools.cached_property
    def label_entropy(self) -> float:
        return float(self.label_groups.entropy()[0])

    @functools.cached_property
    def input_entropy(self) -> float:
        """H(X) in nats of the samples: log n where all inputs differ."""
        return float(self.input_groups.entropy()[0])

    @functools.cached_property
    def distinct(self) -> bool:
        """Whether no two samples share an input symbol: then I(X; T) of groups T is H(T)."""
        return int(self.input_groups.sizes[0]) == self.n

    def take(self, rows: Tensor) -> Reference:
        """The same for the samples `rows`."""
        ids = torch.from_numpy(self.input_groups.ids[0])[rows]
        values = None if self.input_values is None else self.input_values[rows]
        return Reference(self.labels[rows], symbols(self.labels[rows]), symbols(ids), values, self.text, self.mode)


def reference(y: Any, x: Any = None, *, input: InputMode = "identity", **options: Any) -> Reference:
    """Reference (entropies in nats) for labels `y` (n,) and input `x`: None, numbers (n, ...) or codes.

    input   "identity": every distinct input is one symbol, so a deterministic network has I(X; T) = H(T);
            "binned": x itself falls into the cells of a grid, whose `options` (bins, range, width, per) follow;
            "codes": x holds labels (n,), or rows (n, d) of whole numbers

    >>> r = reference([0, 0, 1, 1], [[0.0], [0.0], [1.0], [2.0]]); round(r.input_entropy / math.log(2), 12), r.distinct
    (1.5, False)
    """
    label = columns(y, "y")
    if label.kind != "discrete" or label.batch:
        raise EstimateError(f"y: expected labels (n,) of whole numbers or strings, got {label.kind} values; bin them first")
    groups, values, text = _input(x, label.n, input, options)
    if groups.n != label.n:
        raise EstimateError(f"x and y: expected as many samples in each, got {groups.n} and {label.n}; pair them row by row")
    return Reference(label.values.cpu(), symbols(label.values), groups, values, text, input)


def _input(x: Any, n: int, mode: InputMode, options: dict[str, Any]) -> tuple[Groups, Tensor | None, str]:
    if mode not in ("identity", "binned", "codes"):
        raise EstimateError(f"input={mode!r}: expected 'identity', 'binned' or 'codes'")
    if x is None:
        if mode != "identity":
            raise EstimateError(f"input={mode!r}: expected the network's input x, got none; pass it or use input='identity'")
        every = np.arange(n)[None]
        return Groups(every, np.ones(n, np.int64), np.zeros(n, np.int64)), None, "X: the samples, taken as all different"
    if mode == "codes":
        codes = columns(x, "x")
        if codes.kind != "discrete":
            raise EstimateError("x: expected codes of whole numbers with input='codes', got floating numbers; use input='binned'")
        return symbols(codes.values), None, "X: given codes"
    flat = torch.as_tensor(x).detach().flatten(1) if not isinstance(x, Tensor) else x.detach().flatten(1)
    values = flat if flat.is_floating_point() else flat.to(torch.float32)
    if mode == "binned":
        groups, made = cells(values[None], **options)
        return groups, values, f"X in {made[0].text}"
    groups = symbols(values[None])
    return groups, values, f"X: {int(groups.sizes[0])} distinct inputs"


def plane_raws(
    groups: Groups, ref: Reference, capacity: float, mi: Callable[[Groups, Groups], Any], h: Callable[[Groups], Any], text: str | list[str]
) -> dict[str, Raw]:
    """Raw values (nats) of a grouped layer (B batches): H(T), I(T; Y) and I(X; T), with ceilings min(log n, H(Y) or H(X), capacity).

    mi(a, b)  mutual information of two groupings (B,); h(a)  entropy of one. I(X; T) is H(T) where no two inputs are the same.
    text      the resolution, of all batches or of each
    """
    entropy = h(groups)
    label = mi(groups, ref.label_groups)
    return plane_values(ref, capacity, entropy, label, entropy if ref.distinct else mi(groups, ref.input_groups), text)


def plane_values(ref: Reference, capacity: float, entropy: Any, label: Any, input: Any, text: str | list[str]) -> dict[str, Raw]:
    """Raw values (nats, B batches) H(T), I(T; Y) and I(X; T) as they stand, with the ceilings that `plane_raws` gives them."""
    known = min(math.log(ref.n), capacity)
    values = {
        "entropy": (entropy, known),
        "mi_label": (label, min(known, ref.label_entropy)),
        "mi_input": (input, min(known, ref.input_entropy)),
    }
    detail = {"resolution": text[0] if isinstance(text, list) and len(set(text)) == 1 else text}
    return {name: Raw(torch.from_numpy(np.asarray(v)), None, ceiling, (), detail) for name, (v, ceiling) in values.items()}
