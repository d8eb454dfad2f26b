"""U-Net: an encoder, a decoder that reads the encoder's maps again, and a pooled head that classifies."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Generator, Tensor, nn

from prunescope.models.activations import activation_module
from prunescope.models.initialisation import drawn_later, initialise
from prunescope.models.layers import Pooled, image_shape, positive
from prunescope.registry import models
from prunescope.types import ConfigError


class UNet(nn.Module):
    """down1 ... middle ... up1 with skips joined on, `pixels` (a map for each class), `pool` (mean or none); images -> logits."""

    def __init__(self, channels: int, classes: int, width: int, depth: int, activation: str, pooled: bool) -> None:
        super().__init__()
        maps, self.depth = channels, depth
        for level in range(depth):
            self.add_module(f"down{level + 1}", _double(maps, width * 2**level, activation))
            maps = width * 2**level
        self.halve = nn.MaxPool2d(2)
        self.middle = _double(maps, 2 * maps, activation)
        maps *= 2
        for level in reversed(range(depth)):
            self.add_module(f"grow{level + 1}", nn.ConvTranspose2d(maps, maps // 2, 2, 2))
            maps //= 2
            self.add_module(f"up{level + 1}", _double(2 * maps, maps, activation))
        self.pixels = nn.Conv2d(maps, classes, 1)
        self.pool: nn.Module = Pooled() if pooled else nn.Identity()
        levels = range(1, depth + 1)
        self.plane_layers = [*(f"down{i}@maps" for i in levels), "middle@maps", *(f"up{i}@maps" for i in reversed(levels))]

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, classes), or one map of logits for each class where the head is not pooled."""
        skips = []
        for level in range(1, self.depth + 1):
            x = getattr(self, f"down{level}")(x)
            skips.append(x)
            x = self.halve(x)
        x = self.middle(x)
        for level in range(self.depth, 0, -1):
            skip = skips.pop()
            grown = getattr(self, f"grow{level}")(x, output_size=skip.shape[-2:])  # odd sizes lost a row in pooling
            x = getattr(self, f"up{level}")(torch.cat([skip, grown], 1))
        return self.pool(self.pixels(x))  # type: ignore[no-any-return]


def _double(inputs: int, outputs: int, activation: str) -> nn.Sequential:
    """Two 3 x 3 convolutions, each with norm and activation."""
    layers: dict[str, nn.Module] = {}
    for number, size in enumerate((inputs, outputs), 1):
        layers[f"conv{number}"] = nn.Conv2d(size, outputs, 3, padding=1, bias=False)
        layers[f"bn{number}"] = nn.BatchNorm2d(outputs)
        layers[f"act{number}"] = activation_module(activation)
    return nn.Sequential(OrderedDict(layers))


@models("unet", source="Ronneberger, Fischer, Brox 2015, arXiv:1505.04597, fig. 1; padded convolutions, BatchNorm")
def unet(
    *,
    input_shape: tuple[int, ...],
    classes: int,
    generator: Generator,
    width: int = 8,
    depth: int = 2,
    pooled: bool = True,
    activation: str = "relu",
    initialisation: str = "he-normal",
) -> nn.Module:
    """U-Net with `width` maps at full size, halved `depth` times; images (n, c, h, w) -> (n, classes), the mean over pixels.

    pooled = false gives (n, classes, h, w), as for segmentation. Children down1 (conv1, bn1, act1, conv2, ...), ..., middle, grow2, up2,
    ..., pixels, pool.
    """
    channels, *size = image_shape("unet", input_shape)
    positive("unet: width", [width]), positive("unet: depth", [depth])
    if min(size) < 2**depth:
        raise ConfigError(f"unet: depth = {depth} halves images of {size[0]} x {size[1]} pixels to nothing: lower it")
    model = drawn_later(lambda: UNet(channels, classes, width, depth, activation, pooled))
    initialise(model, initialisation, generator)
    return model
