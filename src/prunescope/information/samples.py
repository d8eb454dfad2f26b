"""What users hand in (arrays, tensors, lists, frames) as checked columns: labels, continuous or mixed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunescope.information.discrete import label_entropy
from prunescope.information.partition import row_symbols, symbols
from prunescope.information.ranks import normal_scores
from prunescope.types import EstimateError

Kind = Literal["continuous", "discrete", "mixed"]


@dataclass(frozen=True)
class Columns:
    """A checked variable: labels (..., n) int64 of kind "discrete", else numbers (..., n, d) in float32 or float64.

    `flags` say what was found: "degenerate" (constant columns, which were dropped), "ties" (equal rows), "high-dimension" (d > n).
    """

    values: Tensor
    kind: Kind
    flags: tuple[str, ...] = ()

    @property
    def batch(self) -> tuple[int, ...]:
        return tuple(self.values.shape[:-1] if self.kind == "discrete" else self.values.shape[:-2])

    @property
    def n(self) -> int:
        return int(self.values.shape[-1] if self.kind == "discrete" else self.values.shape[-2])

    @property
    def constant(self) -> bool:
        """Whether every sample of the (unbatched) variable is the same: it then carries no information at all."""
        if self.kind == "discrete":
            return bool((self.values == self.values[..., :1]).all())
        return self.values.shape[-1] == 0

    def take(self, rows: Tensor) -> Columns:
        """The samples `rows` of an unbatched variable."""
        return replace(self, values=self.values[rows])

    def on_normal_scores(self) -> Columns:
        """Numbers of an unbatched variable as normal quantiles of their ranks, column by column; labels as they are."""
        if self.kind == "discrete":
            return self
        return replace(self, values=normal_scores(self.values).to(self.values.device))

    def at(self, index: tuple[int, ...]) -> Columns:
        """One element of the batch, checked on its own, or the variable itself where it has no batch."""
        return _checked(replace(self, values=self.values[index])) if self.batch else self

    def entropy_ceiling(self) -> float:
        """Largest information in nats that these samples can carry: the labels' entropy; infinite for numbers."""
        return label_entropy(self.values) if self.kind == "discrete" else math.inf


def columns(value: Any, name: str, *, batch: tuple[int, ...] = ()) -> Columns:
    """`value` as checked columns. Whole numbers, truth values and strings are labels (rows of them: one symbol a row); the rest is numbers.

    value   numpy array, tensor, list, or pandas Series or DataFrame: (n,), (n, d) or (..., n, d)
    batch   leading shape of the variable it is paired with: labels of shape batch + (n,) are then read as a batch too
    Raises EstimateError for what is empty, not finite, ragged or of another type.

    >>> columns(["a", "b", "a"], "y").values.tolist(), columns([0.5, 0.25, 0.0], "x").values.shape
    ([0, 1, 0], torch.Size([3, 1]))
    """
    if hasattr(value, "dtypes") and hasattr(value, "columns"):
        return _frame(value, name)
    tensor, kind = _tensor(value, name)
    if tensor.ndim == 0 or tensor.numel() == 0:
        raise EstimateError(f"{name}: expected samples of shape (n,) or (n, d), got {tuple(tensor.shape)}; pass at least one row")
    if kind == "discrete":
        return Columns(_labels(tensor, batch), "discrete")
    _finite(tensor, name)
    tensor = tensor.to(torch.float32) if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
    tensor = tensor[:, None] if tensor.ndim == 1 else tensor
    return _checked(Columns(tensor, "continuous"))


def _tensor(value: Any, name: str) -> tuple[Tensor, Kind]:
    if not isinstance(value, Tensor):
        value = _array(value, name)
        if value.dtype.kind in "USOMm":
            return torch.from_numpy(_factorised(value)), "discrete"
        if value.dtype.kind == "u":
            value = value.astype(np.int64)
        if value.dtype == np.longdouble:
            value = value.astype(np.float64)
        value = value.astype(value.dtype.newbyteorder("="), copy=False)  # files of other machines may hold their bytes the other way round
        value = torch.from_numpy(value if value.flags.writeable and value.flags.c_contiguous else value.copy())
    if value.is_complex():
        raise EstimateError(f"{name}: expected real numbers, got {value.dtype}; pass real and imaginary parts as two columns")
    return value.detach(), "continuous" if value.is_floating_point() else "discrete"


def _array(value: Any, name: str) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise EstimateError(f"{name}: expected rows of equal length, got a ragged list; pass an array of shape (n, d)") from error
    if array.dtype.kind == "O" and any(v is None or v != v for v in array.flat):
        raise EstimateError(f"{name}: expected a value in every row, got missing ones; drop or fill those samples")
    if array.dtype.kind not in "biufcUSOMm":
        raise EstimateError(f"{name}: expected numbers, truth values or strings, got {array.dtype}")
    return array


