"""The convolutional network of the information-plane study."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Generator, nn
from torch.nn.utils import skip_init

from prunescope.models.activations import activation_module
from prunescope.models.initialisation import initialise
from prunescope.models.layers import dense_layers, head, positive
from prunescope.registry import models
from prunescope.types import ConfigError


@models("cnn", source="aidinattar/info-bottleneck 2024: conv 32, pool, conv 64, pool, dense 128")
def cnn(
    *,
    input_shape: tuple[int, ...],
    classes: int,
    generator: Generator,
    channels: Sequence[int] = (32, 64),
    dense: int = 128,
    kernel: int = 3,
    padding: int = 1,
    activation: str = "relu",
    bias: bool = True,
    initialisation: str = "glorot-uniform",
    output: str = "logits",
) -> nn.Sequential:
    """Convolutions, each halved by 2 x 2 max pooling, and one dense layer; images (n, c, h, w) -> (n, classes).

    Children: conv1, act1, pool1, conv2, act2, pool2, flatten, fc1, act3, output.
    """
    if len(input_shape) != 3:
        raise ConfigError(f"cnn: samples have shape {input_shape}: expected (channels, height, width), so leave out pca and flatten")
    positive("cnn: channels", channels), positive("cnn: dense", [dense]), positive("cnn: kernel", [kernel])
    if padding < 0:
        raise ConfigError(f"cnn: padding = {padding}: expected a whole number of at least 0")
    layers = _convolutions(input_shape[0], channels, kernel, padding, activation, bias)
    height, width = (_pooled_size(size, len(channels), kernel, padding) for size in input_shape[1:])
    if height < 1 or width < 1:
        raise ConfigError(
            f"cnn: {len(channels)} convolutions of kernel {kernel} with pooling leave nothing of an image of {input_shape[1]} x "
            f"{input_shape[2]} pixels: use fewer channels, a smaller kernel or more padding"
        )
    layers["flatten"] = nn.Flatten()
    depth = channels[-1] if channels else input_shape[0]
    layers |= dense_layers(depth * height * width, [dense], activation, bias=bias, first_act=len(channels) + 1)
    layers |= head(dense, classes, output, bias=bias)
    model = nn.Sequential(OrderedDict(layers))
    initialise(model, initialisation, generator)
    return model


def _convolutions(
    depth: int, channels: Sequence[int], kernel: int, padding: int, activation: str, bias: bool
) -> dict[str, nn.Module]:
    layers: dict[str, nn.Module] = {}
    for number, width in enumerate(channels, 1):
        layers[f"conv{number}"] = skip_init(nn.Conv2d, depth, width, kernel, padding=padding, bias=bias)
        layers[f"act{number}"] = activation_module(activation)
        layers[f"pool{number}"] = nn.MaxPool2d(2)
        depth = width
    return layers


def _pooled_size(size: int, count: int, kernel: int, padding: int) -> int:
    """Pixels along one side after `count` times convolution and pooling; 0 where nothing is left.

    >>> _pooled_size(28, 2, 3, 1), _pooled_size(28, 2, 3, 0), _pooled_size(4, 3, 3, 0)
    (7, 5, 0)
    """
    for _ in range(count):
        size = max(size + 2 * padding - kernel + 1, 0) // 2
    return size
