"""Criteria of a layer's output error, from its inputs: Wanda and SparseGPT."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from prunescope.pruning.signals.inputs import Moments
from prunescope.pruning.solvers import damped_inputs, layerwise_surgeon
from prunescope.registry import criteria


@criteria("wanda", needs=("input_norms",), source="Sun et al. 2024, arXiv:2306.11695, eq. 1", units="norm", compare="row")
def wanda(weight: Tensor, input_norms: Tensor, *, compare: Literal["row", "layer"] = "row") -> Tensor:
    """|w| times the L2 norm of the input feature that it multiplies, in the output's unit; shape of `weight`, float64.

    compare   "row": every output unit loses its share (the paper's), where pieces lie within rows; counts of rows differ by at most one
              to meet the layer's exactly. "layer": one ranking a layer

    >>> wanda(torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 0.5]])).tolist()
    [[3.0, 1.0]]
    """
    return weight.abs() * input_norms


@criteria(
    "sparsegpt", needs=("input_moments",), source="Frantar & Alistarh 2023, arXiv:2301.00774, algorithm 1",
    units="signed-sum", solver=layerwise_surgeon,
)  # fmt: skip
def sparsegpt(
    weight: Tensor, input_moments: Moments, *, damping: float = 0.01, columns: int = 128, update: bool = True
) -> Tensor:
    """w^2 / [H^-1], H = X X^T of the layer's inputs: the layer's squared output error when one weight goes; shape of `weight`, float64.

    damping   H + damping x (mean of its diagonal) x identity is inverted; features that were always 0 score 0
    columns   width of the blocks in which weights are chosen anew with the kept ones already adapted, and updates are gathered
    update    the kept weights of each row make up for the removed ones: the model's kept weights change. False: scores alone

    Layers are handled with the inputs that the dense network gives them.

    >>> moments = Moments(torch.tensor([[[2.0, 0.0], [0.0, 8.0]]]), 1, torch.Size([1, 2]))
    >>> sparsegpt(torch.tensor([[3.0, 1.0]]), moments, damping=0.0).tolist()
    [[18.0, 8.0]]
    """
    hessian, dead = damped_inputs(input_moments.sums, damping)
    inverse = torch.linalg.inv(hessian).diagonal(dim1=-2, dim2=-1)
    return weight.double().square() * input_moments.weight(torch.where(dead, 0.0, 1 / inverse)[:, None])
