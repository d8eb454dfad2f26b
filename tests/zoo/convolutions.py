"""Convolutional networks for images: the classical families, and what couples their channels (sums, concat, groups, shuffles, gates)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from zoo.registry import image, member


def conv(a: int, b: int, k: int = 3, stride: int = 1, groups: int = 1, act: nn.Module | None = None) -> nn.Sequential:
    """Convolution, batch norm, activation."""
    layers = [nn.Conv2d(a, b, k, stride, k // 2, groups=groups, bias=False), nn.BatchNorm2d(b)]
    return nn.Sequential(*layers, *([act] if act is not None else []))


def head(channels: int, classes: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


@member((2, 1, 28, 28))
def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 8, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(200, 16), nn.Tanh(), nn.Linear(16, 10),
    )  # fmt: skip


@member()
def vgg():
    layers = [m for a, b in ((3, 8), (8, 12), (12, 16)) for m in (*conv(a, b, act=nn.ReLU(inplace=True)), nn.MaxPool2d(2))]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Dropout(), nn.Linear(12, 5))


class Basic(nn.Module):
    def __init__(self, a: int, b: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(*conv(a, b, 3, stride, act=nn.ReLU(inplace=True)), *conv(b, b))
        self.short = conv(a, b, 1, stride) if a != b or stride > 1 else nn.Identity()

    def forward(self, x):
        out = self.body(x)
        out += self.short(x)
        return F.relu(out, inplace=True)


@image
def resnet():
    return nn.Sequential(conv(3, 8, act=nn.ReLU()), Basic(8, 8), Basic(8, 8), Basic(8, 12, 2), Basic(12, 12), head(12))


class Bottleneck(nn.Module):
    def __init__(self, a: int, mid: int, groups: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(a, mid, 1, act=nn.ReLU()), conv(mid, mid, 3, groups=groups, act=nn.ReLU()), conv(mid, a, 1))

    def forward(self, x):
        return F.relu(x + self.body(x))


@image
def bottleneck():
    return nn.Sequential(conv(3, 12, act=nn.ReLU()), Bottleneck(12, 6), Bottleneck(12, 6), head(12))


@image
def resnext():
    return nn.Sequential(conv(3, 16, act=nn.ReLU()), Bottleneck(16, 12, groups=3), Bottleneck(16, 12, groups=4), head(16))


class PreAct(nn.Module):
    def __init__(self, a: int) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(a), nn.BatchNorm2d(a + 2)
        self.conv1, self.conv2 = nn.Conv2d(a, a + 2, 3, padding=1), nn.Conv2d(a + 2, a, 3, padding=1)

    def forward(self, x):
        y = self.conv1(F.relu(self.bn1(x)))
        return x + self.conv2(F.relu(self.bn2(y)))


@image
def preactivation():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), PreAct(8), PreAct(8), nn.BatchNorm2d(8), nn.ReLU(), head(8))


class PaddedShortcut(nn.Module):
    """A shortcut without weights: strided and filled up with zero channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = conv(3, 6, act=nn.ReLU()), conv(6, 10, 3, 2)
        self.out = head(10)

    def forward(self, x):
        x = self.stem(x)
        return self.out(F.relu(self.body(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))))


image(PaddedShortcut)


class Dense(nn.Module):
    def __init__(self, a: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.BatchNorm2d(a), nn.ReLU(), nn.Conv2d(a, growth, 3, padding=1, bias=False))

    def forward(self, x):
        return torch.cat([x, self.body(x)], 1)


@image
def densenet():
    transition = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1), nn.AvgPool2d(2))
    stem = (nn.Conv2d(3, 8, 3, padding=1), Dense(8, 4), Dense(12, 4), transition)
    return nn.Sequential(*stem, Dense(8, 4), nn.BatchNorm2d(12), nn.ReLU(), head(12))


@image
def mobilenet():
    blocks = [m for a, b in ((8, 12), (12, 16)) for m in (conv(a, a, groups=a, act=nn.ReLU6()), conv(a, b, 1, act=nn.ReLU6()))]
    return nn.Sequential(conv(3, 8, act=nn.ReLU6()), *blocks, head(16))


class Excite(nn.Module):
    def __init__(self, a: int, gate: nn.Module) -> None:
        super().__init__()
        self.fc1, self.fc2, self.gate = nn.Conv2d(a, 4, 1), nn.Conv2d(4, a, 1), gate

    def forward(self, x):
        return x * self.gate(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))))


