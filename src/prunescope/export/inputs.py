"""Inputs to try a network with: as the example's, of other batch sizes, drawn from a seed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prunescope.rng import torch_generator
from prunescope.types import ConfigError

Inputs = tuple[Tensor, ...]


def as_inputs(example: Any) -> Inputs:
    """The positional inputs that `example` stands for: a tensor, or a tuple or list of them, each with the samples first."""
    found = (example,) if isinstance(example, Tensor) else example
    if not isinstance(found, tuple | list) or not found or not all(isinstance(x, Tensor) and x.ndim for x in found):
        raise ConfigError(f"example_inputs: expected a tensor or a tuple of tensors with the samples first, got {type(example).__name__}")
    if len({len(x) for x in found}) > 1 or not len(found[0]):
        raise ConfigError(f"example_inputs have {', '.join(str(len(x)) for x in found)} samples: expected as many in each, at least one")
    return tuple(x.detach() for x in found)


def of_size(example: Inputs, n: int) -> Inputs:
    """The example's samples again and again until there are `n`."""
    return tuple(x[torch.arange(n, device=x.device) % len(x)] for x in example)


def drawn(example: Inputs, n: int, turn: int = 0) -> Inputs:
    """`n` random samples for each input: of the example's mean and spread; whole numbers and truth values are drawn from its own."""
    return tuple(_drawn(x, n, torch_generator(0, "export", place, turn)) for place, x in enumerate(example))


def _drawn(x: Tensor, n: int, generator: torch.Generator) -> Tensor:
    shape = (n, *x.shape[1:])
    if not x.is_floating_point():
        return x.flatten()[torch.randint(x.numel(), shape, generator=generator).to(x.device)]
    middle, spread = x.double().mean(), x.double().std(correction=0)
    spread = spread if spread > 0 else torch.ones_like(spread)
    return (torch.randn(shape, generator=generator, dtype=torch.float64).to(x.device) * spread + middle).to(x.dtype)
