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
BATCHES = (1, 7)
LARGEST = 1 << 17  # entries of an input that is tried for its size alone


@dataclass(frozen=True)
class Check:
    """The largest error of one comparison, relative to the largest output, and on what it was made."""

    what: str
    error: float


class DiffersError(Exception):
    """The compacted network does not compute what the masked one does."""


def doubled(values: Any) -> Any:
    """Inputs with floating tensors in double precision."""
    return cast(values, torch.float64)


def cast(values: Any, dtype: torch.dtype) -> Any:
    """Inputs with floating tensors in another precision."""
    return torch.utils._pytree.tree_map(lambda v: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v, values)


def variants(inputs: Inputs, seed: int = 0) -> Iterator[tuple[str, Inputs]]:
    """The example, random inputs of its shape, of other batch sizes, and of other sizes along positions.

    The batch is dimension 0 wherever it is as long as the first tensor's. Which dimensions are positions nobody says: all are tried, for
    the network refuses those that are not.
    """
    yield "example", inputs
    generator = torch.Generator().manual_seed(seed)
    leaves, spec = torch.utils._pytree.tree_flatten(inputs)
    first = next((v for v in leaves if isinstance(v, Tensor) and v.ndim), None)

    def build(resize: Resize) -> Inputs:
        found: Inputs = torch.utils._pytree.tree_unflatten([_random(v, resize, generator) for v in leaves], spec)
        return found

    yield "random inputs", build(lambda shape: shape)
    if first is None:
        return
    for batch in BATCHES:
        yield f"batch size {batch}", build(_batch(first.shape[0], batch))
    for number, shape in enumerate(_sizes(tuple(first.shape))):
        yield f"another size {number}", build(_positions(tuple(first.shape), shape))


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


@torch.no_grad()
def compare(
    masked: Callable[..., Any], small: Callable[..., Any], inputs: Inputs, tolerance: float, *, brief: bool = False
) -> tuple[list[Check], str]:
    """(the error on every variant of the inputs that the masked network takes, a note on sizes that only that one takes).

    brief: the example alone. DiffersError where an error is above `tolerance`, or where the smaller
    network fails on a batch size that the masked one takes.
    """
    found, note, sized = [], "", False
    for what, (args, kwargs) in variants(inputs):
        other = what.startswith("another")
        if brief and what != "example":
            break
        if other and sized:
            continue
        try:
            expected = masked(*copy.deepcopy(args), **copy.deepcopy(kwargs))
        except Exception:  # the user's network takes no such batch or size
            if what in ("example", "random inputs"):
                raise
            continue
        try:
            got = small(*args, **kwargs)
        except Exception as error:
            if other:
                note, sized = "takes inputs of the example's size alone", True
                continue
            said = " ".join(str(error).split())[:200]
            raise DiffersError(f"on {what} the smaller network fails: {type(error).__name__}: {said}") from error
        gap = difference(expected, got)
        if not gap <= tolerance:
            raise DiffersError(f"on {what} its outputs differ by {gap:.1e} of the largest output (allowed {tolerance:.0e})")
        sized |= other
        found.append(Check("another size" if other else what, gap))
    return found, note


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
