"""Trainings in which masks change: pruned little by little, or sparse all along with weights that are exchanged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from prunescope.experiments.execution import Execution, Steps
from prunescope.pruning import Masks, Pruner, prune
from prunescope.training import State
from prunescope.training.loop import steps_per_epoch


def changing_masks(work: Execution) -> Steps[Masks]:
    """The training of a trial with prune.when = "during" or "dynamic", and the masks at its end."""
    dynamic = work.config.prune.when == "dynamic"
    assert work.trial.sparsity is not None, "sweep gives levels to these variants"
    masks = None
    if dynamic:
        work.recorder.state_after("train", None)
        masks = prune(work.model, sparsity=work.trial.sparsity, **(work.pruning() | {"criterion": "random"}))
        work.recorder.state_after("pruned", masks)
    actor = MaskActor(work, masks)
    yield from work.train(listeners=[actor], alone=True)
    if not dynamic:
        work.recorder.state_after("pruned", actor.masks)
    return actor.masks


class MaskActor:
    """An actor of the training loop: a Pruner from its first step to its last, and the sparsity at each recorded epoch.

    masks   those that dynamic sparse training starts from
    """

    def __init__(self, work: Execution, masks: Masks | None) -> None:
        self._work, self._start = work, masks
        self._pruner: Pruner | None = None
        self._remembered: dict[str, Any] | None = None
        self.masks = Masks({})

    def start(self, state: State) -> None:
        """Before the first step, or when a training is taken up again."""
        self._pruner = Pruner(state.model, state.optimizer, **self.settings(state), state=self._remembered)

    def settings(self, state: State) -> dict[str, Any]:
        """What the config asks of the Pruner; fractions of the training become optimiser steps."""
        prune, pruning = self._work.config.prune, self._work.pruning()
        each = steps_per_epoch(len(self._work.data.train), state.settings)
        total = each * (state.settings.epochs - state.settings.from_epoch)
        found = {k: v for k, v in pruning.items() if k not in ("threshold", "table", "data")}
        found |= {"sparsity": self._work.trial.sparsity, "data": pruning["data"], "samples": prune.calibration}
        found |= {"begin": round(prune.begin * total), "end": round(prune.end * total)}
        found |= {"every": prune.every * (each if prune.every_in == "epochs" else 1)}
        if prune.when == "dynamic":
            return found | {"dynamic": prune.grow, "grow_fraction": prune.grow_fraction, "masks": self._start}
        return found | {"schedule": prune.schedule or "cubic", "soft": prune.soft}

    def epoch_end(self, state: State) -> None:
        """After every epoch."""
        assert self._pruner is not None, "start comes first"
        self._work.recorder.sparsity_now(state, self._pruner.masks)

    def end(self, state: State) -> None:
        """After the last step."""
        assert self._pruner is not None, "start comes first"
        self.masks = self._pruner.finish()

    def memory(self) -> dict[str, Tensor]:
        """What a training that is put down has to keep, as tensors."""
        if self._pruner is None:
            return {}
        state = self._pruner.state_dict()
        numbers = {"steps": torch.tensor(state["steps"]), "level": torch.tensor(state["level"], dtype=torch.float64)}
        return numbers | {f"{part}:{n}": v for part in ("masks", "behind") for n, v in state.get(part, {}).items()}

    def remember(self, memory: Mapping[str, Tensor]) -> None:
        """Take up what `memory` gave."""
        parts: dict[str, dict[str, Tensor]] = {"masks": {}, "behind": {}}
        for name, value in memory.items():
            part, colon, parameter = name.partition(":")
            if colon:
                parts[part][parameter] = value
        self._remembered = {"steps": int(memory["steps"]), "level": float(memory["level"]), **parts} if memory else None
        self.masks = Masks(parts["masks"], self._work.model)  # those it ended with, where it is over
