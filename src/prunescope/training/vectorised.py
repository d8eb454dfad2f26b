"""Any module, many times at once: torch.func's vmap over stacked parameters, for networks that are no plain perceptrons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from prunescope.measures.quality import loss_function
from prunescope.training.flat import FlatParameters


class VectorisedNetworks:
    """r networks of one architecture by `vmap`; the same interface as StackedPerceptrons."""

    def __init__(self, model: nn.Module, loss: str, flat: FlatParameters, sample_shape: tuple[int, ...]) -> None:
        self._flat, self._shape = flat, sample_shape
        loss_of = loss_function(loss)

        def mean_loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return loss_of(functional_call(model, weights, (x,)), y)

        self._differentiated: Callable[..., Any] = vmap(grad_and_value(mean_loss))
        self._losses: Tensor | None = None

    def backward(self, x: Tensor, target: Tensor) -> None:
        """Write each network's gradient of its mean loss; `x` (r, n, features), `target` (r, n) class numbers."""
        gradients, self._losses = self._differentiated(self._flat.weights, x.reshape(*x.shape[:2], *self._shape), target)
        torch._foreach_copy_([self._flat.gradients[n] for n in gradients], list(gradients.values()))

    def losses(self) -> Tensor:
        """Each network's mean loss on the batch of the last `backward`, shape (r,)."""
        assert self._losses is not None, "backward comes first"
        return self._losses