def _factorised(array: NDArray[Any]) -> NDArray[np.int64]:
    codes = np.unique(array.astype(str), return_inverse=True)[1]
    return codes.reshape(array.shape).astype(np.int64)


def _labels(tensor: Tensor, batch: tuple[int, ...]) -> Tensor:
    tensor = tensor.to(torch.int64)
    if tensor.ndim == 1 or (batch and tensor.shape[:-1] == batch):
        return tensor
    if tensor.ndim == 2:
        return tensor[:, 0] if tensor.shape[1] == 1 else row_symbols(tensor)
    rows = [row_symbols(one) for one in tensor.reshape(-1, *tensor.shape[-2:])]
    return torch.stack(rows).reshape(tensor.shape[:-1])


def _frame(frame: Any, name: str) -> Columns:
    """A DataFrame: all labels -> one symbol a row; all numbers -> continuous; both -> mixed numbers, labels as their codes."""
    parts = [columns(frame[c].to_numpy(), f"{name}[{c!r}]") for c in frame.columns]
    if not parts:
        raise EstimateError(f"{name}: expected at least one column, got a frame without any")
    kinds = {p.kind for p in parts}
    if kinds == {"discrete"}:
        return Columns(_labels(torch.stack([p.values for p in parts], dim=-1), ()), "discrete")
    flat = [p.values[:, None].double() if p.kind == "discrete" else p.values.double() for p in parts]
    return _checked(Columns(torch.cat(flat, dim=1), "mixed" if len(kinds) > 1 else "continuous"))


def _finite(tensor: Tensor, name: str) -> None:
    if not math.isfinite(float(tensor.sum())):
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise EstimateError(f"{name}: expected finite numbers, got {bad} NaN or infinite ones; drop or mend those samples")


def _checked(column: Columns) -> Columns:
    if column.batch or column.kind == "discrete":
        return column
    return _flagged(_without_constant(column))


def _without_constant(column: Columns) -> Columns:
    values = column.values
    if bool((values[:32] != values[:1]).any(dim=0).all()):  # a few rows show that every column moves, where one does
        return column
    moving = values.amax(dim=0) > values.amin(dim=0)  # aminmax along columns is 30 times slower
    if bool(moving.all()):
        return column
    return replace(column, values=column.values[:, moving], flags=_add(column.flags, "degenerate"))


def _flagged(column: Columns) -> Columns:
    flags = column.flags
    n, d = column.values.shape
    if d > n:
        flags = _add(flags, "high-dimension")
    if d and _ties(column.values):
        flags = _add(flags, "ties")
    return replace(column, flags=flags)


def _ties(values: Tensor) -> bool:
    """Whether any two rows (n, d) are equal: those equal in one column, then in a few, are looked at in full; the rest cannot be."""
    alike = _alike_somewhere(values[:, 0].detach().cpu().numpy())
    if values.shape[1] > 1 and alike.any():
        values = values[torch.from_numpy(alike).to(values.device)]
        prefix = symbols(values[None, :, :4])
        alike = (prefix.counts > 1)[prefix.ids[0]]
    if not alike.any() or values.shape[1] <= 4:
        return bool(alike.any())
    rows = values[torch.from_numpy(alike).to(values.device)]
    return int(symbols(rows[None]).sizes[0]) < len(rows)


def _alike_somewhere(column: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of the numbers (n,) occur more than once."""
    ranked = np.sort(column)  # without the order, which three quarters of the time would go to
    twice = ranked[1:][ranked[1:] == ranked[:-1]]
    return np.isin(column, twice) if len(twice) else np.zeros(len(column), dtype=bool)


def _add(flags: tuple[str, ...], flag: str) -> tuple[str, ...]:
    return flags if flag in flags else (*flags, flag)


def pair(*values: tuple[str, Any]) -> list[Columns]:
    """The named variables as checked columns of equally many samples, of which those with leading dimensions share them."""
    shapes = [tuple(v.shape) for _, v in values if hasattr(v, "shape") and len(v.shape) > 2]
    batch = shapes[0][:-2] if shapes else ()
    made = [columns(value, name, batch=batch) for name, value in values]
    lengths = {name: c.n for (name, _), c in zip(values, made, strict=True)}
    if len(set(lengths.values())) > 1:
        got = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise EstimateError(f"samples of different length: expected one row of each for every sample, got {got}")
    if len({c.batch for c in made if c.batch}) > 1:
        raise EstimateError(f"leading dimensions differ: expected equal ones or none, got {[list(c.batch) for c in made]}")
    return made
