"""Checkpoints: weights as safetensors under their own state-dict names, never a pickle; and trainings that go on where they stood."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from prunescope.training.events import State
from prunescope.types import ConfigError, StoreError


@dataclass(frozen=True)
class Snapshot:
    """A training as it stood at the end of `epoch` epochs and `steps` steps: with the seed, all that is needed to go on.

    weights   the model's state dict; numbers: what the optimiser keeps of each parameter; groups: the optimiser's settings as they were
    stop      whether a listener had asked for the end by then
    The order of batches and all noise depend on (seed, phase, epoch), so no generator's state is kept.
    """

    epoch: int
    steps: int
    weights: Mapping[str, Tensor]
    numbers: Mapping[str, Mapping[str, Tensor]]
    groups: list[dict[str, Any]]
    stop: bool = False


def snapshot(state: State) -> Snapshot:
    """The training as it stands, copied. Call it between epochs, from a listener of epoch_end.

    Raises ConfigError for an optimiser of the user's that keeps more than tensors.
    """
    numbers: dict[str, dict[str, Tensor]] = {}
    for name, kept in state.optimizer_numbers().items():
        if strange := [k for k, v in kept.items() if not isinstance(v, Tensor | None)]:
            kind, what = type(state.optimizer).__name__, type(kept[strange[0]]).__name__
            raise ConfigError(f"optimizer {kind} keeps {strange[0]!r} of a parameter as {what}: expected tensors")
        numbers[name] = {k: v.detach().clone() for k, v in kept.items() if v is not None}
    groups = [{k: v for k, v in g.items() if isinstance(v, bool | int | float)} for g in state.optimizer.param_groups]
    return Snapshot(state.epoch, state.steps, weights_of(state.model), numbers, groups, state.stop)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the model's state dict."""
    return {name: v.detach().clone() for name, v in model.state_dict().items()}


def take_up(state: State, rates: LRScheduler, found: Snapshot) -> None:
    """Put model, optimiser and learning-rate schedule where they stood."""
    state.model.load_state_dict(dict(found.weights))
    put_back(state.optimizer, rates, {p: found.numbers[n] for n, p in state.model.named_parameters() if n in found.numbers}, found)
    state.epoch, state.steps, state.stop = found.epoch, found.steps, found.stop


def put_back(
    optimizer: torch.optim.Optimizer, rates: LRScheduler, numbers: Mapping[nn.Parameter, Mapping[str, Tensor]], found: Snapshot
) -> None:
    """Put the optimiser and the schedule where they stood; `numbers` of each of the optimiser's parameters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the schedule is walked to its place, and misses the optimiser's steps
        for _ in range(found.epoch - rates.last_epoch):  # it may have been walked to a first epoch of its own already
            rates.step()
    for parameter, kept in numbers.items():
        optimizer.state[parameter] = {k: v.clone() for k, v in kept.items()}
    for group, values in zip(optimizer.param_groups, found.groups, strict=True):
        group.update(values)


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write the parameters and buffers of `model`; tensors that are shared are stored once."""
    try:
        safetensors.torch.save_model(model, str(path))
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{path}: the weights could not be written: {error}") from error


def load_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """Read weights written by `save_weights` into `model`, in place. Returns the model."""
    try:
        safetensors.torch.load_model(model, str(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise StoreError(f"{path}: cannot be read as weights of {type(model).__name__}: {str(error).splitlines()[0]}") from error
    return model
