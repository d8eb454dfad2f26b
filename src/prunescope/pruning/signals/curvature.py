"""Signals from second derivatives of the loss: products of the Hessian with the gradient and with the weights, and its diagonal."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from prunescope.pruning.signals.calibration import Calibration, finite
from prunescope.pruning.signals.gradients import summed
from prunescope.pruning.targets import prunable
from prunescope.registry import signals
from prunescope.types import PruningError

EXACT = 1024  # weights up to which the diagonal is computed entry by entry
PROBES = 100


@signals("hessian_gradient", source="Wang et al. 2020, arXiv:2002.07376, eq. 8; product by Pearlmutter 1994")
def hessian_gradient(calibration: Calibration) -> dict[str, Tensor]:
    """H g of the mean loss over the whole calibration set, loss squared a cubed unit of weight; shape of each weight, float64.

    H and g run over all prunable weights of the model, those included that are exempt from pruning.
    """
    weights = list(prunable(calibration.model).values())
    g = summed(calibration, "hessian_gradient", lambda loss, w: torch.autograd.grad(loss, w, materialize_grads=True), weights)
    return _product(calibration, "hessian_gradient", weights, g)


@signals("hessian_weight", source="Molchanov et al. 2019, arXiv:1906.10771, sec. 3.1; product by Pearlmutter 1994")
def hessian_weight(calibration: Calibration) -> dict[str, Tensor]:
    """H w of the mean loss, loss a unit of weight; H and w run over all prunable weights; shape of each weight, float64."""
    weights = list(prunable(calibration.model).values())
    return _product(calibration, "hessian_weight", weights, [w.detach() for w in weights])


@signals("hessian_diagonal", needs=("generator",), source="Hutchinson probes: Bekas, Kokiopoulou & Saad 2007")
def hessian_diagonal(calibration: Calibration, *, probes: int | None = None) -> dict[str, Tensor]:
    """d2L/dw2 of the mean loss for each weight, loss a squared unit of weight; shape of each weight, float64.

    probes   None: exact, one backward pass a weight, for up to 1,024 weights in all, else 100 probes; a number: the mean of z * (H z)
             over that many random sign vectors z, unbiased, with variance (sum of squares in the row beside the diagonal) / probes
    """
    weights = [t.parameter for t in calibration.targets]
    exact = probes is None and sum(w.numel() for w in weights) <= EXACT
    if probes is not None and probes < 1:
        raise PruningError(f"probes = {probes}: expected at least 1, or None for the exact diagonal of a small network")
    found = summed(calibration, "hessian_diagonal", _exact_diagonal) if exact else _probed(calibration, weights, probes or PROBES)
    return finite("hessian_diagonal", {t.name: d for t, d in zip(calibration.targets, found, strict=True)})


def _product(
    calibration: Calibration, signal: str, weights: list[nn.Parameter], vectors: Sequence[Tensor]
) -> dict[str, Tensor]:
    found = summed(calibration, signal, functools.partial(_times, vectors=vectors), weights)
    by_tensor = {id(w): v for w, v in zip(weights, found, strict=True)}
    return finite(signal, {t.name: by_tensor[id(t.parameter)] for t in calibration.targets})


def _times(loss: Tensor, weights: list[nn.Parameter], vectors: Sequence[Tensor]) -> Sequence[Tensor]:
    """The Hessian of `loss` times `vectors`; zeros where the gradient does not depend on the weights."""
    first = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
    along = sum(((g * v.to(g)).sum() for g, v in zip(first, vectors, strict=True)), loss.new_zeros(()))
    if not along.requires_grad:
        return [torch.zeros_like(w) for w in weights]
    return torch.autograd.grad(along, weights, materialize_grads=True)


def _exact_diagonal(loss: Tensor, weights: list[nn.Parameter]) -> list[Tensor]:
    first = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
    found = []
    for g, w in zip(first, weights, strict=True):
        entries = g.flatten()
        values = torch.zeros(w.numel(), dtype=w.dtype, device=w.device)
        if entries.requires_grad:
            for i in range(w.numel()):
                values[i] = torch.autograd.grad(entries[i], w, retain_graph=True, materialize_grads=True)[0].flatten()[i]
        found.append(values.view_as(w))
    return found


def _probed(calibration: Calibration, weights: list[nn.Parameter], probes: int) -> list[Tensor]:
    sums = [torch.zeros_like(w, dtype=torch.float64) for w in weights]
    for _ in range(probes):
        signs = [_signs(w, calibration.generator) for w in weights]
        products = summed(calibration, "hessian_diagonal", functools.partial(_times, vectors=signs))
        sums = [s + z * p for s, z, p in zip(sums, signs, products, strict=True)]
    return [s / probes for s in sums]


def _signs(weight: Tensor, generator: torch.Generator | None) -> Tensor:
    return (torch.randint(0, 2, weight.shape, generator=generator) * 2 - 1).to(weight.device, torch.float64)
