"""One trial from its settings to its records: data, model, prune when it is due, train, fine-tune, measure, deploy.

    at init     prune -> train with masks
    trained     train (shared by all trials with the same settings and seed) -> prune -> fine-tune
    iterative   train (shared) -> rounds of prune a little more, fine-tune
    rewind      train (shared) -> rounds (shared) of prune a little more, return to early weights, train (tickets.py)
    during      train, pruning little by little (masking.py) -> fine-tune
    dynamic     random masks -> train, exchanging weights (masking.py) -> fine-tune
    never       train (shared)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from torch import nn

from prunescope.experiments.deployment import deploy
from prunescope.experiments.execution import Execution, Steps, Training, build_model, load_data
from prunescope.experiments.levels import levels
from prunescope.experiments.masking import changing_masks
from prunescope.experiments.tickets import last_ticket
from prunescope.pruning import Masks
from prunescope.results.schema import frame

__all__ = ["Execution", "Outcome", "Steps", "Training", "build_model", "load_data", "trial_steps"]


@dataclass
class Outcome:
    """What a trial leaves: its records, the network as it ended, and its masks (None for a dense one)."""

    records: pd.DataFrame
    model: nn.Module
    masks: Masks | None


def trial_steps(work: Execution, cache: Path | None) -> Steps[Outcome]:
    """All of a trial, which stops at each training for somebody else to carry it out. `cache` is the folder of its dense training."""
    trial, settings = work.trial, work.config.prune
    masks: Masks | None = None
    if settings.when == "init":
        work.recorder.state_after("train", None)
        masks = work.prune(trial.sparsity)
        yield from work.train(masks)
    elif settings.when in ("during", "dynamic"):
        masks = yield from changing_masks(work)
        yield from work.finetune(masks)
    else:
        yield from work.dense(cache)
        work.learn_from_dense()
        if settings.when == "trained":
            masks = work.prune(trial.sparsity)
            yield from work.finetune(masks)
        elif settings.when == "iterative":
            masks = yield from _iterative(work)
        elif settings.when == "rewind":
            masks = yield from last_ticket(work, cache)
            yield from work.finetune(masks)
    held = masks if settings.when == "init" or trial.config.finetune.hold_masks else None
    work.recorder.final(held)
    deploy(work, held)
    return Outcome(frame(work.recorder.records, trial.columns()), work.model, masks)


def _iterative(work: Execution) -> Steps[Masks | None]:
    masks: Masks | None = None
    assert work.trial.sparsity is not None, "sweep gives levels to iterative variants"
    for number, level in enumerate(levels(work.config.prune, work.trial.sparsity)):
        masks = work.prune(level, masks, epoch=number * work.config.finetune.epochs)
        yield from work.finetune(masks, number)
    return masks
