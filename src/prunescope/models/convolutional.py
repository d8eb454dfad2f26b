"""Convolutions over sequences and over volumes, with a pooled head."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Generator, Tensor, nn

from prunescope.models.activations import activation_module
from prunescope.models.initialisation import drawn_later, initialise
from prunescope.models.layers import Pooled, positive
from prunescope.registry import models
from prunescope.types import ConfigError


class ChannelsFirst(nn.Module):
    """(n, steps, features) -> (n, features, steps); (n, steps) -> (n, 1, steps)."""

    def forward(self, x: Tensor) -> Tensor:
        """The same numbers with the steps last."""
        return x.unsqueeze(1) if x.ndim == 2 else x.transpose(1, 2)


@models("conv1d", source="Waibel et al. 1989: convolution over time", sample=(8, 8))
def conv1d(
    *,
    input_shape: tuple[int, ...],
    classes: int,
    generator: Generator,
    channels: Sequence[int] = (16, 32),
    kernel: int = 3,
    activation: str = "relu",
    initialisation: str = "he-normal",
) -> nn.Module:
    """Convolutions over steps, each but the last pooled by 2; (n, steps, features) or (n, steps) -> (n, classes).

    Children channels_first, conv1, act1, pool1, conv2, act2, ..., pool, output.
    """
    if len(input_shape) not in (1, 2):
        raise ConfigError(f'conv1d: samples have shape {input_shape}: expected (steps, features) or (steps,); set data.view = "rows"')
    size, inputs = input_shape[0], input_shape[1] if len(input_shape) == 2 else 1
    first: dict[str, nn.Module] = {"channels_first": ChannelsFirst()}
    kinds = (nn.Conv1d, nn.MaxPool1d)
    return _network("conv1d", kinds, first, inputs, size, classes, generator, channels, kernel, activation, initialisation)


@models("conv3d", source="Tran et al. 2015, arXiv:1412.0767 (C3D)", sample=(1, 8, 8, 8))
def conv3d(
    *,
    input_shape: tuple[int, ...],
    classes: int,
    generator: Generator,
    channels: Sequence[int] = (8, 16),
    kernel: int = 3,
    activation: str = "relu",
    initialisation: str = "he-normal",
) -> nn.Module:
    """Convolutions over volumes, each but the last pooled by 2; (n, channels, depth, height, width) -> (n, classes).

    Children conv1, act1, pool1, conv2, act2, ..., pool, output.
    """
    if len(input_shape) != 4:
        raise ConfigError(f"conv3d: samples have shape {input_shape}: expected (channels, depth, height, width)")
    inputs, *sizes = input_shape
    kinds = (nn.Conv3d, nn.MaxPool3d)
    return _network("conv3d", kinds, {}, inputs, min(sizes), classes, generator, channels, kernel, activation, initialisation)


def _network(
    name: str, kinds: tuple[Any, Any], first: dict[str, nn.Module], inputs: int, size: int, classes: int, generator: Generator,
    channels: Sequence[int], kernel: int, activation: str, initialisation: str,
) -> nn.Module:  # fmt: skip
    positive(f"{name}: channels", channels), positive(f"{name}: kernel", [kernel])
    if not channels or kernel % 2 == 0 or size < 2 ** (len(channels) - 1):
        raise ConfigError(
            f"{name}: channels = {list(channels)}, kernel = {kernel} on sizes of at least {size}: expected at least one layer, "
            "an odd kernel, and no more layers than there are halvings"
        )

    def make() -> nn.Module:
        layers, depth = dict(first), inputs
        for number, width in enumerate(channels, 1):
            layers[f"conv{number}"] = kinds[0](depth, width, kernel, padding=kernel // 2)
            layers[f"act{number}"] = activation_module(activation)
            if number < len(channels):
                layers[f"pool{number}"] = kinds[1](2)
            depth = width
        return nn.Sequential(OrderedDict(layers | {"pool": Pooled(), "output": nn.Linear(depth, classes)}))

    model = drawn_later(make)
    initialise(model, initialisation, generator)
    return model
