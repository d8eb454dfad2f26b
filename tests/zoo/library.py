"""The networks that prunescope builds itself, small."""

from __future__ import annotations

from typing import Any

from torch import nn

from zoo.registry import LARGER, ZOO, Input, Member, Shape

CLASSES = 5


def library(name: str, kind: str, shape: Shape, *, other: Shape | None = None, tokens: int = 0, **options: Any) -> None:
    """Add prunescope's model `kind` with `options` under `name`."""

    def make() -> nn.Module:
        from prunescope.models import build

        if tokens:
            options["tokens"] = tokens
        return build(kind, input_shape=shape[1:], classes=CLASSES, seed=0, options=options)

    ZOO[name] = Member(name, make, (Input(shape, tokens, other),), ("prunescope",))


library("mlp_relu", "mlp", (4, 10), widths=[16, 12])
library("lenet_300_100", "lenet-300-100", (2, 1, 28, 28))
library("lenet_5", "lenet-5", (2, 1, 28, 28))
library("cnn", "cnn", (2, 3, 12, 12), channels=[8, 12], dense=16)
library("vgg_bn", "vgg", (2, 3, 32, 32), width=4)
library("resnet_8", "resnet", (2, 3, 12, 12), other=LARGER, depth=8, width=8)
library("resnet_bottleneck", "resnet", (2, 3, 12, 12), other=LARGER, depth=11, width=4, block="bottleneck")
library("densenet_bc", "densenet", (2, 3, 12, 12), other=LARGER, blocks=[2, 2], growth=4)
library("mobilenet_v2", "mobilenet", (2, 3, 12, 12), other=LARGER, widths=[6, 8], repeats=2, expansion=3)
library("unet_pooled", "unet", (2, 3, 13, 13), other=(2, 3, 16, 20), width=4)
library("lstm_stack", "lstm", (2, 5, 6), other=(2, 8, 6), hidden=8, layers=2)
library("transformer", "transformer", (2, 5, 6), width=16, heads=2, hidden=20)
library("gpt_grouped_tied", "causal-transformer", (2, 6), tokens=CLASSES, width=16, heads=4, key_value_heads=2, hidden=20, tied=True)
