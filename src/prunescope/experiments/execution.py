"""What a trial works with: its data, network, recorder and calibration set, and the phases that it may go through."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from prunescope import data as datasets
from prunescope import models, rng
from prunescope.config import DataConfig, PruneConfig, TrainingConfig, TrialConfig
from prunescope.experiments.recorder import Recorder
from prunescope.experiments.sweep import Trial
from prunescope.measures.quality import batched, loss_function
from prunescope.pruning import Masks, prune
from prunescope.pruning.normalisation import recalibrate
from prunescope.quantization import simulated
from prunescope.results.files import write_beside
from prunescope.results.schema import FACT_COLUMNS, Record, frame
from prunescope.results.store import read_records, write_records
from prunescope.training import State, load_weights, save_weights
from prunescope.training.arrangement import QUANTISED, TAUGHT
from prunescope.training.distillation import Distillation
from prunescope.training.loop import batch_size
from prunescope.types import Dataset, Split, StoreError

CALIBRATION_BATCH = 128
PRUNE_KEYS = {"criterion", "granularity", "allocation", "norm", "threshold", "table", "layers", "exclude", "output", "biases"}
PRUNE_KEYS |= {"allow_empty", "options"}


@dataclass(frozen=True)
class Training:
    """A training that a trial waits for: carried out alone, or with those of other trials unless it has to be `alone`."""

    model: nn.Module
    data: Split
    settings: TrainingConfig
    seed: int
    phase: str
    masks: Masks | None
    recorder: Recorder
    listeners: Sequence[Any]
    alone: bool = False
    teaching: Distillation | None = None
    apart: str | None = None  # why it cannot be stacked with those of other trials


T = TypeVar("T")
Steps = Generator[Training, None, T]


class Execution:
    """A trial at work: everything that its phases share. `twin` is another one of the same settings, to share what is made of the data.

    `place` is the trial's own folder, for files that it writes itself.
    """

    def __init__(
        self,
        trial: Trial,
        *,
        data_dir: Path | None,
        device: str,
        listeners: Sequence[Any] = (),
        twin: Execution | None = None,
        place: Path | None = None,
    ) -> None:
        self.trial, self.config, self.listeners, self.place = trial, trial.config, list(listeners), place
        self.teaching: Distillation | None = None  # what the dense network says of the training samples
        loaded = load_data(trial.config.data, trial.seed, data_dir)
        self._loaded = loaded
        self.data: Dataset = twin.data if twin is not None and twin._loaded is loaded else on_device(loaded, device)
        self.model = build_model(trial, self.data).to(device)
        self.early: dict[str, Tensor] | None = None  # the weights of epoch prune.rewind, where that is not 0
        self.dense_records = 0  # records of the training before the rounds of "rewind"
        self.initial = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.recorder: Recorder = Recorder(
            self.model,
            self.data,
            self.config.measure,
            loss=self.config.training.loss,
            seed=trial.seed,
            twin=twin.recorder if twin is not None else None,
        )

    def training(
        self,
        settings: TrainingConfig,
        phase: str,
        masks: Masks | None,
        listeners: Sequence[Any] = (),
        *,
        alone: bool = False,
        finetuning: bool = False,
    ) -> Training:
        """A training of this trial's network; `listeners` come before the trial's own. A teacher is heard in fine-tuning alone."""
        heard = [*listeners, *self.listeners]
        teaching, reason = (self.teaching, apart(self.config)) if finetuning else (None, None)
        return Training(
            self.model, self.data.train, settings, self.trial.seed, phase, masks, self.recorder, heard, alone, teaching, reason
        )

    def train(self, masks: Masks | None = None, listeners: Sequence[Any] = (), *, alone: bool = False) -> Steps[None]:
        """The training phase."""
        self.recorder.begin("train")
        yield self.training(self.config.training, "train", masks, listeners, alone=alone)

    def finetune(self, masks: Masks, round_number: int = 0) -> Steps[None]:
        """A fine-tuning phase, where there is one; with hold_masks = false the pruned weights are free to grow back."""
        own = self.config.finetune
        if own.epochs:
            self.recorder.begin("finetune", round_number * own.epochs)
            phase = f"finetune {round_number}" if round_number else "finetune"
            with self._as_int8():
                yield self.training(own.as_training(self.config.training), phase, masks if own.hold_masks else None, finetuning=True)
        if own.recalibrate_batchnorm:
            recalibrate(self.model, self.data.train.x, batch_size(len(self.data.train), self.config.training))
        if own.epochs or own.recalibrate_batchnorm:
            self.recorder.state_after("finetune", masks if own.hold_masks else None, epoch=(round_number + 1) * own.epochs)

    def _as_int8(self) -> AbstractContextManager[Any]:
        """While fine-tuning: layers compute as int8 will, if the config says so."""
        own = self.config.quantize
        if not own.aware:
            return contextlib.nullcontext()
        return simulated(self.model, activations=own.activations, exclude=own.exclude)

    def learn_from_dense(self) -> None:
        """Ask the network as it is now, trained and not pruned yet, about the training samples, if fine-tuning is to learn from it."""
        own = self.config.finetune.distill
        if own.alpha:
            self.teaching = Distillation(batched(self.model, self.data.train.x), own.alpha, own.temperature)

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
        if cache is not None and self.restored(cache):
            return
        early = Early(self.config.prune)
        yield from self.train(listeners=[early] if early.epoch else [])
        self.early = early.weights
        if self.config.prune.when != "never" or cache is not None:
            self.recorder.state_after("train", None, epoch=self.config.training.epochs)
        if cache is not None:
            self.keep(cache, self.recorder.records)

    def keep(self, place: Path, records: Sequence[Record], masks: Masks | None = None) -> None:
        """Write the network as it stands, `records`, and what there is of masks and early weights, for `restored` to find."""
        write_beside(place / "weights.safetensors", lambda p: save_weights(self.model, p))
        if masks is not None:
            write_beside(place / "masks.safetensors", masks.save)
        if self.early and masks is None:
            early = {n: v.contiguous() for n, v in self.early.items()}
            write_beside(place / "early.safetensors", lambda p: safetensors.torch.save_file(early, str(p)))
        write_records(place / "records.parquet", frame(records, self.trial.columns()))

    def restored(self, place: Path) -> bool:
        """Whether `keep` left something whole in `place`; if so the network is as it was, and its records come after those there are."""
        weights, records, early = (place / f for f in ("weights.safetensors", "records.parquet", "early.safetensors"))
        wanted = Early(self.config.prune).epoch > 0
        if not (weights.exists() and records.exists()) or (wanted and self.early is None and not early.exists()):
            return False
        try:
            facts = read_records(records)[list(FACT_COLUMNS)]
            if wanted and self.early is None:
                self.early = safetensors.torch.load_file(early)
            load_weights(self.model, weights)
        except (StoreError, SafetensorError):
            return False  # a damaged cache is no loss: the training is done again and replaces it
        facts = facts.astype(object).where(facts.notna(), None)
        self.recorder.records += [Record(*row) for row in facts.itertuples(index=False, name=None)]
        return True


class Early:
    """A listener that keeps the weights of epoch `prune.rewind`, where a trial is to return to them."""

    def __init__(self, settings: PruneConfig) -> None:
        wanted = settings.rewind if settings.when == "rewind" else 0
        self.epoch = wanted if isinstance(wanted, int) else 0
        self.weights: dict[str, Tensor] | None = None

    def epoch_end(self, state: State) -> None:
        """After every epoch."""
        if state.epoch == self.epoch:
            self.weights = {name: value.detach().clone() for name, value in state.model.state_dict().items()}

    def memory(self) -> dict[str, Tensor]:
        """What a training that is put down has to keep."""
        return dict(self.weights or {})

    def remember(self, memory: dict[str, Tensor]) -> None:
        """Take up what `memory` gave."""
        self.weights = memory or None


def apart(config: TrialConfig) -> str | None:
    """Why the fine-tuning of trials with these settings cannot be stacked; None where it can."""
    if config.finetune.distill.alpha:
        return f"finetune.distill: {TAUGHT}"
    return f"quantize.aware: {QUANTISED}" if config.quantize.aware else None


def prune_options(settings: PruneConfig) -> dict[str, Any]:
    """The keyword arguments of `prune` that the config's section stands for, all but the sparsity."""
    return settings.model_dump(include=PRUNE_KEYS)


def build_model(trial: Trial, data: Dataset, *, purpose: str = "") -> nn.Module:
    """The trial's network, freshly initialised from its seed; another `purpose` draws other weights."""
    section = trial.config.model
    shape = tuple(data.train.x.shape[1:])
    seed = rng.stream_seed(trial.seed, purpose) if purpose else trial.seed
    return models.build(section.name, input_shape=shape, classes=data.classes, seed=seed, options=section.options)


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
