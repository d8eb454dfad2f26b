"""The named layers and checks that the networks share: dense stack, output layer, pooled maps, shapes of samples."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.utils import skip_init

from prunescope.models.activations import activation_module
from prunescope.registry import unknown
from prunescope.types import ConfigError

OUTPUTS = ("logits", "log-softmax", "softmax", "sigmoid")


def linear(inputs: int, outputs: int, *, bias: bool) -> nn.Module:
    """A linear layer whose values are yet to be drawn: torch's own initialisation would touch the global generator."""
    layer: nn.Module = skip_init(nn.Linear, inputs, outputs, bias=bias)
    return layer


def dense_layers(inputs: int, widths: Sequence[int], activation: str, *, bias: bool, first_act: int = 1) -> dict[str, nn.Module]:
    """fc1, act1, fc2, act2, ...: linear layers of `widths`, each with its activation numbered from `first_act`."""
    layers: dict[str, nn.Module] = {}
    for number, width in enumerate(widths):
        layers[f"fc{number + 1}"] = linear(inputs, width, bias=bias)
        layers[f"act{number + first_act}"] = activation_module(activation)
        inputs = width
    return layers


def head(inputs: int, classes: int, output: str, *, bias: bool) -> dict[str, nn.Module]:
    """The layer "output" and, unless logits are asked for, the module that makes probabilities of them.

    "sigmoid" has one unit for two classes (the probability of class 1), else one a class.
    """
    if output not in OUTPUTS:
        raise ConfigError(unknown("output", output, list(OUTPUTS)))
    units = 1 if output == "sigmoid" and classes == 2 else classes
    layers: dict[str, nn.Module] = {"output": linear(inputs, units, bias=bias)}
    if output == "log-softmax":
        layers["log_softmax"] = nn.LogSoftmax(dim=-1)
    elif output == "softmax":
        layers["softmax"] = nn.Softmax(dim=-1)
    elif output == "sigmoid":
        layers["sigmoid"] = nn.Sigmoid()
    return layers


def positive(label: str, values: Sequence[int]) -> list[int]:
    """`values` as a list, or a ConfigError naming the first below 1."""
    for value in values:
        if value < 1:
            raise ConfigError(f"{label} = {list(values)}: expected whole numbers of at least 1, got {value}")
    return list(values)


def image_shape(model: str, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(channels, height, width), or a ConfigError where the samples are no images."""
    if len(input_shape) != 3:
        raise ConfigError(f"{model}: samples have shape {input_shape}: expected (channels, height, width): set no pca, flatten or view")
    return input_shape[0], input_shape[1], input_shape[2]


def sequence_shape(model: str, input_shape: tuple[int, ...]) -> tuple[int, int]:
    """(steps, features), or a ConfigError where the samples are no sequences."""
    if len(input_shape) != 2:
        raise ConfigError(
            f'{model}: samples have shape {input_shape}: expected (steps, features); data.view = "rows" makes them of images'
        )
    return input_shape[0], input_shape[1]


class Pooled(nn.Module):
    """Mean over all positions of each map: (n, channels, ...) -> (n, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        """The maps' means."""
        return x.flatten(2).mean(2)
