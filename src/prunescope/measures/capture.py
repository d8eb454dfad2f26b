"""Capture: the values that layers give for some samples, through forward hooks that are gone afterwards."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from prunescope.measures.quality import batched, rows_at_once
from prunescope.registry import unknown
from prunescope.types import ConfigError

OUTPUT = "output"
HELD_BYTES = 128 << 20  # values of layers that are held at a time while something is estimated, or twice the largest layer
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
    values: dict[str, Tensor] = {}
    filled: dict[str, int] = {}
    calls: dict[str, int] = {}

    def keep(name: str, value: object) -> None:
        calls[name] = calls.get(name, 0) + 1
        key = name if calls[name] == 1 else f"{name}#{calls[name]}"
        for pool in pools[name]:
            if (kept := _kept(modules[name], value, pool, key)) is not None:
                _fill(values, filled, f"{key}@{pool}" if pool else key, kept, len(x))

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
    values = {name: value[: filled[name]] for name, value in values.items()}
    if OUTPUT in wanted:
        values[OUTPUT] = output
    return values


def _fill(values: dict[str, Tensor], filled: dict[str, int], key: str, part: Tensor, rows: int) -> None:
    """Put one batch's values behind those of the batches before: into one tensor from the start, as two copies would take twice as much."""
    begin = filled.get(key, 0)
    end = begin + len(part)
    if key not in values or end > len(values[key]):  # a layer that sees more rows than samples went in grows
        bigger = part.new_empty((max(rows, end), *part.shape[1:]))
        if begin:
            bigger[:begin] = values[key][:begin]
        values[key] = bigger
    values[key][begin:end] = part
    filled[key] = end


class Streamed(Mapping[str, Tensor]):
    """Values of layers that are captured some at a time, when they are asked for: only those asked for last are held.

    captured   gives the values of the layers that it is handed the names of, for all samples
    probe      values of all layers for a few samples, as `captured` would give them: their names in order, and their sizes
    rows       how many samples there are; axis: of the samples
    """

    def __init__(
        self, captured: Callable[[Sequence[str]], Mapping[str, Tensor]], probe: Mapping[str, Tensor], rows: int, *, axis: int = 0
    ) -> None:
        self._captured, self._names = captured, list(probe)
        self._groups: list[list[str]] = [[]]
        sizes = {name: value.nbytes // max(1, value.shape[axis]) * rows for name, value in probe.items()}
        most, held = max(HELD_BYTES, 2 * max(sizes.values(), default=0)), 0  # the largest layer takes its share anyway, a pass its time
        for name, size in sizes.items():
            if held + size > most and self._groups[-1]:
                self._groups.append([])
                held = 0
            self._groups[-1].append(name)
            held += size
        self._now: Mapping[str, Tensor] = {}

    @property
    def passes(self) -> int:
        """How often all samples go through the network for all layers."""
        return len(self._groups)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._now:
            group = next((g for g in self._groups if name in g), None)
            if group is None:
                raise KeyError(name)
            self._now = {}  # before the next ones are made
            self._now = self._captured(list(dict.fromkeys(re.sub(r"#\d+(?=@|$)", "", n) for n in group)))
        return self._now[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Viewed(Mapping[str, Tensor]):
    """Values of layers as `change` makes them of (name, value) when they are asked for, without one of them."""

    def __init__(self, values: Mapping[str, Tensor], change: Callable[[str, Tensor], Tensor], *, without: str = "") -> None:
        self._values, self._change, self._without = values, change, without

    def __getitem__(self, name: str) -> Tensor:
        return self._change(name, self._values[name])

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._values if name != self._without)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def streamed(model: nn.Module, x: Tensor, layers: Sequence[str] | None = None) -> Streamed:
    """What `capture` gives, of so many layers at a time as have at most HELD_BYTES, or twice the largest one; a pass of all samples each.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    >>> {name: tuple(v.shape) for name, v in streamed(model, torch.zeros(7, 3)).items()}
    {'1': (7, 4), 'output': (7, 2)}
    """
    return Streamed(lambda names: capture(model, x, names), capture(model, x[:1], layers), len(x))


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
