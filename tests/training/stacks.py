"""Networks, data and settings that the tests of stacks share, and how a stack is compared with one by one."""

import torch
from torch import nn

import prunescope.models as models
from prunescope.config import TrainingConfig
from prunescope.training import train
from prunescope.training.replicas import train_stack
from prunescope.types import Split

BOUND = 1e-5  # relative distance of the weights after 100 steps; measured: 3e-8 with SGD, 3e-7 with Adam
COUNT = 5


def problem(n: int = 256, shape: tuple[int, ...] = (12,), classes: int = 2, seed: int = 0) -> Split:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *shape, generator=generator)
    return Split(x, (x.flatten(1)[:, 0] * 1.5).round().long().clamp(0, classes - 1))


def nets(name: str = "mlp", shape: tuple[int, ...] = (12,), classes: int = 2, **options) -> list[nn.Module]:
    return [models.build(name, input_shape=shape, classes=classes, seed=s, options=options) for s in range(COUNT)]


def tanh_nets() -> list[nn.Module]:
    return nets(widths=[10, 7, 5, 4, 3], activation="tanh", initialisation="uniform-fan-in")


def distance(one: nn.Module, two: nn.Module) -> float:
    a, b = (torch.cat([p.detach().flatten() for p in m.parameters()]).double() for m in (one, two))
    return float((a - b).norm() / a.norm())


def assert_same(alone: list[nn.Module], together: list[nn.Module], bound: float = BOUND) -> None:
    for one, two in zip(alone, together, strict=True):
        assert distance(one, two) < bound
        assert all(p.is_contiguous() and p.untyped_storage().nbytes() == p.nbytes for p in two.parameters())


def both_ways(make, data, settings, *, masks=None, stack="on", phase="train"):
    """The networks trained alone and together; `masks` makes the masks of a list of networks."""
    alone, together = make(), make()
    splits = data if isinstance(data, list) else [data] * COUNT
    held = [masks(alone), masks(together)] if masks else [[None] * COUNT] * 2
    for i, model in enumerate(alone):
        train(model, splits[i], settings, seed=10 + i, phase=phase, masks=held[0][i])
    states = train_stack(together, data, settings, seeds=range(10, 10 + COUNT), phase=phase, masks=held[1], stack=stack)
    return alone, together, states


SETTINGS = {  # 100 steps or a little more, of 16 batches an epoch
    "sgd": TrainingConfig(epochs=7, batch_size=16, lr=0.07),
    "momentum": TrainingConfig(epochs=7, batch_size=16, lr=0.01, momentum=0.9),
    "from epoch 2, cosine": TrainingConfig(epochs=9, from_epoch=2, batch_size=16, lr=0.05, schedule="cosine"),
    "nesterov, weight decay, milestones": TrainingConfig(
        epochs=7, batch_size=16, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01, schedule="milestones",
        milestones=[2, 4], gamma=0.5
    ),
    "adam": TrainingConfig(epochs=7, batch_size=16, optimizer="adam", lr=3e-3),
    "adam, weight decay, cosine": TrainingConfig(
        epochs=7, batch_size=16, optimizer="adam", lr=3e-3, weight_decay=0.01, schedule="cosine"
    ),
    "adamw, last batch smaller": TrainingConfig(epochs=6, batch_size=15, optimizer="adamw", lr=3e-3, weight_decay=0.1),
    "last batch dropped": TrainingConfig(epochs=7, batch_size=15, lr=0.07, drop_last=True),
    "full batch": TrainingConfig(epochs=100, batch_size="full", lr=0.1),
}


def convolutions() -> list[nn.Module]:
    return nets("cnn", shape=(1, 8, 8), channels=[3, 4], dense=6)


def batch_normalised() -> list[nn.Module]:
    return [nn.Sequential(m.fc1, nn.BatchNorm1d(8), m.act1, m.output) for m in nets(widths=[8])]
