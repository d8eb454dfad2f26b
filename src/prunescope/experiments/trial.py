"""One trial from its settings to its records: data, model, prune when it is due, train, fine-tune, measure.

    at init     prune -> train with masks
    trained     train (shared by all trials with the same settings and seed) -> prune -> fine-tune
    iterative   train (shared) -> rounds of prune a little more, fine-tune
    never       train (shared)
"""

from __future__ import annotations

import functools
import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch
from torch import Tensor, nn

from prunescope import data as datasets
from prunescope import models, rng
from prunescope.config import DataConfig, PruneConfig, TrainingConfig
from prunescope.experiments.recorder import Recorder
from prunescope.experiments.sweep import Trial
from prunescope.measures.quality import loss_function
from prunescope.pruning import Masks, prune
from prunescope.pruning.schedules import geometric
from prunescope.results.schema import FACT_COLUMNS, Record, frame
from prunescope.results.store import read_records, write_beside, write_records
from prunescope.training import load_weights, save_weights
from prunescope.types import Dataset, Split, StoreError

CALIBRATION_BATCH = 128
PRUNE_KEYS = {"criterion", "granularity", "allocation", "norm", "threshold", "table", "layers", "exclude", "output", "biases"}
PRUNE_KEYS |= {"allow_empty", "options"}


@dataclass
class Outcome:
    """What a trial leaves: its records, the network as it ended, and its masks (None for a dense one)."""

    records: pd.DataFrame
    model: nn.Module
    masks: Masks | None


@dataclass(frozen=True)
class Training:
    """A training that a trial waits for: carried out alone, or with those of other trials."""

    model: nn.Module
    data: Split
    settings: TrainingConfig
    seed: int
    phase: str
    masks: Masks | None
    recorder: Recorder
    listeners: Sequence[Any]


T = TypeVar("T")
Steps = Generator[Training, None, T]


class Execution:
    """A trial at work: everything that its phases share. `twin` is another one of the same settings, to share what is made of the data."""

    def __init__(
        self, trial: Trial, *, data_dir: Path | None, device: str, listeners: Sequence[Any] = (), twin: Execution | None = None
    ) -> None:
        self.trial, self.config, self.listeners = trial, trial.config, list(listeners)
        loaded = load_data(trial.config.data, trial.seed, data_dir)
        self._loaded = loaded
        self.data: Dataset = twin.data if twin is not None and twin._loaded is loaded else on_device(loaded, device)
        self.model = build_model(trial, self.data).to(device)
        self.initial = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.recorder: Recorder = Recorder(
            self.model,
            self.data,
            self.config.measure,
            loss=self.config.training.loss,
            seed=trial.seed,
            twin=twin.recorder if twin is not None else None,
        )

    def _training(self, settings: TrainingConfig, phase: str, masks: Masks | None) -> Training:
        return Training(self.model, self.data.train, settings, self.trial.seed, phase, masks, self.recorder, self.listeners)

    def train(self, masks: Masks | None = None) -> Steps[None]:
        """The training phase."""
        self.recorder.begin("train")
        yield self._training(self.config.training, "train", masks)

    def finetune(self, masks: Masks, round_number: int = 0) -> Steps[None]:
        """A fine-tuning phase; with hold_masks = false the pruned weights are free to grow back."""
        own = self.config.finetune
        if own.epochs == 0:
            return
        self.recorder.begin("finetune", round_number * own.epochs)
        phase = f"finetune {round_number}" if round_number else "finetune"
        yield self._training(own.as_training(self.config.training), phase, masks if own.hold_masks else None)
        self.recorder.state_after("finetune", masks if own.hold_masks else None, epoch=(round_number + 1) * own.epochs)

    def prune(self, sparsity: float | None, masks: Masks | None = None, *, epoch: float = 0) -> Masks:
        """Prune now and record the state right after."""
        new = prune(self.model, masks=masks, sparsity=sparsity, **self.pruning())
        self.recorder.state_after("pruned", new, epoch=epoch)
        return new

    def pruning(self) -> dict[str, Any]:
        """What every call of `prune` in this trial is given: the config's settings, calibration data, the loss, the initial weights."""
        return {
            **prune_options(self.config.prune),
            "data": self.calibration,
            "loss_fn": loss_function(self.config.training.loss),
            "example_inputs": self.data.train.x[:2],
            "initial": self.initial,
            "seed": self.trial.seed,
        }

    @functools.cached_property
    def calibration(self) -> list[tuple[Tensor, Tensor]]:
        """Batches of the training samples that criteria may look at: a draw of `prune.calibration` of them, by the trial's seed."""
        train = self.data.train
        generator = rng.torch_generator(self.trial.seed, "calibration")
        rows = torch.randperm(len(train), generator=generator)[: self.config.prune.calibration].to(train.x.device)
        return [(train.x[part], train.y[part]) for part in rows.split(CALIBRATION_BATCH)]

    def dense(self, cache: Path | None) -> Steps[None]:
        """The training before pruning: taken from `cache` where another trial left it, else done and left there."""
        if cache is not None and self._restored(cache):
            return
        yield from self.train()
        if self.config.prune.when != "never" or cache is not None:
            self.recorder.state_after("train", None, epoch=self.config.training.epochs)
        if cache is not None:
            write_beside(cache / "weights.safetensors", lambda p: save_weights(self.model, p))
            write_records(cache / "records.parquet", frame(self.recorder.records, self.trial.columns()))

    def _restored(self, cache: Path) -> bool:
        weights, records = cache / "weights.safetensors", cache / "records.parquet"
        if not (weights.exists() and records.exists()):
            return False
        try:
            facts = read_records(records)[list(FACT_COLUMNS)]
            load_weights(self.model, weights)
        except StoreError:
            return False  # a damaged cache is no loss: the training is done again and replaces it
        facts = facts.astype(object).where(facts.notna(), None)
        self.recorder.records = [Record(*row) for row in facts.itertuples(index=False, name=None)]
        return True


