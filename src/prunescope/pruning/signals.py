"""Signals: costly quantities that criteria need (gradients, activations, ...), computed once for all of them over a stated calibration set.

A signal is a function of the `Calibration` that returns one tensor (or record) for each target, by the target's name. It sums over the
batches and divides by the count once, in float64 where sums are long, and leaves the model as it found it, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Generator, Tensor, nn

from prunescope.pruning.targets import Target
from prunescope.registry import signals
from prunescope.types import PruningError

LossFunction = Callable[[Tensor, Tensor], Tensor]
Batch = tuple[Any, Tensor]


@dataclass(frozen=True)
class Calibration:
    """What signals are computed from.

    model, targets   the network and the weights that are scored
    batches          the calibration set: a sequence of (inputs, labels); None where the caller brought no data
    loss_fn          (outputs, labels) -> the mean loss of a batch
    generator        for the criteria and signals that draw
    """

    model: nn.Module
    targets: Sequence[Target]
    batches: Sequence[Batch] | None = None
    loss_fn: LossFunction | None = None
    generator: Generator | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def data(self, wanted_by: str) -> Iterable[Batch]:
        """The calibration batches, or an error that says who needs them."""
        if not self.batches:
            raise PruningError(f"{wanted_by} needs calibration data and none came: pass data=[(inputs, labels), ...] or a loader")
        return self.batches


def compute(names: Iterable[str], calibration: Calibration) -> dict[str, Mapping[str, Any]]:
    """The signals called `names`, each by target name, computed once."""
    return {name: signals.get(name).function(calibration) for name in dict.fromkeys(names)}


@signals("generator", source="a seeded stream of random numbers")
def generator(calibration: Calibration) -> dict[str, Any]:
    """The seeded generator, no unit; one stream for all targets, drawn from in their order."""
    return dict.fromkeys((t.name for t in calibration.targets), calibration.generator)
