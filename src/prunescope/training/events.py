"""The six events of training, and who hears them.

    start
    for epoch in epochs:
        epoch_start
        for batch in batches:
            forward and backward
            gradients              gradients are there, the step is not yet taken
            optimiser step         masks act here, as a hook of the optimiser
            step
        epoch_end
    end

A listener is any object with methods of some of these names, each taking the `State`. Actors (pruning schedules) may change the
state; observers (recorders, progress bars) only look. Listeners are called in the order given.

A listener that keeps something from one epoch to the next says so by two methods, for a training that is put down and taken up again
between two epochs: `memory() -> dict[str, Tensor]` and `remember(dict)`, which is called before `start`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.config import TrainingConfig
from prunescope.types import ConfigError

EVENTS = ("start", "epoch_start", "gradients", "step", "epoch_end", "end")


@dataclass
class State:
    """What listeners see: `epoch` epochs and `steps` optimiser steps are done; `loss` is the last batch's, as a tensor."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    settings: TrainingConfig
    phase: str
    epoch: int = 0
    steps: int = 0
    loss: Tensor | None = None
    stop: bool = False

    def optimizer_numbers(self) -> dict[str, dict[str, Any]]:
        """What the optimiser keeps of each parameter (momentum, moments, steps), by the parameter's name."""
        kept = self.optimizer.state
        return {name: dict(kept[p]) for name, p in self.model.named_parameters() if p in kept}


def handlers(listeners: Sequence[Any]) -> dict[str, list[Callable[[State], None]]]:
    """The methods to call for each event; an object that hears none of them is an error."""
    for listener in listeners:
        if not any(callable(getattr(listener, e, None)) for e in EVENTS):
            raise ConfigError(f"{type(listener).__name__} hears none of the events {', '.join(EVENTS)}: give it a method of such a name")
    return {e: [getattr(x, e) for x in listeners if callable(getattr(x, e, None))] for e in EVENTS}
