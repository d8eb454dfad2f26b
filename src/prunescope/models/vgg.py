"""VGG: stages of 3 x 3 convolutions, each halved by pooling."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Generator, nn

from prunescope.models.activations import activation_module
from prunescope.models.initialisation import drawn_later, initialise
from prunescope.models.layers import Pooled, image_shape, positive
from prunescope.registry import models
from prunescope.types import ConfigError

DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
STAGES = (64, 128, 256, 512, 512)  # channels of each stage in the paper, divided by 64 / width


@models("vgg", source="Simonyan & Zisserman 2015, arXiv:1409.1556, table 1; BatchNorm and mean pooling instead of the dense layers")
def vgg(
    *,
    input_shape: tuple[int, ...],
    classes: int,
    generator: Generator,
    depth: int = 11,
    width: int = 16,
    stages: Sequence[Sequence[int]] | None = None,
    batch_norm: bool = True,
    activation: str = "relu",
    initialisation: str = "he-normal",
) -> nn.Sequential:
    """VGG of `depth` 11, 13, 16 or 19 with `width` channels in the first stage (64 in the paper); images -> (n, classes).

    stages   channels of each convolution by stage, instead of depth and width: [[8, 8], [16]]
    Children conv1, bn1, act1, ..., pool1 after each stage for as long as more than one pixel is left, then pool, output.
    """
    channels, *size = image_shape("vgg", input_shape)
    if stages is None and depth not in DEPTHS:
        raise ConfigError(f"vgg: depth = {depth}: expected one of {', '.join(map(str, DEPTHS))}, or stages of your own")
    counts = DEPTHS.get(depth, ())
    plan = stages if stages is not None else [[max(1, c * width // 64)] * n for c, n in zip(STAGES, counts, strict=True)]
    positive("vgg: width", [width])
    for stage in plan:
        positive("vgg: stages", stage)
    model = drawn_later(lambda: nn.Sequential(OrderedDict(_layers(channels, min(size), plan, classes, batch_norm, activation))))
    initialise(model, initialisation, generator)
    model.plane_layers = [f"act{sum(len(s) for s in plan[: i + 1])}@maps" for i in range(len(plan))]  # type: ignore[assignment]
    return model  # type: ignore[return-value]


def _layers(
    channels: int, size: int, plan: Sequence[Sequence[int]], classes: int, batch_norm: bool, activation: str
) -> dict[str, nn.Module]:
    layers: dict[str, nn.Module] = {}
    number = 0
    for place, stage in enumerate(plan, 1):
        for outputs in stage:
            number += 1
            layers[f"conv{number}"] = nn.Conv2d(channels, outputs, 3, padding=1, bias=not batch_norm)
            if batch_norm:
                layers[f"bn{number}"] = nn.BatchNorm2d(outputs)
            layers[f"act{number}"] = activation_module(activation)
            channels = outputs
        if size > 1:
            layers[f"pool{place}"] = nn.MaxPool2d(2)
            size //= 2
    layers["pool"] = Pooled()
    layers["output"] = nn.Linear(channels, classes)
    return layers
