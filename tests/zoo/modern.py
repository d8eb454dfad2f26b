"""Image networks after 2015: gates, inverted residuals, split and shuffled channels, several outputs, generators."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from zoo.convolutions import Excite, Inverted, conv, head
from zoo.registry import LARGER, image, member


class Squeezed(nn.Module):
    """A residual block whose branch is gated by what it holds on average; the gate's layers are linear."""

    def __init__(self, a: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(a, a, act=nn.ReLU()), conv(a, a))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(a, 4), nn.ReLU(), nn.Linear(4, a), nn.Sigmoid())

    def forward(self, x):
        y = self.body(x)
        return F.relu(x + y * self.gate(y)[:, :, None, None])


@image
def se_resnet():
    return nn.Sequential(conv(3, 10, act=nn.ReLU()), Squeezed(10), Squeezed(10), head(10))


@image
def mobilenet_v3():
    stem, tail = conv(3, 8, 3, 2, act=nn.Hardswish()), conv(8, 24, 1, act=nn.Hardswish())
    top = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 20), nn.Hardswish(), nn.Dropout(), nn.Linear(20, 5))
    return nn.Sequential(stem, Inverted(8, 12), Inverted(8, 20), tail, *top)


class Mobile(nn.Module):
    """EfficientNet's block: wider, depthwise 5 x 5, gated, narrower, with a shortcut where the shapes allow one."""

    def __init__(self, a: int, b: int, stride: int) -> None:
        super().__init__()
        wide = 3 * a
        self.body = nn.Sequential(
            conv(a, wide, 1, act=nn.SiLU()), conv(wide, wide, 5, stride, wide, nn.SiLU()), Excite(wide, nn.Sigmoid()), conv(wide, b, 1)
        )
        self.shortcut = stride == 1 and a == b

    def forward(self, x):
        return x + self.body(x) if self.shortcut else self.body(x)


@image
def efficientnet():
    blocks = (Mobile(6, 8, 1), Mobile(8, 8, 1), Mobile(8, 10, 2), Mobile(10, 10, 1))
    return nn.Sequential(conv(3, 6, 3, 1, act=nn.SiLU()), *blocks, conv(10, 16, 1, act=nn.SiLU()), head(16))


class Regular(nn.Module):
    """RegNet's block: 1 x 1, grouped 3 x 3, gate, 1 x 1, and a shortcut."""

    def __init__(self, a: int, b: int, stride: int, groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(a, b, 1, act=nn.ReLU()), conv(b, b, 3, stride, groups, nn.ReLU()), Excite(b, nn.Sigmoid()), conv(b, b, 1)
        )
        self.short = conv(a, b, 1, stride) if stride > 1 or a != b else nn.Identity()

    def forward(self, x):
        return F.relu(self.short(x) + self.body(x))


@image
def regnet():
    return nn.Sequential(conv(3, 8, act=nn.ReLU()), Regular(8, 12, 1, 3), Regular(12, 16, 2, 4), Regular(16, 16, 1, 4), head(16))


class Inception(nn.Module):
    """Four branches joined: 1 x 1; 1 x 1 and 3 x 3; 1 x 1 and 1 x 5, 5 x 1; pooling and 1 x 1."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.one, self.three = conv(a, b, 1, act=nn.ReLU()), nn.Sequential(conv(a, b, 1, act=nn.ReLU()), conv(b, b + 2, act=nn.ReLU()))
        flat, tall = nn.Conv2d(b, b, (1, 5), padding=(0, 2)), nn.Conv2d(b, b, (5, 1), padding=(2, 0))
        self.five = nn.Sequential(conv(a, b, 1, act=nn.ReLU()), flat, nn.ReLU(), tall, nn.ReLU())
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(a, b, 1, act=nn.ReLU()))

    def forward(self, x):
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pooled(x)], 1)


@image
def googlenet():
    return nn.Sequential(conv(3, 8, act=nn.ReLU()), nn.MaxPool2d(2), Inception(8, 4), Inception(18, 5), nn.Dropout(), head(22))


class Halves(nn.Module):
    """ShuffleNet v2: half of the channels pass, half go through convolutions; then both are joined and shuffled."""

    def __init__(self, a: int) -> None:
        super().__init__()
        half = a // 2
        self.body = nn.Sequential(conv(half, half, 1, act=nn.ReLU()), conv(half, half, groups=half), conv(half, half, 1, act=nn.ReLU()))
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x):
        kept, changed = x.chunk(2, 1)
        return self.shuffle(torch.cat([kept, self.body(changed)], 1))


@image
def shufflenet_v2():
    return nn.Sequential(conv(3, 12, act=nn.ReLU()), Halves(12), Halves(12), conv(12, 16, 1, act=nn.ReLU()), head(16))


@image
def instancenorm():
    one, two = nn.InstanceNorm2d(8, affine=True), nn.InstanceNorm2d(10, affine=True, track_running_stats=True)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), one, nn.ReLU(), nn.Conv2d(8, 10, 3), two, nn.LeakyReLU(), nn.Conv2d(10, 4, 3))


class ChannelsLast(nn.Module):
    """Maps flattened with the channels last, as networks from TensorFlow have them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 6, 3, 2), nn.Conv2d(6, 8, 3)
        self.wide, self.out = nn.Linear(72, 12), nn.Linear(12, 4)

    def forward(self, x):
        x = F.relu(self.two(F.relu(self.one(x))))
        return self.out(F.relu(self.wide(x.permute(0, 2, 3, 1).flatten(1))))


member()(ChannelsLast)


class Pyramid(nn.Module):
    """Maps of two sizes, the coarse ones added to the fine ones; two heads share a layer, and all results are returned."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = conv(3, 8, 3, 2, act=nn.ReLU()), conv(8, 12, 3, 2, act=nn.ReLU())
        self.lateral1, self.lateral2, self.smooth = nn.Conv2d(8, 10, 1), nn.Conv2d(12, 10, 1), nn.Conv2d(10, 10, 3, padding=1)
        self.classes, self.boxes = nn.Conv2d(10, 3, 1), nn.Conv2d(10, 4, 1)

    def forward(self, x):
        a = self.fine(x)
        b = self.coarse(a)
        b = self.lateral2(b)
        a = self.lateral1(a) + F.interpolate(b, size=a.shape[-2:], mode="nearest")
        maps = [F.relu(self.smooth(m)) for m in (a, b)]
        return [self.classes(m) for m in maps], [self.boxes(m) for m in maps]


image(Pyramid)


@member((2, 10), name="gan_generator")
def generator():
    grow = [
        layer for a, b in ((16, 12), (12, 8))
        for layer in (nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
    ]  # fmt: skip
    start = (nn.Linear(10, 16 * 9), nn.Unflatten(1, (16, 3, 3)), nn.BatchNorm2d(16), nn.ReLU())
    return nn.Sequential(*start, *grow, nn.ConvTranspose2d(8, 3, 3, 1, 1), nn.Tanh())


@member(other=LARGER)
def sigmoid_padded():
    """What a removed unit leaves is a constant that zero padding meets: 0.5 inside, 0 round the border."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Sigmoid(), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Softplus(),
        nn.Conv2d(8, 6, 3, 2, 1), nn.ELU(), head(6),
    )  # fmt: skip
