"""A small network and a bare training loop, for the tests of Pruner."""

import torch
from torch import nn

import prunescope as ps

HIDDEN = ("0.weight", "2.weight")


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3))


def sgd(model: nn.Module, **options) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), 0.1, **options)


def batch(n: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, 6), torch.randint(0, 3, (n,))


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    x, y = batch()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
    for _ in range(count):
        step(model, optimizer)


def masked_values(model: nn.Module, masks: ps.Masks) -> torch.Tensor:
    parameters = dict(model.named_parameters())
    return torch.cat([torch.empty(0), *(parameters[n].detach()[~m] for n, m in masks.items())])


def removed(masks: ps.Masks) -> list[int]:
    return [int((~masks[n]).sum()) if n in masks else 0 for n in HIDDEN]
