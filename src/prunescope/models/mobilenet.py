"""MobileNet: depthwise convolutions, plain (version 1) and in inverted residuals (version 2)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

from torch import Generator, Tensor, nn

from prunescope.models.activations import activation_module
from prunescope.models.initialisation import drawn_later, initialise
from prunescope.models.layers import Pooled, image_shape, positive
from prunescope.registry import models


class InvertedResidual(nn.Module):
    """1 x 1 convolution to `expansion` times the maps, depthwise 3 x 3, 1 x 1 back without activation; added to its input where it fits."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, activation: str) -> None:
        super().__init__()
        inner = expansion * inputs
        self.expand = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1, self.act1 = nn.BatchNorm2d(inner), activation_module(activation)
        self.depthwise = nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False)
        self.bn2, self.act2 = nn.BatchNorm2d(inner), activation_module(activation)
        self.project = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """The block's maps."""
        y = self.act1(self.bn1(self.expand(x)))
        y = self.bn3(self.project(self.act2(self.bn2(self.depthwise(y)))))
        return x + y if self.residual else y  # type: ignore[no-any-return]


class Separable(nn.Module):
    """Depthwise 3 x 3 and pointwise 1 x 1 convolution, each with norm and activation (MobileNet version 1)."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: str) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
        self.bn1, self.act1 = nn.BatchNorm2d(inputs), activation_module(activation)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2, self.act2 = nn.BatchNorm2d(outputs), activation_module(activation)

    def forward(self, x: Tensor) -> Tensor:
        """The block's maps."""
        x = self.act1(self.bn1(self.depthwise(x)))
        return self.act2(self.bn2(self.pointwise(x)))  # type: ignore[no-any-return]


@models("mobilenet", source="Howard et al. 2017, arXiv:1704.04861 (separable); Sandler et al. 2018, arXiv:1801.04381, table 1 (inverted)")
def mobilenet(
    *,
    input_shape: tuple[int, ...],
    classes: int,
    generator: Generator,
    widths: Sequence[int] = (16, 24, 32),
    repeats: int = 2,
    block: Literal["inverted", "separable"] = "inverted",
    expansion: int = 4,
    activation: str = "relu6",
    initialisation: str = "he-normal",
) -> nn.Sequential:
    """Depthwise-separable network, `repeats` blocks a stage of `widths` maps, each stage but the first halved; images -> (n, classes).

    Children conv1, bn1, act1, stage1 (blocks 0, 1, ... with expand, depthwise, project or depthwise, pointwise), ..., pool, output.
    """
    channels, *_ = image_shape("mobilenet", input_shape)
    positive("mobilenet: widths", widths), positive("mobilenet: repeats, expansion", [repeats, expansion])

    def make() -> nn.Module:
        maps = widths[0]
        layers: dict[str, nn.Module] = {
            "conv1": nn.Conv2d(channels, maps, 3, padding=1, bias=False),
            "bn1": nn.BatchNorm2d(maps),
            "act1": activation_module(activation),
        }
        for place, width in enumerate(widths):
            blocks: list[nn.Module] = []
            for number in range(repeats):
                stride = 2 if place and not number else 1
                separable = block == "separable"
                blocks.append(
                    Separable(maps, width, stride, activation)
                    if separable
                    else InvertedResidual(maps, width, stride, expansion, activation)
                )
                maps = width
            layers[f"stage{place + 1}"] = nn.Sequential(*blocks)
        return nn.Sequential(OrderedDict(layers | {"pool": Pooled(), "output": nn.Linear(maps, classes)}))

    model = drawn_later(make)
    initialise(model, initialisation, generator)
    model.plane_layers = [f"stage{number}@maps" for number in range(1, len(widths) + 1)]  # type: ignore[assignment]
    return model  # type: ignore[return-value]
