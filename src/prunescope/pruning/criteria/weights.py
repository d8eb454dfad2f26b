"""Criteria of the weights alone: magnitude and what is made of it, change since the start, geometric median, normalisation scale."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from prunescope.registry import criteria


@criteria("magnitude", source="Han et al. 2015, arXiv:1506.02626, sec. 3", units="norm", elementwise=True)
def magnitude(weight: Tensor) -> Tensor:
    """Absolute value of each weight, in the weight's own unit; shape of `weight`. Of units: their L1, L2 or Linf norm (option norm).

    >>> magnitude(torch.tensor([-2.0, 0.5])).tolist()
    [2.0, 0.5]
    """
    return weight.abs()


@criteria("random", needs=("generator",), source="the control: uniform scores that ignore the weights", units="draw")
def random(weight: Tensor, generator: Generator) -> Tensor:
    """Uniform random numbers in [0, 1), unitless; shape of `weight`. Drawn on the CPU, so that every device sees the same ones."""
    return torch.rand(weight.shape, generator=generator, dtype=torch.float64).to(weight.device)


@criteria(
    "movement", needs=("initial_weights",), source="Zhou et al. 2019, arXiv:1905.01067, table of mask criteria",
    units="norm", elementwise=True,
)  # fmt: skip
def movement(weight: Tensor, initial_weights: Tensor) -> Tensor:
    """|w - w0|, how far each weight moved from its initial value, in the weight's unit; shape of `weight`.

    >>> movement(torch.tensor([2.0, -1.0]), torch.tensor([1.0, -3.0])).tolist()
    [1.0, 2.0]
    """
    return (weight - initial_weights).abs()


@criteria(
    "movement-direction", needs=("initial_weights",), source="Sanh et al. 2020, arXiv:2005.07683, sec. 4",
    units="signed-sum", elementwise=True,
)  # fmt: skip
def movement_direction(weight: Tensor, initial_weights: Tensor) -> Tensor:
    """(w^2 - w0^2) / 2, movement away from zero as important, squared unit of the weight; shape of `weight`; of a piece: the sum.

    The paper sums -w dL/dw over the steps of training; where the weights followed the gradient in small steps of constant size, that sum
    times the step is the integral of w dw, which is this difference of two states.

    >>> movement_direction(torch.tensor([2.0, -1.0]), torch.tensor([1.0, -3.0])).tolist()
    [1.5, -4.0]
    """
    return (weight.square() - initial_weights.square()) / 2


@criteria(
    "magnitude-increase", needs=("initial_weights",), source="Zhou et al. 2019, arXiv:1905.01067",
    units="signed-sum", elementwise=True,
)  # fmt: skip
def magnitude_increase(weight: Tensor, initial_weights: Tensor) -> Tensor:
    """|w| - |w0|, growth since the start in the weight's unit; shape of `weight`; of a piece: the sum. Negative where a weight shrank.

    >>> magnitude_increase(torch.tensor([2.0, -1.0]), torch.tensor([1.0, -3.0])).tolist()
    [1.0, -2.0]
    """
    return weight.abs() - initial_weights.abs()


@criteria("lamp", source="Lee et al. 2021, arXiv:2010.07611, LAMP score", units="norm")
def lamp(weight: Tensor) -> Tensor:
    """w^2 over the sum of the squares of all weights of the layer that are not smaller, in [0, 1], float64; shape of `weight`.

    With allocation "global" this is layer-adaptive magnitude pruning. Equal weights rank by index, the earlier as the smaller.

    >>> lamp(torch.tensor([2.0, -1.0, 2.0])).tolist()
    [0.5, 0.1111111111111111, 1.0]
    """
    squares = weight.detach().double().square().flatten()
    ordered, order = squares.sort(stable=True)
    rest = ordered.flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(squares)
    scores[order] = torch.where(ordered > 0, ordered / rest, 0.0)
    return scores.view_as(weight)


@criteria("fpgm", needs=("out_dim",), source="He et al. 2019, arXiv:1811.00250, sec. 3.3", level="unit")
def fpgm(weight: Tensor, out_dim: int) -> Tensor:
    """Sum of the Euclidean distances from each unit's weights to those of all units of its layer, in the weight's unit, (units,) float64.

    The units nearest the geometric median, which the others can stand in for, score lowest.

    >>> fpgm(torch.tensor([[0.0], [1.0], [3.0]]), 0).tolist()
    [4.0, 3.0, 5.0]
    """
    rows = weight.detach().double().movedim(out_dim, 0).flatten(1)
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").sum(1)


@criteria("batchnorm-scale", needs=("norm_scales",), source="Liu et al. 2017, arXiv:1708.06519, sec. 3", level="unit")
def batchnorm_scale(weight: Tensor, norm_scales: Tensor) -> Tensor:
    """|gamma| of the normalisation right after the layer, unitless, (units,). Meant for networks trained with a penalty on gamma.

    >>> batchnorm_scale(torch.ones(2, 3), torch.tensor([-0.5, 0.1])).tolist() == [0.5, torch.tensor(0.1).item()]
    True
    """
    return norm_scales.abs()
