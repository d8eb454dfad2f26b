"""Activations that a network can be built with, by name."""

from __future__ import annotations

from torch import nn

from prunescope.registry import unknown
from prunescope.types import ConfigError

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "leaky-relu": nn.LeakyReLU,
    "relu6": nn.ReLU6,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "linear": nn.Identity,
}


def activation_module(name: str) -> nn.Module:
    """A new module that applies the activation `name`; ConfigError with the near names where there is none."""
    if name not in ACTIVATIONS:
        raise ConfigError(unknown("activation", name, list(ACTIVATIONS)))
    return ACTIVATIONS[name]()
