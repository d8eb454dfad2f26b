"""Optimisers and learning-rate schedules by name."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, MultiStepLR

from prunescope.config import TrainingConfig
from prunescope.registry import optimizers
from prunescope.types import ConfigError, PrunescopeError

Parameters = Iterable[nn.Parameter]


@optimizers("sgd", source="torch.optim.SGD", momentum=True)
def sgd(parameters: Parameters, settings: TrainingConfig) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum, Nesterov momentum and weight decay as set."""
    if settings.nesterov and settings.momentum == 0:
        raise ConfigError("training.nesterov needs momentum above 0: set training.momentum = 0.9")
    return torch.optim.SGD(
        parameters, settings.lr, settings.momentum, weight_decay=settings.weight_decay, nesterov=settings.nesterov, fused=True
    )


@optimizers("adam", source="torch.optim.Adam; Kingma & Ba 2015")
def adam(parameters: Parameters, settings: TrainingConfig) -> torch.optim.Optimizer:
    """Adam; weight decay, where set, is added to the gradient."""
    return torch.optim.Adam(parameters, settings.lr, weight_decay=settings.weight_decay, fused=True)


@optimizers("adamw", source="torch.optim.AdamW; Loshchilov & Hutter 2019")
def adamw(parameters: Parameters, settings: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW: weight decay apart from the gradient."""
    return torch.optim.AdamW(parameters, settings.lr, weight_decay=settings.weight_decay, fused=True)


def build(model: nn.Module, settings: TrainingConfig) -> torch.optim.Optimizer:
    """The optimiser that `settings` name, over the parameters of `model` that want gradients."""
    entry = optimizers.get(settings.optimizer)
    if settings.momentum and not entry.traits.get("momentum", entry.traits.get("own")):
        raise ConfigError(f"training.momentum = {settings.momentum} has no effect with {settings.optimizer}: use sgd or leave it out")
    try:
        found = entry.function([p for p in model.parameters() if p.requires_grad], settings)
    except PrunescopeError:
        raise
    except Exception as error:  # the user's code may raise anything
        said = f"{type(error).__name__}: {error}"
        raise ConfigError(f"optimizer {settings.optimizer!r} raised {said}: mend the function or its settings") from error
    if not isinstance(found, torch.optim.Optimizer):
        raise ConfigError(f"optimizer {settings.optimizer!r} gave a {type(found).__name__}: expected a torch.optim.Optimizer")
    return found


def learning_rates(optimizer: torch.optim.Optimizer, settings: TrainingConfig) -> LRScheduler:
    """The learning-rate schedule, stepped after every epoch, as it stands after `settings.from_epoch` epochs."""
    rates = _schedule(optimizer, settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the schedule is walked to its place, and misses the optimiser's steps
        for _ in range(settings.from_epoch):
            rates.step()
    return rates


def _schedule(optimizer: torch.optim.Optimizer, settings: TrainingConfig) -> LRScheduler:
    if settings.schedule == "milestones":
        return MultiStepLR(optimizer, settings.milestones, settings.gamma)
    if settings.schedule == "cosine":
        return CosineAnnealingLR(optimizer, max(1, settings.epochs))
    return LambdaLR(optimizer, lambda _: 1.0)
