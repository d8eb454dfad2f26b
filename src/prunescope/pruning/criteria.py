"""Criteria: how important each weight is. A criterion is one expression over one tensor; anything costly is a signal in `needs`.

Trait `units` says how the scores of a unit's weights become the unit's score: "norm" (L1 or L2, as the caller asks) or
"draw" (one of them).
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from prunescope.registry import criteria


@criteria("magnitude", source="Han et al. 2015, arXiv:1506.02626, sec. 3", units="norm")
def magnitude(weight: Tensor) -> Tensor:
    """Absolute value of each weight, in the weight's own unit; shape of `weight`.

    >>> magnitude(torch.tensor([-2.0, 0.5])).tolist()
    [2.0, 0.5]
    """
    return weight.abs()


@criteria("random", needs=("generator",), source="the control: uniform scores that ignore the weights", units="draw")
def random(weight: Tensor, generator: Generator) -> Tensor:
    """Uniform random numbers in [0, 1), unitless; shape of `weight`. Drawn on the CPU, so that every device sees the same ones."""
    return torch.rand(weight.shape, generator=generator, dtype=torch.float64).to(weight.device)
