"""Patches: the inputs that each output position of a convolution sees, as rows of features in the order of its weight."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

NUMBERS = 2**24  # values of patches held at once


def convolution_inputs(module: nn.Module, _local: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """The patches (groups, positions, features) of a call of a convolution of any dimension, transposed ones too, in parts."""
    assert isinstance(module, nn.modules.conv._ConvNd)
    x = args[0] if args else next(iter(kwargs.values()))
    dims = len(module.kernel_size)
    x = x if x.ndim == dims + 2 else x[None]
    transposed = isinstance(module, nn.modules.conv._ConvTransposeNd)
    step = max(1, NUMBERS // max(1, x[0].numel() * math.prod(module.kernel_size)))
    for start in range(0, len(x), step):
        part = x[start : start + step]
        yield _transposed(part, module) if transposed else _patches(_padded(part, module), module, module.stride, module.groups)


def _padded(x: Tensor, module: nn.modules.conv._ConvNd) -> Tensor:
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    return nn.functional.pad(x, module._reversed_padding_repeated_twice, mode=mode) if any(module._reversed_padding_repeated_twice) else x


def _patches(x: Tensor, module: nn.modules.conv._ConvNd, stride: tuple[int, ...], groups: int) -> Tensor:
    """(groups, positions, features) of `x` (n, channels, *space), already padded; features in order of channel and kernel position."""
    dims = len(module.kernel_size)
    for d, (size, step, gap) in enumerate(zip(module.kernel_size, stride, module.dilation, strict=True)):
        x = x.unfold(2 + d, (size - 1) * gap + 1, step)[..., ::gap]
    n, channels = x.shape[:2]
    x = x.reshape(n, groups, channels // groups, *x.shape[2:])
    space = tuple(range(3, 3 + dims))
    kernel = tuple(range(3 + dims, 3 + 2 * dims))
    return x.permute(1, 0, *space, 2, *kernel).reshape(groups, -1, channels // groups * math.prod(module.kernel_size))


def _transposed(x: Tensor, module: nn.modules.conv._ConvNd) -> Tensor:
    """The patches of a transposed convolution: those of a plain one over the input with zeros between, its kernel turned round."""
    n, channels, *space = x.shape
    spread = [(s - 1) * step + 1 for s, step in zip(space, module.stride, strict=True)]
    wide = x.new_zeros(n, channels, *spread)
    places: tuple[slice, ...] = tuple(slice(None, None, step) for step in module.stride)
    wide[(slice(None), slice(None), *places)] = x
    padding: list[int] = []
    assert not isinstance(module.padding, str)
    for size, gap, pad, more in zip(module.kernel_size, module.dilation, module.padding, module.output_padding, strict=True):
        side = gap * (size - 1) - pad
        padding = [side, side + more, *padding]
    rows = _patches(nn.functional.pad(wide, padding), module, (1,) * len(space), 1)
    turned = rows.unflatten(-1, (channels, *module.kernel_size))
    return torch.flip(turned, tuple(range(3, 3 + len(space)))).flatten(2)
