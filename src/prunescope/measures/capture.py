"""Capture: the values that layers give for some samples, through forward hooks that are gone afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from prunescope.measures.quality import batched, rows_at_once
from prunescope.registry import unknown
from prunescope.types import ConfigError

OUTPUT = "output"
_BLOCKS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
POOLS = ("last", "tokens", "maps")
_FINAL = (nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.Softmax2d)
# the values that an activation can take, where they are bounded; a fixed grid of bins is natural for these
_RANGES: tuple[tuple[tuple[type[nn.Module], ...], tuple[float, float]], ...] = (
    ((nn.Tanh, nn.Softsign, nn.Hardtanh), (-1.0, 1.0)),
    ((nn.Sigmoid, nn.Hardsigmoid, nn.Softmax), (0.0, 1.0)),
    ((nn.ReLU6,), (0.0, 6.0)),
    ((nn.LSTM, nn.GRU), (-1.0, 1.0)),  # but for an LSTM with a projection, whose weights have no bound
)


def activations_of(model: nn.Module) -> list[str]:
    """Names of the layers to look at, in order of registration; a model that has a list `plane_layers` says so itself.

    Else the activation modules, the last state of each recurrent layer ("NAME@last") and the mean token of each block of
    torch.nn's transformers ("NAME@tokens"). Where there are none, the layers that own weights, but for the last.
    """
    if isinstance(own := getattr(model, "plane_layers", None), list | tuple):
        return [str(name) for name in own]
    home = nn.modules.activation
    kinds = {k for k in vars(home).values() if isinstance(k, type) and k.__module__ == home.__name__} - {nn.MultiheadAttention, *_FINAL}
    named: list[str] = []
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if not name or name.startswith(inside or "\n"):
            continue
        if isinstance(module, _BLOCKS):
            inside = (*inside, f"{name}.")
            named.append(f"{name}@tokens")
        elif isinstance(module, nn.RNNBase):
            named.append(f"{name}@last")
        elif type(module) in kinds:
            named.append(name)
    owning = [n for n, m in model.named_modules() if n and not list(m.children()) and list(m.parameters(recurse=False))]
    return named or [n for n in owning if not isinstance(model.get_submodule(n), nn.Embedding)][:-1]


def natural_range(model: nn.Module, layer: str) -> tuple[float, float] | None:
    """(low, high) of the values that the module named `layer` can give; None where they are unbounded or not known."""
    module = dict(model.named_modules()).get(layer.partition("@")[0].partition("#")[0])
    if getattr(module, "proj_size", 0):
        return None
    return next((bounds for kinds, bounds in _RANGES if isinstance(module, kinds)), None)


def capture(model: nn.Module, x: Tensor, layers: Sequence[str] | None = None, *, batch_size: int | None = None) -> dict[str, Tensor]:
    """Values of each layer for the rows of `x`, in evaluation mode: name -> (n, ...), in the order in which they are computed.

    layers   module names; "output" is what the model returns. Default: see `activations_of`, and the output. A name may say what to keep:
             "NAME@last"    the last step of (n, steps, features); of a recurrent layer its last hidden state, both directions
             "NAME@tokens"  the mean over the steps of (n, steps, features)
             "NAME@maps"    the mean of each map of (n, channels, ...)
    A recurrent layer gives its outputs, any other module that returns a tuple the first of them. A module that is called more than once
    gives "NAME", "NAME#2", ...
    """
    modules = dict(model.named_modules())
    wanted = [*activations_of(model), OUTPUT] if layers is None else list(layers)
    batch_size = batch_size or rows_at_once(model, x)
    for name in wanted:
        _check_name(name, modules)
    pools: dict[str, list[str]] = {}
    for name in wanted:
        if name != OUTPUT:
            pools.setdefault(name.partition("@")[0], []).append(name.partition("@")[2])
    collected: dict[str, list[Tensor]] = {}
    calls: dict[str, int] = {}

    def keep(name: str, value: object) -> None:
        calls[name] = calls.get(name, 0) + 1
        key = name if calls[name] == 1 else f"{name}#{calls[name]}"
        for pool in pools[name]:
            if (kept := _kept(modules[name], value, pool, key)) is not None:
                collected.setdefault(f"{key}@{pool}" if pool else key, []).append(kept)

    def start(*_: object) -> None:
        calls.clear()

    def hook(name: str) -> RemovableHandle:
        handle: RemovableHandle = modules[name].register_forward_hook(lambda _module, _inputs, value: keep(name, value))
        return handle

    handles = [model.register_forward_pre_hook(start), *(hook(n) for n in pools)]
    try:
        output = batched(model, x, batch_size)
    finally:
        for handle in handles:
            handle.remove()
    values = {name: torch.cat(parts) for name, parts in collected.items()}
    if OUTPUT in wanted:
        values[OUTPUT] = output
    return values


def _check_name(layer: str, modules: dict[str, nn.Module]) -> None:
    name, at, pool = layer.partition("@")
    if layer != OUTPUT and name not in modules:
        raise ConfigError(unknown("layer", name, [n for n in modules if n] + [OUTPUT]))
    if at and pool not in POOLS:
        raise ConfigError(f"layer {layer!r}: " + unknown("part of a layer", pool, list(POOLS)))


def _kept(module: nn.Module, value: object, pool: str, key: str) -> Tensor | None:
    """What is kept of a module's value, samples first; None of a value that is no tensor."""
    if isinstance(module, nn.RNNBase) and isinstance(value, tuple):
        return _recurrent(module, value, pool)
    first = value[0] if isinstance(value, tuple) and value else value
    if not isinstance(first, Tensor):
        return None
    first = first.detach()
    if not pool:
        return first
    if first.ndim < 3:
        raise ConfigError(f"layer '{key}@{pool}': its values have shape {tuple(first.shape)}: nothing to pool, so leave out @{pool}")
    if pool == "maps":
        return first.flatten(2).mean(2)
    if first.ndim != 3:
        raise ConfigError(f"layer '{key}@{pool}': its values have shape {tuple(first.shape)}: expected (n, steps, features), or use @maps")
    return first.mean(1) if pool == "tokens" else first[:, -1]


def _recurrent(module: nn.RNNBase, value: tuple[Any, ...], pool: str) -> Tensor:
    outputs: Tensor = value[0].detach()
    if pool == "last":
        hidden: Tensor = (value[1][0] if isinstance(value[1], tuple) else value[1]).detach()
        return hidden[-2 if module.bidirectional else -1 :].transpose(0, 1).flatten(1)
    samples_first = outputs if module.batch_first else outputs.transpose(0, 1)
    return samples_first if not pool else samples_first.mean(1 if pool == "tokens" else 2)
