"""LeNet-300-100 and LeNet-5, the networks of the lottery-ticket studies."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Literal

from torch import Generator, nn
from torch.nn.utils import skip_init

from prunescope.models.activations import activation_module
from prunescope.models.initialisation import initialise
from prunescope.models.layers import dense_layers, head, image_shape
from prunescope.registry import models
from prunescope.types import ConfigError


@models("lenet-300-100", source="LeCun, Bottou, Bengio, Haffner 1998, sec. III.C.2 (300-100); Glorot normal as Frankle & Carbin 2019")
def lenet_300_100(
    *,
    input_shape: tuple[int, ...],
    classes: int,
    generator: Generator,
    activation: str = "relu",
    initialisation: str = "glorot-normal",
) -> nn.Sequential:
    """Fully connected 300-100 network, any samples (flattened) -> (n, classes); children fc1, act1, fc2, act2, output."""
    layers: dict[str, nn.Module] = {"flatten": nn.Flatten()} if len(input_shape) > 1 else {}
    layers |= dense_layers(math.prod(input_shape), [300, 100], activation, bias=True)
    model = nn.Sequential(OrderedDict(layers | head(100, classes, "logits", bias=True)))
    initialise(model, initialisation, generator)
    return model


@models("lenet-5", source="LeCun, Bottou, Bengio, Haffner 1998, fig. 2", sample=(1, 28, 28))
def lenet_5(
    *,
    input_shape: tuple[int, ...],
    classes: int,
    generator: Generator,
    activation: str = "relu",
    pooling: Literal["max", "mean"] = "max",
    initialisation: str = "glorot-normal",
) -> nn.Sequential:
    """Convolutions of 6 and 16 maps (5 x 5, each pooled by 2), dense 120 and 84; images (n, c, h, w) -> (n, classes).

    Children conv1, act1, pool1, conv2, act2, pool2, flatten, fc1, act3, fc2, act4, output. The first convolution is padded by 2, so that
    28 x 28 pixels give the 32 x 32 of the paper; activation = "tanh" and pooling = "mean" are nearest to it.
    """
    depth, height, width = image_shape("lenet-5", input_shape)
    rows, columns = ((size // 2 - 4) // 2 for size in (height, width))
    if rows < 1 or columns < 1:
        raise ConfigError(f"lenet-5: images of {height} x {width} pixels leave nothing for the convolutions: expected at least 12 x 12")
    layers: dict[str, nn.Module] = {}
    for number, (inputs, outputs, padding) in enumerate(((depth, 6, 2), (6, 16, 0)), 1):
        layers[f"conv{number}"] = skip_init(nn.Conv2d, inputs, outputs, 5, padding=padding)
        layers[f"act{number}"] = activation_module(activation)
        layers[f"pool{number}"] = nn.MaxPool2d(2) if pooling == "max" else nn.AvgPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers |= dense_layers(16 * rows * columns, [120, 84], activation, bias=True, first_act=3)
    model = nn.Sequential(OrderedDict(layers | head(84, classes, "logits", bias=True)))
    initialise(model, initialisation, generator)
    return model
