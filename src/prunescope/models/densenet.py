"""DenseNet: every layer of a block reads all the maps before it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from prunescope.models.activations import activation_module
from prunescope.models.initialisation import drawn_later, initialise
from prunescope.models.layers import Pooled, image_shape, positive
from prunescope.registry import models
from prunescope.types import ConfigError


class DenseLayer(nn.Module):
    """Norm, activation and convolution (1 x 1 to four times the growth, then 3 x 3); gives its input with `growth` maps joined on."""

    def __init__(self, inputs: int, growth: int, bottleneck: bool, activation: str) -> None:
        super().__init__()
        inner = 4 * growth if bottleneck else inputs
        self.bottleneck = bottleneck
        if bottleneck:
            self.bn1, self.act1 = nn.BatchNorm2d(inputs), activation_module(activation)
            self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn2, self.act2 = nn.BatchNorm2d(inner), activation_module(activation)
        self.conv2 = nn.Conv2d(inner, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The old maps and the new ones."""
        new = self.conv1(self.act1(self.bn1(x))) if self.bottleneck else x
        return torch.cat([x, self.conv2(self.act2(self.bn2(new)))], 1)


@models("densenet", source="Huang, Liu, van der Maaten, Weinberger 2017, arXiv:1608.06993, table 1 and section 3 (BC)")
def densenet(
    *,
    input_shape: tuple[int, ...],
    classes: int,
    generator: Generator,
    blocks: Sequence[int] = (3, 3, 3),
    growth: int = 8,
    compression: float = 0.5,
    bottleneck: bool = True,
    activation: str = "relu",
    initialisation: str = "he-normal",
) -> nn.Sequential:
    """DenseNet with `blocks` layers a block, `growth` maps a layer; images (n, c, h, w) -> (n, classes). DenseNet-121: (6, 12, 24, 16), 32.

    compression   share of the maps that the 1 x 1 convolution between two blocks keeps
    Children conv1, block1 (layer1 with bn1, act1, conv1, bn2, act2, conv2; layer2; ...), transition1 (bn, act, conv, pool), block2, ...
    """
    channels, *size = image_shape("densenet", input_shape)
    positive("densenet: blocks", blocks), positive("densenet: growth", [growth])
    if not 0 < compression <= 1:
        raise ConfigError(f"densenet: compression = {compression}: expected a share above 0 and at most 1")
    if min(size) < 2 ** (len(blocks) - 1):
        raise ConfigError(f"densenet: {len(blocks)} blocks halve images of {size[0]} x {size[1]} pixels to nothing: use fewer blocks")

    def make() -> nn.Module:
        maps = 2 * growth
        layers: dict[str, nn.Module] = {"conv1": nn.Conv2d(channels, maps, 3, padding=1, bias=False)}
        for place, count in enumerate(blocks, 1):
            rows = {f"layer{i + 1}": DenseLayer(maps + i * growth, growth, bottleneck, activation) for i in range(count)}
            layers[f"block{place}"] = nn.Sequential(OrderedDict(rows))
            maps += count * growth
            if place < len(blocks):
                layers[f"transition{place}"] = _transition(maps, max(1, int(compression * maps)), activation)
                maps = max(1, int(compression * maps))
        layers |= {"bn": nn.BatchNorm2d(maps), "act": activation_module(activation), "pool": Pooled(), "output": nn.Linear(maps, classes)}
        return nn.Sequential(OrderedDict(layers))

    model = drawn_later(make)
    initialise(model, initialisation, generator)
    model.plane_layers = [f"block{number}@maps" for number in range(1, len(blocks) + 1)]  # type: ignore[assignment]
    return model  # type: ignore[return-value]


def _transition(inputs: int, outputs: int, activation: str) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            bn=nn.BatchNorm2d(inputs),
            act=activation_module(activation),
            conv=nn.Conv2d(inputs, outputs, 1, bias=False),
            pool=nn.AvgPool2d(2),
        )
    )
