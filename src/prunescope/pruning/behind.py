"""Weights behind their masks: a dense copy that goes on learning while the model computes with the masked weights.

    outside the optimiser's step    the model holds masked weights: what runs, is evaluated and saved is what the masks say
    inside it                       the model holds the dense ones, which take the gradient of the masked network (straight-through)
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from prunescope.pruning.masks import Masks
from prunescope.types import PruningError


class Behind:
    """The dense values of the parameters that have a mask, by name."""

    def __init__(self) -> None:
        self._live: list[nn.Parameter] = []
        self._dense: dict[str, Tensor] = {}
        self._noted: dict[str, Tensor] = {}

    @torch.no_grad()
    def show(self) -> None:
        """The model's parameters take their dense values."""
        if self._live:
            torch._foreach_copy_(_data(self._live), list(self._dense.values()))

    @torch.no_grad()
    def keep(self) -> None:
        """The dense values become what the parameters are now."""
        if self._live:
            torch._foreach_copy_(list(self._dense.values()), _data(self._live))

    def note(self, model: nn.Module) -> None:
        """Remember all dense values of `model`, before masks are chosen that nobody knows yet."""
        self._noted = {n: p.detach().clone() for n, p in model.named_parameters()}

    def cover(self, masks: Masks) -> None:
        """From now on the parameters of `masks` have dense values: those of now where they are kept, those that were noted elsewhere."""
        parameters = masks.parameters()
        self._dense = {n: torch.where(m.to(parameters[n].device), parameters[n].detach(), self._noted[n]) for n, m in masks.items()}
        self._live, self._noted = list(parameters.values()), {}

    def state_dict(self) -> dict[str, Tensor]:
        """The dense values by name."""
        return {n: v.clone() for n, v in self._dense.items()}

    def load_state_dict(self, state: Mapping[str, Tensor], masks: Masks) -> None:
        """Dense values that `state_dict` gave, for parameters that have a mask."""
        parameters = masks.parameters()
        for name, p in parameters.items():
            if name not in state or state[name].shape != p.shape:
                raise PruningError(f"the state holds no weights of shape {tuple(p.shape)} behind the mask {name!r}")
        self._dense = {n: state[n].detach().to(p.device, p.dtype, copy=True) for n, p in parameters.items()}
        self._live = list(parameters.values())


def _data(parameters: list[nn.Parameter]) -> list[Tensor]:
    return [p.detach() for p in parameters]
