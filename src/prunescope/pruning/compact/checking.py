"""Checks: the compacted network against the masked one, on the example and on other inputs, in double precision and in its own."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

EXACT = 1e-10
Inputs = tuple[tuple[Any, ...], dict[str, Any]]
BATCHES = (7, 5)  # samples of a comparison; the second where the example has as many as the first
FEWER = (4, 5)  # the same for inputs of many entries
MANY = 1 << 16
LARGEST = 1 << 17  # entries of an input that is tried for its size alone


@dataclass(frozen=True)
class Check:
    """The largest error of one comparison, relative to the largest output, and on what it was made."""

    what: str
    error: float


class DiffersError(Exception):
    """The compacted network does not compute what the masked one does."""


class _FailedError(DiffersError):
    """It fails where the masked one gives an answer."""


def doubled(values: Any) -> Any:
    """Inputs with floating tensors in double precision."""
    return cast(values, torch.float64)


def cast(values: Any, dtype: torch.dtype) -> Any:
    """Inputs with floating tensors in another precision."""
    return torch.utils._pytree.tree_map(lambda v: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v, values)


class Draws:
    """Inputs to compare on: the example, and random ones of its form in other batch sizes and other sizes along positions.

    The batch is dimension 0 wherever it is as long as the first tensor's. Which dimensions are positions nobody says: all are tried, for
    the network refuses those that are not.
    """

    def __init__(self, inputs: Inputs, seed: int = 0) -> None:
        self.inputs, self.generator = inputs, torch.Generator().manual_seed(seed)
        self.leaves, self.spec = torch.utils._pytree.tree_flatten(inputs)
        first = next((v for v in self.leaves if isinstance(v, Tensor) and v.ndim), None)
        self.shape: tuple[int, ...] = () if first is None else tuple(first.shape)

    def random(self, batch: int | None = None, shape: tuple[int, ...] | None = None) -> Inputs:
        """Random inputs, of `batch` samples and with the sizes of `shape` along positions where these are given."""

        def resized(old: tuple[int, ...]) -> tuple[int, ...]:
            if shape is not None:
                old = _positions(self.shape, shape)(old)
            return old if batch is None else _batch(self.shape[0], batch)(old)

        found: Inputs = torch.utils._pytree.tree_unflatten([_random(v, resized, self.generator) for v in self.leaves], self.spec)
        return found

    def sizes(self) -> Iterator[tuple[int, ...]]:
        """Other sizes of the first input, to be tried: smaller ones first, which cost less."""
        return _sizes(self.shape)


def rigid(network: Callable[..., Any], inputs: Inputs) -> bool:
    """Whether a network refuses every other size along positions that is tried."""
    draws = Draws(inputs)
    for shape in draws.sizes() if draws.shape else ():
        args, kwargs = draws.random(1, shape)
        try:
            with torch.no_grad():
                network(*args, **kwargs)
        except Exception:  # it takes no such size
            continue
        return False
    return True


Resize = Callable[[tuple[int, ...]], tuple[int, ...]]


def _batch(old: int, new: int) -> Resize:
    return lambda shape: (new, *shape[1:]) if shape[0] == old else shape


def _positions(old: tuple[int, ...], new: tuple[int, ...]) -> Resize:
    """Dimensions of any input that are as long as the first one's there follow it."""
    return lambda shape: tuple(new[d] if d < len(old) and n == old[d] else n for d, n in enumerate(shape))


