"""Dynamic sparse training: some weights are dropped, as many grow elsewhere in the same layer, and the sparsity stays what it is."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Generator, Tensor, nn

from prunescope.pruning.select import smallest
from prunescope.types import PruningError

WAYS = {
    "set": "Mocanu et al. 2018, arXiv:1707.04780: the smallest go, random ones grow",
    "rigl": "Evci et al. 2020, arXiv:1911.11134, alg. 1: the smallest go, those with the largest gradient grow",
}


def exchanged_share(way: str, fraction: float, position: float) -> float:
    """The share of a layer's kept weights that are exchanged at `position` (0 to 1) of the training.

    "set": always `fraction`. "rigl": fraction / 2 * (1 + cos(pi * position)), eq. 1 of Evci et al. 2020.

    >>> exchanged_share("rigl", 0.3, 0.0), round(exchanged_share("rigl", 0.3, 0.5), 12), exchanged_share("set", 0.3, 0.5)
    (0.3, 0.15, 0.3)
    """
    return fraction if way == "set" else fraction / 2 * (1 + math.cos(math.pi * min(1.0, position)))


def exchange(weight: Tensor, mask: Tensor, count: int, wish: Tensor) -> Tensor:
    """The mask after the `count` smallest kept weights went and the `count` most wished for grew; as many are kept as before.

    weight, mask, wish   of one shape; a weight that goes may be among those that grow again at once, and then stays what it was

    >>> w, m = torch.tensor([3.0, 1.0, 0.0, 0.0]), torch.tensor([True, True, False, False])
    >>> exchange(w, m, 1, torch.tensor([9.0, 0.0, 1.0, 2.0])).tolist()
    [True, False, False, True]
    """
    sizes = weight.detach().float().abs().masked_fill(~mask, math.inf)
    remaining = mask & ~smallest(sizes.flatten(), count).view_as(mask)
    order = (-wish.detach().float()).masked_fill(remaining, math.inf)
    return remaining | smallest(order.flatten(), count).view_as(mask)


def wish(way: str, name: str, parameter: nn.Parameter, generator: Generator) -> Tensor:
    """How much each weight is wished for: random numbers ("set") or the size of its gradient ("rigl"); shape of the weight."""
    if way == "set":
        return torch.rand(parameter.shape, generator=generator).to(parameter.device)
    if parameter.grad is None:
        raise PruningError(
            f"{name} has no gradient to grow by: let the optimiser's hook count the steps, or call pruner.step() after optimizer.step() "
            "and before zero_grad()"
        )
    slope = parameter.grad.detach().abs()
    if bool(slope.isnan().any()):
        raise PruningError(
            f"{int(slope.isnan().sum())} of {slope.numel()} gradients of {name} are NaN: nothing can grow by them; "
            "lower the learning rate or clip the gradients"
        )
    return slope


@torch.no_grad()
def forget(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, places: Tensor) -> None:
    """Set what `optimizer` remembers of the entries `places` (momentum, second moments) to zero: they start anew."""
    for value in _remembered(optimizer, parameter):
        value.masked_fill_(places, 0.0)


def _remembered(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> Iterable[Tensor]:
    known = optimizer.state.get(parameter, {})
    return [v for v in known.values() if isinstance(v, Tensor) and v.shape == parameter.shape and v.is_floating_point()]
