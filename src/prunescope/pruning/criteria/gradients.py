"""Criteria of gradients and their flow: gradient magnitude, SNIP, GraSP, SynFlow."""

from __future__ import annotations

import torch
from torch import Tensor

from prunescope.registry import criteria


@criteria(
    "gradient", needs=("gradient",), source="|dL/dw|: LeCun et al. 1989; as a growth rule Evci et al. 2020, arXiv:1911.11134",
    elementwise=True,
)  # fmt: skip
def gradient(weight: Tensor, gradient: Tensor) -> Tensor:
    """Size of the mean gradient, loss a unit of weight; shape of `weight`.

    >>> gradient(torch.ones(2), torch.tensor([0.5, -2.0])).tolist()
    [0.5, 2.0]
    """
    return gradient.abs()


@criteria("snip", needs=("gradient",), source="Lee, Ajanthan & Torr 2019, arXiv:1810.02340, eq. 4 and 5", elementwise=True)
def snip(weight: Tensor, gradient: Tensor) -> Tensor:
    """|w dL/dw|, connection sensitivity in units of loss; shape of `weight`. Not divided by the sum, which changes no ranking.

    Meant for allocation "global" at initialisation.

    >>> snip(torch.tensor([2.0, 3.0]), torch.tensor([0.5, -2.0])).tolist()
    [1.0, 6.0]
    """
    return (weight * gradient).abs()


@criteria(
    "grasp", needs=("hessian_gradient",), source="Wang, Zhang & Grosse 2020, arXiv:2002.07376, eq. 8",
    units="signed-sum", elementwise=True,
)  # fmt: skip
def grasp(weight: Tensor, hessian_gradient: Tensor) -> Tensor:
    """w (H g), loss squared a squared unit of weight; shape of `weight`, signed: half of what |g|^2 loses when a weight goes.

    The paper's score with its sign turned, so that what raises the gradient flow by going goes first. The authors' program divides the
    logits by 200 first; a loss_fn can do so here. Meant for allocation "global" at initialisation.

    >>> grasp(torch.tensor([2.0, 3.0]), torch.tensor([0.5, -2.0])).tolist()
    [1.0, -6.0]
    """
    return weight * hessian_gradient


@criteria(
    "synflow", needs=("synaptic_flow",), source="Tanaka et al. 2020, arXiv:2006.05467, algorithm 1",
    units="signed-sum", rounds=100, elementwise=True,
)  # fmt: skip
def synflow(weight: Tensor, synaptic_flow: Tensor, *, rounds: int = 100) -> Tensor:
    """|w| dR/d|w|, the share of synaptic flow through a weight, unitless; shape of `weight`, float64. Needs example_inputs, no labels.

    rounds   `prune` scores and prunes this many times, keeping (1 - sparsity)^(k / rounds) after round k; 1 is one shot
    Meant for allocation "global" at initialisation: flow is conserved from layer to layer, so no layer is emptied early.

    >>> synflow(torch.tensor([-2.0, 3.0]), torch.tensor([0.5, 2.0])).tolist()
    [1.0, 6.0]
    """
    return torch.mul(weight.abs(), synaptic_flow)
