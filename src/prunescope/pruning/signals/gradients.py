"""Signals from first derivatives of the loss: the mean gradient, its square a sample, and the block Fisher matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from prunescope.pruning.signals.calibration import Batch, Calibration, count, finite, forward, mapped, rows, tensors, undisturbed
from prunescope.registry import signals
from prunescope.types import PruningError

NUMBERS = 2**24  # values of per-sample gradients held at once


@signals("gradient", source="the mean gradient of the loss over the calibration set")
def gradient(calibration: Calibration) -> dict[str, Tensor]:
    """dL/dw of the mean loss, in loss a unit of weight; shape of each weight, float64.

    Weights that take no part in the loss have gradient 0. Errors: no data, a loss that is no number, NaN or infinite gradients.
    """
    names = [t.name for t in calibration.targets]
    sums = summed(calibration, "gradient", lambda loss, w: torch.autograd.grad(loss, w, materialize_grads=True))
    return finite("gradient", dict(zip(names, sums, strict=True)))


def summed(
    calibration: Calibration,
    signal: str,
    function: Callable[[Tensor, list[nn.Parameter]], Any],
    weights: list[nn.Parameter] | None = None,
) -> list[Tensor]:
    """The mean over all samples, float64, of what `function(loss of a batch, weights)` gives, one tensor for each weight.

    `weights` are the targets' unless others are given. Batches count with their samples, so that any chunking gives the same mean.
    """
    wanted = [t.parameter for t in calibration.targets] if weights is None else weights
    sums: list[Tensor] = []
    total = 0
    with undisturbed(calibration) as model, torch.enable_grad():
        for batch in calibration.chunks(f"signal {signal!r}"):
            n = count(batch)
            loss = calibration.loss(forward(model, batch[0]), batch[1])
            parts = [p.detach().double() * n for p in function(loss, wanted)] if loss.requires_grad else []
            parts = parts or [torch.zeros_like(w, dtype=torch.float64) for w in wanted]
            sums = [s + p for s, p in zip(sums, parts, strict=True)] if sums else parts
            total += n
    return [s / total for s in sums]


@signals("squared_gradient", source="diagonal empirical Fisher: Singh & Alistarh 2020, arXiv:2004.14340, empirical Fisher")
def squared_gradient(calibration: Calibration) -> dict[str, Tensor]:
    """Mean over the samples of (dL_n/dw)^2, loss squared a squared unit of weight; shape of each weight, float64."""
    sums: dict[str, Tensor] = {}
    total = 0
    for part in per_sample_gradients(calibration, "squared_gradient"):
        total += len(next(iter(part.values())))
        for name, g in part.items():
            square = g.double().square().sum(0)
            sums[name] = sums[name] + square if name in sums else square
    return finite("squared_gradient", {name: s / total for name, s in sums.items()})


@signals("block_fisher", source="Singh & Alistarh 2020, arXiv:2004.14340, empirical Fisher in blocks")
def block_fisher(calibration: Calibration, *, block: int = 50) -> dict[str, Tensor]:
    """Mean over the samples of g g^T within blocks of `block` weights in index order, loss squared a squared unit of weight.

    (blocks, block, block) float64, the last block padded by 0. Memory: 8 bytes x weights x block.
    """
    if block < 1:
        raise PruningError(f"block = {block}: expected at least one weight")
    sums: dict[str, Tensor] = {}
    total = 0
    for part in per_sample_gradients(calibration, "block_fisher"):
        total += len(next(iter(part.values())))
        for name, g in part.items():
            padded = blocks_of(g.double().flatten(1), block)
            product = torch.einsum("nbi,nbj->bij", padded, padded)
            sums[name] = sums[name].add_(product) if name in sums else product
    return finite("block_fisher", {name: s / total for name, s in sums.items()})


def blocks_of(values: Tensor, block: int) -> Tensor:
    """(..., n) as (..., ceil(n / block), block), zeros at the end of the last.

    >>> blocks_of(torch.tensor([1, 2, 3]), 2).tolist()
    [[1, 2], [3, 0]]
    """
    short = -values.shape[-1] % block
    padded: Tensor = nn.functional.pad(values, (0, short)).unflatten(-1, (-1, block))
    return padded


def per_sample_gradients(calibration: Calibration, signal: str) -> Iterator[dict[str, Tensor]]:
    """The gradients of single samples' losses in parts: target -> (samples, *shape of the weight).

    Samples lie along the first dimension of inputs and labels. By torch.func.vmap where the model's operations allow it, else one by one.
    """
    width = sum(t.parameter.numel() for t in calibration.targets)
    size = max(1, min(128, NUMBERS // width))
    alone = any(isinstance(m, nn.RNNBase) for m in calibration.model.modules())  # vmap has no rule for the recurrent kernels
    with undisturbed(calibration) as model, torch.enable_grad():
        for batch in calibration.chunks(f"signal {signal!r}", size):
            lengths = {len(t) for t in tensors(batch) if t.ndim}
            if len(lengths) > 1:
                raise PruningError(f"signal {signal!r} needs samples along the first dimension; inputs and labels have {sorted(lengths)}")
            if not alone:
                try:
                    yield _together(calibration, model, batch)
                    continue
                except (RuntimeError, NotImplementedError):
                    alone = True  # an operation without a batching rule: the same numbers, only slower
            yield _one_by_one(calibration, model, batch)


def _together(calibration: Calibration, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    weights = {t.name: t.parameter.detach() for t in calibration.targets}

    def loss(values: Mapping[str, Tensor], *sample: Tensor) -> Tensor:
        order = iter(sample)
        inputs, labels = mapped(batch, lambda t: next(order)[None] if t.ndim else t)
        keywords = inputs if isinstance(inputs, Mapping) else {}
        arguments = () if keywords else tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
        return calibration.loss(functional_call(model, dict(values), arguments, dict(keywords)), labels)

    samples = [t for t in tensors(batch) if t.ndim]
    made: dict[str, Tensor] = vmap(grad(loss), in_dims=(None, *([0] * len(samples))))(weights, *samples)
    return made


def _one_by_one(calibration: Calibration, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    weights = [t.parameter for t in calibration.targets]
    parts = []
    for i in range(count(batch)):
        inputs, labels = rows(batch, slice(i, i + 1))
        loss = calibration.loss(forward(model, inputs), labels)
        parts.append(torch.autograd.grad(loss, weights, materialize_grads=True))
    return {t.name: torch.stack([p[i] for p in parts]) for i, t in enumerate(calibration.targets)}
