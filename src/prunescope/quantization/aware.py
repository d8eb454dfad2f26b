"""Quantisation-aware training: layers compute as int8 will, while their weights go on learning as floating point."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from prunescope import extras
from prunescope.quantization.choice import chosen
from prunescope.types import ConfigError


@contextlib.contextmanager
def simulated(model: nn.Module, *, activations: str = "dynamic", exclude: Sequence[str] = ()) -> Iterator[nn.Module]:
    """Inside, `model`'s linear layers round weights and inputs as `quantize` would, and slopes pass the rounding (straight-through).

    Parameters, their names and whoever holds them (optimisers, masks) stay: only the modules around them are exchanged and put back.
    Source: torchao's FakeQuantizedLinear; Jacob et al. 2018, arXiv:1712.05877. Raises ConfigError for static activations.

    >>> net = nn.Sequential(nn.Linear(2, 2))
    >>> with simulated(net):
    ...     list(net.state_dict()), type(net[0]) is nn.Linear
    (['0.weight', '0.bias'], False)
    >>> type(net[0]) is nn.Linear
    True
    """
    if activations not in ("dynamic", "float"):
        raise ConfigError(f'activations "{activations}" cannot be trained with: expected "dynamic" or "float"')
    qat = extras.load("torchao.quantization.qat", extra="quant", purpose="quantisation-aware training")
    inputs = qat.IntxFakeQuantizeConfig(torch.int8, "per_token", is_symmetric=False) if activations == "dynamic" else None
    weights = qat.IntxFakeQuantizeConfig(torch.int8, "per_channel", is_symmetric=True)
    taken, _ = chosen(model, exclude)
    if "" in taken:
        raise ConfigError("the model is one linear layer, which cannot be exchanged from within: put it into an nn.Sequential")
    own = {name: model.get_submodule(name) for name in taken}
    try:
        for name, layer in own.items():
            model.set_submodule(name, qat.FakeQuantizedLinear.from_linear(layer, inputs, weights).train(layer.training))
        yield model
    finally:
        for name, layer in own.items():
            model.set_submodule(name, layer.train(model.training))
