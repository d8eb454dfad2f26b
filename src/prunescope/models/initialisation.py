"""How weights start: the schemes that the studies use, each drawn from the generator passed in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from prunescope.registry import unknown
from prunescope.types import ConfigError

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
EMBEDDING_SD = 0.02


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


def drawn_later(make: Callable[[], nn.Module]) -> nn.Module:
    """The module that `make` builds, with every value NaN until `initialise` draws it; no random generator is touched.

    PyTorch's constructors draw from the global generator; on the meta device there is nothing to draw for.
    """
    with torch.device("meta"):
        model = make()
    model.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.fill_(float("nan"))  # a value that a scheme forgets shows at once
    for layer in model.modules():
        if isinstance(layer, NORMS):
            layer.reset_parameters()
    return model


@torch.no_grad()
def initialise(model: nn.Module, scheme: str, generator: Generator) -> None:
    """Draw the weights of all layers in order; biases are zero but for "uniform-fan-in", which is PyTorch's own default.

    Linear layers and convolutions follow the scheme. Recurrent layers follow it gate by gate, with orthogonal recurrent weights
    (Saxe et al. 2014) and an LSTM's forget bias of 1 (Jozefowicz et al. 2015); attention's packed projections follow it one by one.
    Embeddings are normal with sd 0.02 (Radford et al. 2019), norms start as the identity.
    """
    if scheme not in INITIALISATIONS:
        raise ConfigError(unknown("initialisation", scheme, list(INITIALISATIONS)))
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
            _draw_layer(layer, scheme, generator)
        elif isinstance(layer, nn.RNNBase):
            _draw_recurrent(layer, scheme, generator)
        elif isinstance(layer, nn.MultiheadAttention):
            _draw_projections(layer, scheme, generator)
        elif isinstance(layer, nn.Embedding):
            layer.weight.normal_(0.0, EMBEDDING_SD, generator=generator)


def _draw_layer(layer: nn.Linear | nn.modules.conv._ConvNd, scheme: str, generator: Generator) -> None:
    if isinstance(layer, nn.modules.conv._ConvTransposeNd):  # its weight is (in, out, ...): the scheme sees it the other way round
        weight = torch.empty_like(layer.weight.transpose(0, 1), memory_format=torch.contiguous_format)
        INITIALISATIONS[scheme](weight, generator)
        layer.weight.copy_(weight.transpose(0, 1))
    else:
        weight = layer.weight
        INITIALISATIONS[scheme](weight, generator)
    if layer.bias is not None and scheme == "uniform-fan-in":
        _uniform(layer.bias, fans(weight)[0] ** -0.5, generator)
    elif layer.bias is not None:
        layer.bias.zero_()


def _draw_recurrent(layer: nn.RNNBase, scheme: str, generator: Generator) -> None:
    bound = layer.hidden_size**-0.5
    for name, parameter in layer.named_parameters(recurse=False):
        if scheme == "uniform-fan-in":  # PyTorch's default takes the state's size for all of them
            _uniform(parameter, bound, generator)
        elif name.startswith("weight"):
            rule = orthogonal if name.startswith("weight_hh") else INITIALISATIONS[scheme]
            for gate in parameter.split(layer.hidden_size if name.startswith(("weight_ih", "weight_hh")) else len(parameter)):
                rule(gate, generator)
        else:
            parameter.zero_()
            if isinstance(layer, nn.LSTM) and name.startswith("bias_ih"):
                parameter[layer.hidden_size : 2 * layer.hidden_size] = 1.0


def _draw_projections(layer: nn.MultiheadAttention, scheme: str, generator: Generator) -> None:
    packed = layer.in_proj_weight
    weights = packed.chunk(3) if packed is not None else (layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight)
    for weight in weights:
        INITIALISATIONS[scheme](weight, generator)
    for bias in (layer.in_proj_bias, layer.bias_k, layer.bias_v):
        if bias is not None:
            bias.zero_()
