"""Lottery tickets: prune a trained network a little, return what is left to early weights, train again, and so on.

    dense training -> [prune to the next level -> rewind -> train] x rounds

Frankle & Carbin 2019, arXiv:1803.03635 (to the initial weights); Frankle et al. 2020, arXiv:1912.05671 (to those of epoch k);
Renda et al. 2020, arXiv:2003.02389 (weights stay, the learning rate starts again). Rounds are kept beside the dense training, so that
levels and controls share them: only the last training of a control ("reinitialised", "random-mask") is its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from prunescope import rng
from prunescope.config import TrainingConfig, value_hash
from prunescope.experiments.execution import Execution, Steps, build_model
from prunescope.experiments.levels import levels
from prunescope.experiments.sweep import Trial
from prunescope.pruning import Masks, prune
from prunescope.types import StoreError


def last_ticket(work: Execution, cache: Path | None) -> Steps[Masks]:
    """All rounds of a trial; the records of the last one stay. "pruned" is the state in which the last training begins."""
    wanted = levels(work.config.prune, _target(work))
    own = work.config.prune.tickets != "winning"
    masks = yield from rounds(work, cache, wanted[:-1] if own else wanted)
    if not own:
        assert masks is not None, "there is a round"
        return masks
    mark = len(work.recorder.records)
    del work.recorder.records[work.dense_records : mark]  # those of the round before
    masks = prune(work.model, masks=masks, sparsity=wanted[-1], **work.pruning())
    if work.config.prune.tickets == "random-mask":
        masks = random_masks(masks, work.trial.seed).bind(work.model)
        weights = start_weights(work)
    else:
        weights = build_model(work.trial, work.data, purpose="reinitialised").state_dict()
    yield from _trained(work, masks, weights, len(wanted))
    return masks


def rounds(work: Execution, cache: Path | None, wanted: list[float]) -> Steps[Masks | None]:
    """The rounds to the levels `wanted` with the winning ticket's weights, each taken from beside `cache` where it has been done before."""
    masks: Masks | None = None
    work.dense_records = len(work.recorder.records)
    for number in range(1, len(wanted) + 1):
        del work.recorder.records[work.dense_records :]
        place = None if cache is None else round_place(cache, work.trial, wanted[:number])
        if place is not None and (found := _kept(work, place)) is not None:
            masks = found
            continue
        masks = prune(work.model, masks=masks, sparsity=wanted[number - 1], **work.pruning())
        stay = work.config.prune.rewind == "rate"
        yield from _trained(work, masks, None if stay else start_weights(work), number)
        if place is not None:
            work.keep(place, work.recorder.records[work.dense_records :], masks)
    return masks


def round_place(cache: Path, trial: Trial, wanted: Sequence[float]) -> Path:
    """The folder of the round that ends the levels `wanted`."""
    return cache / f"rounds-{trial.rounds_hash}" / value_hash(list(wanted))


def _kept(work: Execution, place: Path) -> Masks | None:
    try:
        masks = Masks.load(place / "masks.safetensors", work.model)
    except StoreError:
        return None
    return masks if work.restored(place) else None


def _trained(work: Execution, masks: Masks, weights: Mapping[str, Tensor] | None, number: int) -> Steps[None]:
    """The training of one round, from `weights` (None: those that there are) under `masks`, by the training's own schedule."""
    if weights is not None:
        work.model.load_state_dict(dict(weights))
    masks.apply()
    work.recorder.state_after("pruned", masks)
    work.recorder.begin("finetune")
    yield work.training(remaining(work), f"rewind {number}", masks)
    work.recorder.state_after("finetune", masks, epoch=work.config.training.epochs)


def remaining(work: Execution) -> TrainingConfig:
    """The settings of a round's training: those of the training, from the epoch on whose weights it returns to."""
    early = work.config.prune.rewind
    return work.config.training.model_copy(update={"from_epoch": early}) if isinstance(early, int) else work.config.training


def start_weights(work: Execution) -> Mapping[str, Tensor]:
    """The weights that a round returns to: the initial ones, or those of epoch prune.rewind."""
    return work.initial if work.early is None else work.early


def random_masks(masks: Masks, seed: int) -> Masks:
    """Masks that keep as many entries of each tensor as `masks` do, drawn at random."""
    found = {}
    for name, mask in masks.items():
        order = torch.randperm(mask.numel(), generator=rng.torch_generator(seed, "random-mask", name)).to(mask.device)
        found[name] = mask.flatten()[order].view_as(mask)
    return Masks(found)


def _target(work: Execution) -> float:
    assert work.trial.sparsity is not None, "sweep gives levels to these variants"
    return work.trial.sparsity
