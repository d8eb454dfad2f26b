"""The multi-layer perceptron of the studies."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import Generator, nn

from prunescope.models.initialisation import initialise
from prunescope.models.layers import dense_layers, head, positive
from prunescope.registry import models


@models("mlp", source="Rumelhart, Hinton, Williams 1986; widths and initialisations of the studies in the presets")
def mlp(
    *,
    input_shape: tuple[int, ...],
    classes: int,
    generator: Generator,
    widths: Sequence[int] = (64, 32),
    activation: str = "relu",
    bias: bool = True,
    initialisation: str = "glorot-uniform",
    output: str = "logits",
) -> nn.Sequential:
    """Fully connected network input -> widths -> classes with children fc1, act1, fc2, ..., output; returns (n, classes).

    Images are flattened first. `output`: "logits", "log-softmax", "softmax" or "sigmoid" (one unit for two classes).
    """
    widths = positive("mlp: widths", widths)
    inputs = math.prod(input_shape)
    layers: dict[str, nn.Module] = {"flatten": nn.Flatten()} if len(input_shape) > 1 else {}
    layers |= dense_layers(inputs, widths, activation, bias=bias)
    layers |= head(widths[-1] if widths else inputs, classes, output, bias=bias)
    model = nn.Sequential(OrderedDict(layers))
    initialise(model, initialisation, generator)
    return model
