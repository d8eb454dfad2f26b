"""Groups: pieces that can be removed, with every tensor that each of them covers.

A granularity makes groups. Within one layer there is a group a layer, with the layer's weight and, for units, its bias and norm; pieces
that are coupled through the network (residual sums, attention heads) have a slot in several layers and are kept or removed in all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from prunescope.pruning.layouts import Layout, Spans, Whole
from prunescope.pruning.select import every
from prunescope.pruning.targets import Target


@dataclass(frozen=True)
class Slot:
    """One tensor's share of a group: its parameter's name, where the pieces lie in it, and whether it counts in the score.

    companion   True for a bias or an affine term of a norm, which goes with a unit only when the caller says so
    """

    parameter: str
    layout: Layout
    scored: bool = True
    companion: bool = False


@dataclass(frozen=True)
class Group:
    """Pieces of one kind: `name` (that of the first weight), how many, and their slots.

    unit       whether a piece is a unit's whole output, so that unit-wise criteria apply and companions go with it
    pattern    (n, m): of every m consecutive pieces exactly n are kept, whatever the budget; None: any may go
    members    groups of one piece each that are this group's pieces and are scored one by one: whole layers, in tensors of their own
    """

    name: str
    pieces: int
    slots: tuple[Slot, ...]
    unit: bool = False
    pattern: tuple[int, int] | None = None
    members: tuple[Group, ...] = ()

    @property
    def scored(self) -> list[Slot]:
        """The slots that count in the score."""
        return [s for s in self.slots if s.scored]


def layer_group(target: Target, layout: Layout, *, unit: bool = False, pattern: tuple[int, int] | None = None) -> Group:
    """The group of one layer: its weight, and for units the bias and norm that go with each."""
    slots = [Slot(target.name, layout)]
    if unit:
        slots += [Slot(name, Spans(()), scored=False, companion=True) for name in target.companions]
    return Group(target.name, len(layout.fold(target.parameter.detach())), tuple(slots), unit, pattern)


def gathered(name: str, members: Sequence[Group]) -> Group:
    """One group whose pieces are the `members`, groups of one piece each that covers its tensors wholly."""
    slots = tuple(replace(s, layout=Whole(i, len(members))) for i, m in enumerate(members) for s in m.slots)
    return Group(name, len(members), slots, members=tuple(members))


def masks_of(
    groups: Sequence[Group], kept: Mapping[str, Tensor], model: nn.Module, *, companions: bool
) -> dict[str, Tensor]:
    """The masks (True = kept) of all tensors that `groups` cover, from what is kept of each group (pieces,).

    An entry that several pieces cover (a weight between a removed input and a kept output) goes when any of them goes.
    """
    shapes = {n: p.shape for n, p in model.named_parameters(remove_duplicate=False)}
    found: dict[str, Tensor] = {}
    for group in groups:
        pieces = kept[group.name]
        untouched = every(pieces)  # then only the weights are named
        for slot in group.slots:
            if (untouched and not slot.scored) or (slot.companion and not companions):
                continue
            mask = slot.layout.expand(pieces, torch.Size(shapes[slot.parameter]))
            found[slot.parameter] = found[slot.parameter] & mask if slot.parameter in found else mask
    return found
