"""Criteria that estimate how the loss changes when weights go: Taylor expansions, optimal brain damage and surgeon."""

from __future__ import annotations

import torch
from torch import Tensor

from prunescope.pruning.signals.gradients import blocks_of
from prunescope.pruning.solvers import damped, surgeon
from prunescope.registry import criteria


@criteria(
    "taylor", needs=("gradient",), source="Molchanov et al. 2019, arXiv:1906.10771, sec. 3.1, first order",
    units="squared-sum", elementwise=True,
)  # fmt: skip
def taylor(weight: Tensor, gradient: Tensor) -> Tensor:
    """w dL/dw, the first-order change of the loss; of a piece the square of the sum over all its weights, in squared units of loss.

    Shape of `weight`; g is the mean over the calibration set.

    >>> taylor(torch.tensor([2.0, 3.0]), torch.tensor([0.5, -2.0])).tolist()
    [1.0, -6.0]
    """
    return weight * gradient


@criteria(
    "taylor-second", needs=("gradient", "hessian_weight"), source="Molchanov et al. 2019, arXiv:1906.10771, sec. 3.1, second order",
    units="squared-sum", elementwise=True,
)  # fmt: skip
def taylor_second(weight: Tensor, gradient: Tensor, hessian_weight: Tensor) -> Tensor:
    """w g - w (H w) / 2, as the paper writes the second-order change; of a piece the square of the sum, in squared units of loss.

    Shape of `weight`. H w runs over all prunable weights, so that weights are not taken to go one at a time.

    >>> taylor_second(torch.tensor([2.0]), torch.tensor([0.5]), torch.tensor([3.0])).tolist()
    [-2.0]
    """
    return weight * gradient - weight * hessian_weight / 2


@criteria("obd", needs=("hessian_diagonal",), source="LeCun, Denker & Solla 1989, saliency h u^2 / 2", units="signed-sum", elementwise=True)
def obd(weight: Tensor, hessian_diagonal: Tensor) -> Tensor:
    """w^2 h / 2, h the diagonal of the Hessian: change of the loss at a minimum, in units of loss; shape of `weight`; summed over a piece.

    h is the true second derivative, which may be negative (the paper drops that part); such weights go first.

    >>> obd(torch.tensor([2.0, 3.0]), torch.tensor([0.5, -2.0])).tolist()
    [1.0, -9.0]
    """
    return weight.square() * hessian_diagonal / 2


@criteria(
    "obs-diagonal", needs=("squared_gradient",), source="Hassibi & Stork 1992, eq. 5, with the diagonal empirical Fisher",
    units="signed-sum", elementwise=True,
)  # fmt: skip
def obs_diagonal(weight: Tensor, squared_gradient: Tensor) -> Tensor:
    """w^2 F / 2 with F the mean squared gradient of single samples: w^2 / (2 [F^-1]) for a diagonal F; shape of `weight`.

    In units of loss where F stands for the Hessian. A diagonal leaves nothing for the other weights to make up.

    >>> obs_diagonal(torch.tensor([2.0, 3.0]), torch.tensor([0.5, 2.0])).tolist()
    [1.0, 9.0]
    """
    return weight.square() * squared_gradient / 2


@criteria(
    "obs-block", needs=("block_fisher",), source="Singh & Alistarh 2020, arXiv:2004.14340, pruning statistic; Hassibi & Stork 1992, eq. 5",
    units="signed-sum", solver=surgeon,
)  # fmt: skip
def obs_block(weight: Tensor, block_fisher: Tensor, *, damping: float = 0.01, update: bool = True) -> Tensor:
    """w^2 / (2 [F^-1]) with the inverse of the block Fisher matrix, in units of loss; shape of `weight`, float64; summed over a piece.

    block     weights a block of F has, in index order (an option of the signal)
    damping   F + damping x (mean of its diagonal) x identity is inverted; weights that are exactly 0 are left out of F
    update    after selection the kept weights of each block make up for the removed ones together (Kurtic et al. 2022, arXiv:2203.07259,
              group update), instead of one by one: the model's kept weights change

    >>> fisher = torch.tensor([[[2.0, 1.0], [1.0, 2.0]]], dtype=torch.float64)  # its inverse has 2/3 on the diagonal
    >>> [round(v, 12) for v in obs_block(torch.tensor([1.0, 2.0]), fisher, damping=0.0).tolist()]
    [0.75, 3.0]
    """
    block = block_fisher.shape[-1]
    flat = weight.detach().double().flatten()
    inverse: Tensor = torch.linalg.inv(damped(block_fisher, blocks_of(flat, block) != 0, damping))
    diagonal = inverse.diagonal(dim1=-2, dim2=-1).flatten()[: flat.numel()]
    scores: Tensor = flat.square() / (2 * diagonal)
    return scores.view_as(weight)