class Inverted(nn.Module):
    def __init__(self, a: int, wide: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(a, wide, 1, act=nn.Hardswish()), conv(wide, wide, groups=wide, act=nn.Hardswish()),
            Excite(wide, nn.Hardsigmoid()), conv(wide, a, 1),
        )  # fmt: skip

    def forward(self, x):
        return x + self.body(x)


@image
def invertedresidual():
    return nn.Sequential(conv(3, 8, act=nn.Hardswish()), Inverted(8, 16), Inverted(8, 16), head(8))


@image
def squeezeexcite():
    return nn.Sequential(conv(3, 8, act=nn.SiLU()), Excite(8, nn.Sigmoid()), nn.Conv2d(8, 6, 3), head(6))


class Fire(nn.Module):
    def __init__(self, a: int, mid: int, b: int) -> None:
        super().__init__()
        self.squeeze, self.one, self.three = nn.Conv2d(a, mid, 1), nn.Conv2d(mid, b, 1), nn.Conv2d(mid, b, 3, padding=1)

    def forward(self, x):
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.one(x)), F.relu(self.three(x))], 1)


@image
def squeezenet():
    body = (nn.Conv2d(3, 8, 3), nn.ReLU(), Fire(8, 4, 6), nn.MaxPool2d(2), Fire(12, 4, 8))
    return nn.Sequential(*body, nn.Conv2d(16, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class UNet(nn.Module):
    def __init__(self, transposed: bool = True) -> None:
        super().__init__()
        self.down1, self.down2, self.mid = conv(3, 6, act=nn.ReLU()), conv(6, 8, act=nn.ReLU()), conv(8, 10, act=nn.LeakyReLU())
        self.up2, self.up1 = nn.ConvTranspose2d(10, 8, 2, 2), nn.ConvTranspose2d(8, 6, 2, 2)
        if not transposed:
            self.up2 = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(10, 8, 1))
            self.up1 = nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(8, 6, 1))
        self.fuse2, self.fuse1, self.out = conv(16, 8, act=nn.ReLU()), conv(12, 6, act=nn.ReLU()), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        c = self.mid(F.max_pool2d(b, 2))
        b = self.fuse2(torch.cat([b, self.up2(c)], 1))
        return self.out(self.fuse1(torch.cat([a, self.up1(b)], 1)))


image(UNet)


@image
def unetupsampled():
    return UNet(transposed=False)


class Shuffle(nn.Module):
    def __init__(self, a: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.first, self.depth, self.last = conv(a, a, 1, groups=groups, act=nn.ReLU()), conv(a, a, groups=a), conv(a, a, 1, groups=groups)

    def forward(self, x):
        y = self.first(x)
        b, c, h, w = y.shape
        y = y.view(b, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(b, c, h, w)
        return F.relu(x + self.last(self.depth(y)))


@image
def shufflenet():
    return nn.Sequential(conv(3, 16, act=nn.ReLU()), Shuffle(16, 2), Shuffle(16, 2), head(16))


@image
def pixelshuffle():
    body = (nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 24, 3, padding=1))
    return nn.Sequential(*body, nn.PixelShuffle(2), nn.PReLU(6), nn.Conv2d(6, 3, 1))


@image
def groupnorm():
    body = (nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 6, 3))
    return nn.Sequential(*body, nn.InstanceNorm2d(6, affine=True), nn.ReLU(), head(6))


@image
def groupedtransposed():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 12, 3, groups=2), nn.ReLU(),
        nn.ConvTranspose2d(12, 12, 3, groups=12), nn.ReLU(), nn.Conv2d(12, 4, 1), head(4),
    )  # fmt: skip


class ConvNext(nn.Module):
    def __init__(self, a: int) -> None:
        super().__init__()
        self.depth, self.norm, self.gamma = nn.Conv2d(a, a, 3, padding=1, groups=a), nn.LayerNorm(a), nn.Parameter(torch.rand(a))
        self.wide, self.narrow = nn.Linear(a, 4 * a), nn.Linear(4 * a, a)

    def forward(self, x):
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        return x + (self.gamma * self.narrow(F.gelu(self.wide(y)))).permute(0, 3, 1, 2)


@image
def convnext():
    return nn.Sequential(nn.Conv2d(3, 8, 2, 2), ConvNext(8), ConvNext(8), head(8))
