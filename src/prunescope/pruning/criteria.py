"""Criteria: how important each weight is. A criterion is one expression over one tensor; anything costly is a signal in `needs`.

Trait `level` is "weight" (scores of the weight's shape, the default) or "unit" (one score an output unit). Trait `units` says how
the scores of the weights that a piece covers become the piece's: "norm" (L1, L2 or Linf, as the caller asks), "sum" (the size of
their sum, for signed contributions to the loss) or "draw" (one of them). Trait `elementwise` says that each score depends on that
weight and on the same entries of its signals alone, so that scores can be computed a part at a time. Keyword-only parameters are
options of the user's.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from prunescope.registry import criteria


@criteria("magnitude", source="Han et al. 2015, arXiv:1506.02626, sec. 3", units="norm", elementwise=True)
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
