"""What to mask in a network of the zoo, and how many parameters the masks make removable, counted without removing anything.

A *piece* is a coupled set of channels (`prunescope.pruning.couple`): the slices of the weights that compute it, of the biases and affine
terms that go with it (its own), and of the weights that take it as an input. Masks come in three extents:

whole     own slices and what takes them: what `ps.prune(granularity="channel")` masks
units     own slices alone: a removed unit still emits what its activation makes of zero, and later layers take it
weights   the weights that compute it alone: a removed unit emits a constant made of its bias and its norms

`removable` counts the masked entries of every piece whose own slices are all masked. It is a lower bound that needs no compacting: such a
piece carries no information, whatever its neighbours do. It counts no entry that is not masked (of the extent `units` the inputs of the
next layers, which folding a constant frees too), no entry twice, no buffer, and no single zeros.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

import prunescope as ps
from prunescope.pruning.coupling import Coupling, Family, Part
from prunescope.pruning.layouts import Parts

FRACTIONS, CRITERIA, EXTENTS = (0.3, 0.5, 0.9), ("magnitude", "random"), ("whole", "units", "weights")


def masks_for(model: nn.Module, coupling: Coupling, fraction: float, criterion: str, extent: str = "whole", seed: int = 0) -> ps.Masks:
    """Masks of `fraction` of the pieces of every layer (at least one piece of each is left); `model` stays as it is."""
    whole = ps.prune(
        copy.deepcopy(model), sparsity=fraction, granularity="channel", criterion=criterion, example_inputs=coupling, seed=seed,
        options={"least": 1},
    )  # fmt: skip
    if extent == "whole":
        return ps.Masks(dict(whole))
    shapes = {n: p.shape for n, p in model.named_parameters()}
    found: dict[str, Tensor] = {}
    for family in coupling.families:
        gone = _gone(family, whole, shapes)
        for part in _parts(family):
            if not gone.any() or part.roles == {"consumer"} or (extent == "weights" and "producer" not in part.roles):
                continue
            mask = Parts(part.dim, part.index).expand(~gone, shapes[part.tensor])
            found[part.tensor] = found.get(part.tensor, torch.ones_like(mask)) & mask
    return ps.Masks(found)


def removable(model: nn.Module, coupling: Coupling, masks: ps.Masks) -> int:
    """How many of the model's parameters belong to pieces whose own slices are wholly masked, and are masked themselves."""
    shapes = {n: p.shape for n, p in model.named_parameters()}
    found = {n: torch.zeros(masks[n].shape, dtype=torch.bool) for n in masks}
    for family in coupling.families:
        gone = _gone(family, masks, shapes)
        for part in _parts(family):
            if part.tensor in masks and gone.any():
                found[part.tensor] |= ~Parts(part.dim, part.index).expand(~gone, shapes[part.tensor])
    return sum(int((found[n] & ~masks[n]).sum()) for n in masks)


def masked(model: nn.Module, masks: ps.Masks) -> nn.Module:
    """A copy of the model with the masked values at zero."""
    made = copy.deepcopy(model)
    ps.Masks(dict(masks)).apply(made)
    return made


def _gone(family: Family, masks: ps.Masks, shapes: dict[str, torch.Size]) -> Tensor:
    """Which pieces (pieces,) of the family have nothing left in their own slices."""
    gone = torch.ones(family.pieces, dtype=torch.bool)
    for part in _parts(family):
        if part.roles == {"consumer"}:
            continue
        if part.tensor not in masks:
            return torch.zeros_like(gone)
        gone &= ~Parts(part.dim, part.index).fold(masks[part.tensor]).any(1)
    return gone


def _parts(family: Family) -> Iterator[Part]:
    return (p for p in family.parts if p.parameter)
