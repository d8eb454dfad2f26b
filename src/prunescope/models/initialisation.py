"""How weights start: the schemes that the studies use, each drawn from the generator passed in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from prunescope.registry import unknown
from prunescope.types import ConfigError


def fans(weight: Tensor) -> tuple[int, int]:
    """Inputs to one unit and outputs of one input unit of a linear or convolution weight (out, in, ...).

    >>> fans(torch.empty(64, 32, 3, 3))
    (288, 576)
    """
    field = weight[0, 0].numel()
    return weight.shape[1] * field, weight.shape[0] * field


def _uniform(weight: Tensor, bound: float, generator: Generator) -> None:
    weight.uniform_(-bound, bound, generator=generator)


def _truncated(weight: Tensor, fan: int, generator: Generator) -> None:
    deviation = fan**-0.5
    nn.init.trunc_normal_(weight, 0.0, deviation, -2 * deviation, 2 * deviation, generator=generator)


def uniform_fan_in(weight: Tensor, generator: Generator) -> None:
    """Uniform in +-1/sqrt(fan_in), PyTorch's own default; its biases are drawn from the same range."""
    _uniform(weight, fans(weight)[0] ** -0.5, generator)


def glorot_uniform(weight: Tensor, generator: Generator) -> None:
    """Uniform in +-sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010, equation 16), Keras' default."""
    _uniform(weight, (6 / sum(fans(weight))) ** 0.5, generator)


def glorot_normal(weight: Tensor, generator: Generator) -> None:
    """Normal with variance 2 / (fan_in + fan_out) (Glorot & Bengio 2010, equation 12)."""
    weight.normal_(0.0, (2 / sum(fans(weight))) ** 0.5, generator=generator)


def he_normal(weight: Tensor, generator: Generator) -> None:
    """Normal with variance 2 / fan_in (He et al. 2015, equation 10)."""
    weight.normal_(0.0, (2 / fans(weight)[0]) ** 0.5, generator=generator)


def he_uniform(weight: Tensor, generator: Generator) -> None:
    """Uniform with variance 2 / fan_in, that is in +-sqrt(6 / fan_in)."""
    _uniform(weight, (6 / fans(weight)[0]) ** 0.5, generator)


def truncated_normal_fan_in(weight: Tensor, generator: Generator) -> None:
    """Normal with sd 1/sqrt(fan_in), redrawn beyond 2 sd (the code of Shwartz-Ziv & Tishby 2017)."""
    _truncated(weight, fans(weight)[0], generator)


def truncated_normal_fan_out(weight: Tensor, generator: Generator) -> None:
    """Normal with sd 1/sqrt(fan_out), redrawn beyond 2 sd (the code of Saxe et al. 2018)."""
    _truncated(weight, fans(weight)[1], generator)


def orthogonal(weight: Tensor, generator: Generator) -> None:
    """Orthonormal rows or columns of the flattened weight (Saxe et al. 2014)."""
    nn.init.orthogonal_(weight, generator=generator)


INITIALISATIONS: dict[str, Callable[[Tensor, Generator], None]] = {
    "uniform-fan-in": uniform_fan_in,
    "glorot-uniform": glorot_uniform,
    "glorot-normal": glorot_normal,
    "he-normal": he_normal,
    "he-uniform": he_uniform,
    "truncated-normal-fan-in": truncated_normal_fan_in,
    "truncated-normal-fan-out": truncated_normal_fan_out,
    "orthogonal": orthogonal,
}


@torch.no_grad()
def initialise(model: nn.Module, scheme: str, generator: Generator) -> None:
    """Draw the weights of all linear and convolution layers in order; biases are zero but for "uniform-fan-in"."""
    if scheme not in INITIALISATIONS:
        raise ConfigError(unknown("initialisation", scheme, list(INITIALISATIONS)))
    for layer in model.modules():
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            continue
        INITIALISATIONS[scheme](layer.weight, generator)
        if layer.bias is not None and scheme == "uniform-fan-in":
            _uniform(layer.bias, fans(layer.weight)[0] ** -0.5, generator)
        elif layer.bias is not None:
            layer.bias.zero_()
