"""Whether a file computes what the network does, as far as random inputs can tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from prunescope.export.inputs import Inputs, drawn
from prunescope.types import ExportError

SIZES = (2, 7)  # batches that a file of any batch size is tried with; 1 says nothing of what is fixed and what is not


@dataclass(frozen=True)
class Agreement:
    """The largest difference between the file's outputs and the network's, relative to the largest output, over `samples` in `batches`."""

    by: str
    difference: float
    tolerance: float
    batches: tuple[int, ...]

    def __str__(self) -> str:
        if not self.batches:
            return self.by
        many = " and ".join(str(n) for n in self.batches)
        return f"{self.by}, random inputs in batches of {many}: largest difference {self.difference:.1e} of the largest output"


def compared(
    model: nn.Module, run: Callable[[Inputs], Sequence[Tensor]], example: Inputs, *, by: str, sizes: Sequence[int], tolerance: float
) -> Agreement:
    """The agreement of `run` with `model` on random inputs in batches of `sizes`. Raises ExportError beyond `tolerance`."""
    worst = 0.0
    for turn, n in enumerate(sizes):
        inputs = drawn(example, n, turn)
        with torch.no_grad():
            wanted = outputs(model(*inputs))
        worst = max(worst, _difference(wanted, list(run(inputs)), by))
    if not worst <= tolerance:
        raise ExportError(
            f"{by} disagrees with the network by {worst:.1e} of its largest output, more than {tolerance:g}: nothing was written; "
            "random numbers or data-dependent branches in its forward do that"
        )
    return Agreement(by, worst, tolerance, tuple(sizes))


def outputs(returned: Any) -> list[Tensor]:
    """The tensors in what a network returned, in order."""
    return [leaf for leaf in tree_leaves(returned) if isinstance(leaf, Tensor)]


def _difference(wanted: list[Tensor], got: list[Tensor], by: str) -> float:
    shapes = [[tuple(t.shape) for t in some] for some in (wanted, got)]
    if shapes[0] != shapes[1]:
        raise ExportError(f"{by} gives outputs of shapes {shapes[1]}, the network {shapes[0]}: nothing was written")
    worst = 0.0
    for a, b in zip(wanted, got, strict=True):
        scale = max(float(a.double().abs().max()), 1e-12) if a.numel() else 1.0
        apart = (a.double() - b.to(a.device).double()).abs()
        worst = max(worst, float(apart.max()) / scale if a.numel() else 0.0)
        if not torch.equal(a.isfinite(), b.to(a.device).isfinite()):
            return float("inf")
    return worst