def _sizes(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Other sizes of the first input, to be tried."""
    spans = [range(2, len(shape))] if len(shape) > 3 else [range(d, d + 1) for d in range(1, len(shape))]
    for span in spans:
        for up, down in ((1, 2), (2, 1), (4, 3)):
            changed = tuple(max(1, n * up // down) if d in span else n for d, n in enumerate(shape))
            if changed != shape and (up < down or math.prod(changed) < LARGEST):
                yield changed


def _random(value: Any, resize: Resize, generator: torch.Generator) -> Any:
    if not isinstance(value, Tensor) or not value.ndim:
        return value
    shape = resize(tuple(value.shape))
    if value.is_floating_point():
        scale = float(value.std()) if value.numel() > 1 else 1.0
        noise = torch.randn(shape, generator=generator, dtype=torch.float64) * (scale or 1.0)
        return (noise + float(value.mean())).to(value.device, value.dtype)
    if value.dtype == torch.bool:
        return value if shape == tuple(value.shape) else torch.ones(shape, dtype=torch.bool, device=value.device)
    picks = torch.randint(0, max(value.numel(), 1), shape, generator=generator).to(value.device)
    return value.flatten()[picks]


class Comparison:
    """The masked and the smaller network side by side; `found` has the error of each comparison, `note` what only the masked one takes."""

    def __init__(self, masked: Callable[..., Any], small: Callable[..., Any], inputs: Inputs, tolerance: float) -> None:
        self.masked, self.small, self.tolerance = masked, small, tolerance
        self.draws = Draws(inputs)
        self.found: list[Check] = []
        self.note = ""

    @torch.no_grad()
    def example(self) -> Comparison:
        """On the example. DiffersError where an output differs or the smaller network fails, here and in what follows."""
        self._made("example", self.draws.inputs, refused=False)
        return self

    @torch.no_grad()
    def random(self) -> Comparison:
        """On one random sample where the masked network takes one, else on random inputs of the example's size."""
        if not (self.draws.shape and self._made("one random sample", self.draws.random(1))):
            self._made("random inputs", self.draws.random(), refused=False)
        return self

    @torch.no_grad()
    def resized(self) -> Comparison:
        """On another size along positions and another batch size, where the masked network takes them: the smallest that it does."""
        if not self.draws.shape:
            return self
        taken = None
        for shape in self.draws.sizes():
            try:
                if self._made("another size", self.draws.random(1, shape)) or self._made("another size", self.draws.random(None, shape)):
                    taken = shape
                    break
            except _FailedError:  # the smaller network says nothing wrong, it refuses
                self.note = "takes inputs of the example's size alone"
                break
        first, second = FEWER if math.prod(self.draws.shape[1:]) > MANY else BATCHES
        batch = second if self.draws.shape[0] == first else first
        self._made(f"batch size {batch}", self.draws.random(batch, taken))
        return self

    def _made(self, what: str, inputs: Inputs, *, refused: bool = True) -> bool:
        """Whether the masked network takes the inputs; it raises where it does not and may not have `refused` them."""
        args, kwargs = inputs
        try:
            expected = self.masked(*copy.deepcopy(args), **copy.deepcopy(kwargs))
        except Exception:  # the user's network takes no such batch or size
            if not refused:
                raise
            return False
        try:
            got = self.small(*args, **kwargs)
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            raise _FailedError(f"on {what} the smaller network fails: {type(error).__name__}: {said}") from error
        gap = difference(expected, got)
        if not gap <= self.tolerance:
            raise DiffersError(f"on {what} its outputs differ by {gap:.1e} of the largest output (allowed {self.tolerance:.0e})")
        self.found.append(Check(what, gap))
        return True


def difference(expected: Any, got: Any) -> float:
    """The largest absolute difference over all outputs, relative to each one's largest entry; infinite where their forms differ."""
    left, right = (torch.utils._pytree.tree_leaves(v) for v in (expected, got))
    if len(left) != len(right):
        return float("inf")
    worst = 0.0
    for a, b in zip(left, right, strict=True):
        if not isinstance(a, Tensor):
            continue
        if not isinstance(b, Tensor) or a.shape != b.shape:
            return float("inf")
        a, b = a.double(), b.double()
        if not a.numel():
            continue
        same = (a == b) | (a.isnan() & b.isnan())
        gap = torch.where(same, 0.0, (a - b).abs())
        scale = float(a[a.isfinite()].abs().max()) if bool(a.isfinite().any()) else 1.0
        gap_max = float(gap.max())
        worst = max(worst, gap_max / scale if scale > 0 else gap_max) if gap_max == gap_max else float("inf")
    return worst


def tolerance_of(dtype: torch.dtype) -> float:
    """What rounding may do in a precision: 1e-5 in float32, 1e-10 in float64, as many units of the last place in others."""
    return EXACT if dtype == torch.float64 else max(1e-5, 84 * torch.finfo(dtype).eps)


def precision(model: nn.Module) -> torch.dtype:
    """The floating type of most of a model's parameters."""
    counts: dict[torch.dtype, int] = {}
    for p in model.parameters():
        if p.is_floating_point():
            counts[p.dtype] = counts.get(p.dtype, 0) + p.numel()
    return max(counts, key=lambda d: counts[d]) if counts else torch.float32
