"""The training loop: tensors in memory, batches in a seeded order, masks held by the optimiser's hook, six events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunescope import rng
from prunescope.config import TrainingConfig
from prunescope.measures.quality import loss_function
from prunescope.pruning.masks import Masks
from prunescope.training.checkpoint import Snapshot, take_up
from prunescope.training.distillation import Distillation
from prunescope.training.events import State, handlers
from prunescope.training.optim import build, learning_rates
from prunescope.types import ConfigError, Split

GATHER_BYTES = 32 << 20  # rows are put in order about this many bytes at a time: few calls, bounded memory


def train(
    model: nn.Module,
    data: Split,
    settings: TrainingConfig,
    *,
    seed: int,
    phase: str = "train",
    masks: Masks | None = None,
    listeners: Sequence[Any] = (),
    resume: Snapshot | None = None,
    teaching: Distillation | None = None,
) -> State:
    """Train `model` in place on `data` and return the final State.

    The order of batches and the noise of stochastic layers depend on (seed, phase, epoch) alone. `masks` stay exactly zero throughout.
    The global random state of torch is put back afterwards. `resume` goes on from where a training with the same arguments stood.
    `teaching` adds what another network says of the samples to the loss.
    Raises ConfigError for settings that do not fit the data.
    """
    heard = handlers(listeners)
    loss_of, data = _objective(data, settings, teaching)
    optimizer = build(model, settings)
    rates = learning_rates(optimizer, settings)
    held = masks.attach(optimizer) if masks is not None else None
    state = State(model, optimizer, settings, phase, epoch=settings.from_epoch)
    size = batch_size(len(data), settings)
    if resume is not None:
        take_up(state, rates, resume)
    model.train()
    with torch.random.fork_rng(devices=[data.x.device] if data.x.is_cuda else []):
        _tell(heard["start"], state)
        for epoch in range(state.epoch, state.epoch if state.stop else settings.epochs):
            torch.manual_seed(rng.stream_seed(seed, phase, "noise", epoch))  # dropout and its kind draw from the global generator
            _tell(heard["epoch_start"], state)
            for x, y in batches(data, size, drop_last=settings.drop_last, seed=seed, purpose=(phase, "order", epoch)):
                optimizer.zero_grad()
                state.loss = loss_of(model(x), y)
                state.loss.backward()
                _tell(heard["gradients"], state)
                optimizer.step()
                state.steps += 1
                _tell(heard["step"], state)
            rates.step()
            state.epoch = epoch + 1
            _tell(heard["epoch_end"], state)
            if state.stop:
                break
        _tell(heard["end"], state)
    if held is not None:
        held.remove()
    return state


def _objective(
    data: Split, settings: TrainingConfig, teaching: Distillation | None
) -> tuple[Callable[[Tensor, Tensor], Tensor], Split]:
    """The loss, and the samples with what it compares their outputs with: labels, or where there is a teacher the samples' numbers."""
    task = loss_function(settings.loss)
    if teaching is None:
        return task, data
    if len(teaching.outputs) != len(data):
        raise ConfigError(f"the teacher was asked about {len(teaching.outputs)} samples, and {len(data)} are trained on: expected the same")
    labels, numbers = data.y, torch.arange(len(data), device=data.y.device)
    return lambda output, rows: teaching.loss(task, output, labels[rows], rows), Split(data.x, numbers)


def batches(
    data: Split, size: int, *, drop_last: bool, seed: int, purpose: tuple[str | int, ...]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of `size` rows in an order that (seed, purpose) fix; a batch of all rows comes as it is."""
    n = len(data)
    if size >= n:
        yield data.x, data.y
        return
    order = torch.randperm(n, generator=rng.torch_generator(seed, *purpose)).to(data.x.device)
    if drop_last:
        order = order[: n - n % size]
    row_bytes = data.x[0].numel() * data.x.element_size()
    for part in order.split(size * max(1, GATHER_BYTES // max(1, row_bytes * size))):
        yield from zip(data.x[part].split(size), data.y[part].split(size), strict=True)


def batch_size(n: int, settings: TrainingConfig) -> int:
    """Samples a batch for `n` training samples; refuses settings that leave no batch."""
    if n == 0:
        raise ConfigError("there are no training samples: lower data.validation or raise data.train_size")
    size = n if settings.batch_size == "full" else int(settings.batch_size)
    if settings.drop_last and size > n:
        raise ConfigError(f"batch_size {size} with drop_last leaves no batch of {n} training samples: lower it or set drop_last = false")
    return size


def steps_per_epoch(n: int, settings: TrainingConfig) -> int:
    """Optimiser steps an epoch for `n` training samples."""
    size = batch_size(n, settings)
    return max(1, n // size if settings.drop_last else -(-n // size))


def _tell(hearing: list[Any], state: State) -> None:
    for handler in hearing:
        handler(state)
