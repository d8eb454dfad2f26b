"""Capture: the values that layers give for some samples, through forward hooks that are gone afterwards."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from prunescope.measures.quality import batched
from prunescope.registry import unknown
from prunescope.types import ConfigError

OUTPUT = "output"
_FINAL = (nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.Softmax2d)
# the values that an activation can take, where they are bounded; a fixed grid of bins is natural for these
_RANGES: tuple[tuple[tuple[type[nn.Module], ...], tuple[float, float]], ...] = (
    ((nn.Tanh, nn.Softsign, nn.Hardtanh), (-1.0, 1.0)),
    ((nn.Sigmoid, nn.Hardsigmoid, nn.Softmax), (0.0, 1.0)),
    ((nn.ReLU6,), (0.0, 6.0)),
)


def activations_of(model: nn.Module) -> list[str]:
    """Names of the activation modules, in order of registration.

    Where there are none (activations called as functions), the layers that own weights, but for the last.
    """
    home = nn.modules.activation
    kinds = {k for k in vars(home).values() if isinstance(k, type) and k.__module__ == home.__name__} - {nn.MultiheadAttention, *_FINAL}
    named = [n for n, m in model.named_modules() if n and type(m) in kinds]
    return named or [n for n, m in model.named_modules() if n and not list(m.children()) and list(m.parameters(recurse=False))][:-1]


def natural_range(model: nn.Module, layer: str) -> tuple[float, float] | None:
    """(low, high) of the values that the module named `layer` can give; None where they are unbounded or not known."""
    module = dict(model.named_modules()).get(layer.partition("#")[0])
    return next((bounds for kinds, bounds in _RANGES if isinstance(module, kinds)), None)


def capture(model: nn.Module, x: Tensor, layers: Sequence[str] | None = None, *, batch_size: int = 2048) -> dict[str, Tensor]:
    """Values of each layer for the rows of `x`, in evaluation mode: name -> (n, ...), in the order in which they are computed.

    layers   module names; "output" is what the model returns. Default: every activation and the output.
    A module that is called more than once gives "name", "name#2", ...
    """
    modules = dict(model.named_modules())
    wanted = [*activations_of(model), OUTPUT] if layers is None else list(layers)
    if missing := [n for n in wanted if n not in modules and n != OUTPUT]:
        raise ConfigError(unknown("layer", missing[0], [n for n in modules if n] + [OUTPUT]))
    collected: dict[str, list[Tensor]] = {}
    calls: dict[str, int] = {}

    def keep(name: str, value: object) -> None:
        calls[name] = calls.get(name, 0) + 1
        key = name if calls[name] == 1 else f"{name}#{calls[name]}"
        if isinstance(value, Tensor):
            collected.setdefault(key, []).append(value.detach())

    def start(*_: object) -> None:
        calls.clear()

    def hook(name: str) -> RemovableHandle:
        handle: RemovableHandle = modules[name].register_forward_hook(lambda _module, _inputs, value: keep(name, value))
        return handle

    handles = [model.register_forward_pre_hook(start), *(hook(n) for n in wanted if n != OUTPUT)]
    try:
        output = batched(model, x, batch_size)
    finally:
        for handle in handles:
            handle.remove()
    values = {name: torch.cat(parts) for name, parts in collected.items()}
    if OUTPUT in wanted:
        values[OUTPUT] = output
    return values
