"""The parameters of several networks of one architecture in one buffer: one optimiser call, one product with the masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.dlpack import from_dlpack

from prunescope.pruning.masks import Masks


class FlatParameters:
    """Weights of r networks side by side, and their gradients.

    `values` and `slopes` are (total,); `weights[name]` and `gradients[name]` are their views of shape (r, *shape). While the
    parameters are lent, each network's own nn.Parameters are views too: whoever looks at, saves or changes a network sees and
    changes what is being trained, and nothing is copied.
    """

    def __init__(self, models: Sequence[nn.Module], masks: Sequence[Masks | None]) -> None:
        self._owners = [dict(m.named_parameters()) for m in models]
        first, r = self._owners[0], len(models)
        like = next(iter(first.values()))
        total = r * sum(p.numel() for p in first.values())
        self.values = torch.empty(total, dtype=like.dtype, device=like.device)
        self.slopes = torch.zeros_like(self.values)
        self.weights = self.views(self.values)
        self.gradients = self.views(self.slopes)
        self.parameter = nn.Parameter(self.values)
        self.parameter.grad = self.slopes
        self._keep = self._float_masks(masks)
        self._own: list[dict[str, Tensor]] = [{n: p.data for n, p in owner.items()} for owner in self._owners]

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """A buffer laid out like `values`, by parameter: name -> (r, *shape)."""
        r = len(self._owners)
        shapes = {n: p.shape for n, p in self._owners[0].items()}
        parts = flat.split([r * shape.numel() for shape in shapes.values()])
        return {n: part.view(r, *shape) for (n, shape), part in zip(shapes.items(), parts, strict=True)}

    def parts(self, kept: Mapping[str, Any], i: int) -> dict[str, dict[str, Any]]:
        """What is kept of the whole buffer as what is kept of network i's parameters: name -> key -> its part, or the one number of all."""
        views = {k: self.views(v) for k, v in kept.items() if isinstance(v, Tensor) and v.shape == self.values.shape}
        return {n: {k: views[k][n][i] if k in views else v for k, v in kept.items()} for n in self.weights}

    def joined(self, parts: Sequence[Mapping[str, Mapping[str, Tensor]]]) -> dict[str, Tensor]:
        """The reverse of `parts`, from those of every network."""
        first = parts[0]
        found: dict[str, Tensor] = {}
        for key in next(iter(first.values()), {}):
            if any(first[n][key].shape != w.shape[1:] for n, w in self.weights.items()):
                found[key] = next(iter(first.values()))[key]
                continue
            found[key] = torch.empty_like(self.values)
            for name, view in self.views(found[key]).items():
                for i, own in enumerate(parts):
                    view[i].copy_(own[name][key])
        return found

    def _float_masks(self, masks: Sequence[Masks | None]) -> Tensor | None:
        if all(m is None or all(bool(v.all()) for v in m.values()) for m in masks):
            return None
        keep = torch.ones_like(self.values)
        views = self.views(keep)
        for i, own in enumerate(masks):
            for name, mask in (own or {}).items():
                views[name][i].copy_(mask)
        return keep

    @torch.no_grad()
    def lend(self) -> None:
        """Take over the networks' values and make their parameters and gradients views of ours."""
        for i, owner in enumerate(self._owners):
            for name, p in owner.items():
                view = self.weights[name][i]
                view.copy_(p.data)
                # by way of DLPack each view has a storage of its own size, so that saving or copying a network takes no more than it
                p.data = from_dlpack(view)
                p.grad = from_dlpack(self.gradients[name][i])
        self.mask()

    def mask(self) -> None:
        """Masked values become exactly zero; an infinite one becomes NaN and stays visible."""
        if self._keep is not None:
            self.values.mul_(self._keep)

    def give_back(self, i: int) -> None:
        """Network i owns its parameters again, with the values of now; nothing happens the second time."""
        for name, own in self._own[i].items():
            p = self._owners[i][name]
            own.copy_(p.data)
            p.data, p.grad = own, None
        self._own[i] = {}