def trial_steps(work: Execution, cache: Path | None) -> Steps[Outcome]:
    """All of a trial, which stops at each training for somebody else to carry it out. `cache` is the folder of its dense training."""
    trial, settings, masks = work.trial, work.config.prune, None
    if settings.when == "init":
        work.recorder.state_after("train", None)
        masks = work.prune(trial.sparsity)
        yield from work.train(masks)
    else:
        yield from work.dense(cache)
        if settings.when == "trained":
            masks = work.prune(trial.sparsity)
            yield from work.finetune(masks)
        elif settings.when == "iterative":
            masks = yield from _iterative(work, settings)
    held = masks if settings.when == "init" or trial.config.finetune.hold_masks else None
    work.recorder.final(held)
    return Outcome(frame(work.recorder.records, trial.columns()), work.model, masks)


def _iterative(work: Execution, settings: PruneConfig) -> Steps[Masks | None]:
    masks: Masks | None = None
    target = work.trial.sparsity
    assert target is not None, "sweep gives levels to iterative variants"
    for number in range(settings.rounds):
        level = geometric((number + 1) / settings.rounds, target)
        masks = work.prune(level, masks, epoch=number * work.config.finetune.epochs)
        yield from work.finetune(masks, number)
    return masks


def prune_options(settings: PruneConfig) -> dict[str, Any]:
    """The keyword arguments of `prune` that the config's section stands for, all but the sparsity."""
    return settings.model_dump(include=PRUNE_KEYS)


def build_model(trial: Trial, data: Dataset) -> nn.Module:
    """The trial's network, freshly initialised from its seed."""
    section = trial.config.model
    shape = tuple(data.train.x.shape[1:])
    return models.build(section.name, input_shape=shape, classes=data.classes, seed=trial.seed, options=section.options)


def load_data(section: DataConfig, seed: int, data_dir: Path | None) -> Dataset:
    """The trial's data; loaded once a process for all trials that share them."""
    values = section.model_dump(mode="json")
    own = {k: values[k] for k in type(section).model_fields if k not in ("name", "split", "split_seed")}
    split_seed = section.split_seed if section.split == "shared" else seed
    key = json.dumps({"name": section.name, "options": section.options, "split_seed": split_seed, **own}, sort_keys=True)
    return _loaded(key, data_dir)


@functools.lru_cache(maxsize=4)
def _loaded(key: str, data_dir: Path | None) -> Dataset:
    settings = json.loads(key)
    return datasets.load(settings.pop("name"), directory=data_dir, **settings)


def on_device(data: Dataset, device: str) -> Dataset:
    """The same data on `device`."""
    if device == "cpu":
        return data
    train, validation, test = (Split(s.x.to(device), s.y.to(device)) for s in (data.train, data.validation, data.test))
    return replace(data, train=train, validation=validation, test=test)
