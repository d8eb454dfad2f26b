"""Residual networks: basic and bottleneck blocks, in the layouts for ImageNet and for CIFAR."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import Generator, Tensor, nn

from prunescope.models.activations import activation_module
from prunescope.models.initialisation import drawn_later, initialise
from prunescope.models.layers import Pooled, image_shape, positive
from prunescope.registry import models
from prunescope.types import ConfigError

Block = Literal["basic", "bottleneck"]
SOURCE = "He, Zhang, Ren, Sun 2016, arXiv:1512.03385, table 1 (ImageNet) and section 4.2 (CIFAR)"
IMAGENET: dict[int, tuple[Block, tuple[int, ...]]] = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}
EXPANSION = 4  # a bottleneck block gives four times as many maps as its inner convolutions
LARGE_IMAGE = 64  # pixels a side from which the ImageNet layouts begin with stride and pooling


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions ("basic"), or 1 x 1, 3 x 3, 1 x 1 ("bottleneck"), and a shortcut around them; maps -> maps."""

    def __init__(self, inputs: int, width: int, stride: int, kind: Block, activation: str) -> None:
        super().__init__()
        outputs = width if kind == "basic" else EXPANSION * width
        if kind == "basic":
            sizes = [(inputs, width, 3, stride), (width, width, 3, 1)]
        else:
            sizes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        for number, (a, b, kernel, step) in enumerate(sizes, 1):
            self.add_module(f"conv{number}", nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False))
            self.add_module(f"bn{number}", nn.BatchNorm2d(b))
            self.add_module(f"act{number}", activation_module(activation))
        self.count = len(sizes)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """The block's maps; the last activation comes after the addition."""
        shortcut = x if self.downsample is None else self.downsample(x)
        for number in range(1, self.count + 1):
            x = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(x))
            x = getattr(self, f"act{number}")(x if number < self.count else x + shortcut)
        return x


@models("resnet", source=SOURCE)
def resnet(
    *,
    input_shape: tuple[int, ...],
    classes: int,
    generator: Generator,
    depth: int = 20,
    width: int | None = None,
    block: Block | None = None,
    stem: Literal["auto", "large", "small"] = "auto",
    activation: str = "relu",
    initialisation: str = "he-normal",
) -> nn.Sequential:
    """Residual network of `depth` layers; images (n, c, h, w) -> (n, classes).

    depth   18, 34, 50, 101 or 152: four stages, as for ImageNet; 6 n + 2 (8, 14, 20, 32, ...; bottleneck 9 n + 2): three, as for CIFAR
    width   maps of the first stage (64 and 16 unless set); each further stage has twice as many
    block   "basic" or "bottleneck", where the depth leaves the choice
    stem    "large": 7 x 7 convolution of stride 2 and pooling; "small": 3 x 3; "auto": large for ImageNet depths and 64 pixels or more
    Children conv1, bn1, act1, layer1 (blocks 0, 1, ... with conv1, bn1, act1, ..., downsample), layer2, ..., pool, output.
    """
    channels, *size = image_shape("resnet", input_shape)
    kind, counts = _plan(depth, block)
    large = stem == "large" or (stem == "auto" and depth in IMAGENET and min(size) >= LARGE_IMAGE)
    first = width if width is not None else (64 if depth in IMAGENET else 16)
    positive("resnet: width", [first])

    def make() -> nn.Module:
        return nn.Sequential(OrderedDict(_stem(channels, first, large, activation) | _stages(first, kind, counts, classes, activation)))

    model = drawn_later(make)
    initialise(model, initialisation, generator)
    model.plane_layers = [f"layer{number}@maps" for number in range(1, len(counts) + 1)]  # type: ignore[assignment]
    return model  # type: ignore[return-value]


@models("resnet18", source=SOURCE, example_options={"width": 4})
def resnet18(
    *, input_shape: tuple[int, ...], classes: int, generator: Generator, width: int = 64, activation: str = "relu"
) -> nn.Sequential:
    """ResNet-18, basic blocks 2-2-2-2; images (n, c, h, w) -> (n, classes); `resnet` has all options."""
    return resnet(input_shape=input_shape, classes=classes, generator=generator, depth=18, width=width, activation=activation)


@models("resnet34", source=SOURCE, example_options={"width": 4})
def resnet34(
    *, input_shape: tuple[int, ...], classes: int, generator: Generator, width: int = 64, activation: str = "relu"
) -> nn.Sequential:
    """ResNet-34, basic blocks 3-4-6-3; images (n, c, h, w) -> (n, classes); `resnet` has all options."""
    return resnet(input_shape=input_shape, classes=classes, generator=generator, depth=34, width=width, activation=activation)


@models("resnet50", source=SOURCE, example_options={"width": 4})
def resnet50(
    *, input_shape: tuple[int, ...], classes: int, generator: Generator, width: int = 64, activation: str = "relu"
) -> nn.Sequential:
    """ResNet-50, bottleneck blocks 3-4-6-3; images (n, c, h, w) -> (n, classes); `resnet` has all options."""
    return resnet(input_shape=input_shape, classes=classes, generator=generator, depth=50, width=width, activation=activation)


def _plan(depth: int, block: Block | None) -> tuple[Block, tuple[int, ...]]:
    """The kind of block and the number of them in each stage."""
    if depth in IMAGENET:
        kind, counts = IMAGENET[depth]
        return block or kind, counts
    kind = block or "basic"
    period = 6 if kind == "basic" else 9
    if depth < period + 2 or (depth - 2) % period:
        raise ConfigError(
            f"resnet: depth = {depth}: expected one of {', '.join(map(str, IMAGENET))}, or {period} n + 2 for {kind} blocks "
            f"({period + 2}, {2 * period + 2}, {3 * period + 2}, ...)"
        )
    return kind, ((depth - 2) // period,) * 3


def _stem(channels: int, width: int, large: bool, activation: str) -> dict[str, nn.Module]:
    kernel, stride = (7, 2) if large else (3, 1)
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False),
        "bn1": nn.BatchNorm2d(width),
        "act1": activation_module(activation),
    }
    return layers | ({"pool1": nn.MaxPool2d(3, 2, 1)} if large else {})


def _stages(width: int, kind: Block, counts: tuple[int, ...], classes: int, activation: str) -> dict[str, nn.Module]:
    layers: dict[str, nn.Module] = {}
    inputs = width
    for place, count in enumerate(counts):
        maps = width * 2**place
        blocks = []
        for number in range(count):
            blocks.append(ResidualBlock(inputs, maps, 2 if place and not number else 1, kind, activation))
            inputs = maps if kind == "basic" else EXPANSION * maps
        layers[f"layer{place + 1}"] = nn.Sequential(*blocks)
    return layers | {"pool": Pooled(), "output": nn.Linear(inputs, classes)}
