"""Milliseconds that a piece takes: each layer alone, at its real input shape, timed at several widths and fitted by a straight line.

A layer's time is taken to fall by the same amount with every output unit and every input feature that goes (its slope), whatever else
goes: the layer-wise, linear model of Shen et al. 2021 (HALP, arXiv:2110.10811, sec. 3.1), whose steps with the hardware's widths are
smoothed away here. Where a layer loses inputs and outputs, both savings are counted in full, although together they save less.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from prunescope.pruning.groups import Group, Slot
from prunescope.pruning.layouts import Parts, Spans, Whole
from prunescope.pruning.preserving import preserved
from prunescope.pruning.signals.calibration import forward
from prunescope.pruning.structure import CONVOLUTIONS
from prunescope.pruning.targets import owner, prunable
from prunescope.registry import unknown
from prunescope.types import ConfigError, PruningError

Times = Mapping[str, Mapping[str, float]]  # weight -> "all", "output", "input": ms of the layer, of one output unit, of one input feature

SHARES = (0.25, 0.5, 0.75, 1.0)  # widths that are timed, as fractions of a layer's own


@dataclass(frozen=True)
class Costs:
    """Milliseconds: `pieces` that one piece of each group saves, `total` that all layers with a share in any piece take."""

    pieces: Mapping[str, float]
    total: float


@torch.no_grad()
def layer_times(
    model: nn.Module, example_inputs: Any, *, layers: Sequence[str] | None = None, seconds: float = 0.02, threads: int = 1
) -> dict[str, dict[str, float]]:
    """Milliseconds on this machine: {weight: {"all": the layer, "output": a unit of it, "input": a feature of it}}; medians, then a line.

    example_inputs   inputs of one forward pass, of the batch size that counts
    layers           weights by name; None: those of all linear layers, convolutions and attention projections that the pass reaches
    seconds          spent on each layer and width (7 a layer); threads: of the timed layers

    A projection in nn.MultiheadAttention is timed as a linear layer over the same tokens, without the products between tokens. PruningError
    for a named weight that is none of these. Hand the result to `prune(allocation="latency", options={"times": ...})` for runs that repeat.
    """
    wanted = list(prunable(model)) if layers is None else list(dict.fromkeys(layers))
    shapes = _input_shapes(model, wanted, example_inputs)
    found = {}
    for name in wanted:
        if name in shapes:
            found[name] = _timed(model, name, shapes[name], seconds, threads)
        elif layers is not None:
            raise PruningError(
                f"latency of {name} cannot be measured: expected a linear layer, a convolution or an attention projection that the forward "
                "pass reaches; exclude the layer, or state its milliseconds in times"
            )
    return found


def refuse_fragments(groups: Sequence[Group]) -> None:
    """PruningError for pieces that no dense layer becomes narrower by: single weights, patterns, blocks."""
    for group in groups:
        if group.pattern or not all(_whole_lines(s) for g in group.members or (group,) for s in g.scored):
            raise PruningError(
                f"allocation 'latency': the pieces of {group.name} are less than whole rows or columns of it (one channel of a grouped "
                "convolution is, too), and zeros inside a dense tensor save no time: choose a granularity of whole units (neuron, filter, "
                "channel, head), or allocation 'parameters'"
            )


def latency_costs(groups: Sequence[Group], model: nn.Module, times: Times) -> Costs:
    """What each piece saves and what the layers take, from `times` (see `layer_times`). ConfigError where an entry is missing."""
    tables = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters(recurse=False)}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    pieces, layers = {}, {}
    for group in groups:
        saved = 0.0
        for slot in group.slots:
            weight = parameters[slot.parameter]
            if slot.companion or weight.ndim < 2 or (id(weight) in tables and slot.parameter not in times):
                continue  # a table that is looked up takes no time to speak of
            entry = _entry(times, slot.parameter)
            layers[slot.parameter] = entry["all"]
            saved += _saved(slot, entry, _out_dim(model, slot.parameter))
        pieces[group.name] = saved
    return Costs(pieces, sum(layers.values()))


def weights_of(groups: Sequence[Group], model: nn.Module) -> list[str]:
    """The weights that pieces have a share in, embeddings left out."""
    known = prunable(model)
    return list(dict.fromkeys(s.parameter for g in groups for s in g.slots if not s.companion and s.parameter in known))


def _entry(times: Times, name: str) -> Mapping[str, float]:
    if name not in times:
        raise ConfigError(f"times: {unknown('weight', name, list(times))}; every layer that pieces reach needs its milliseconds")
    for key in ("all", "output", "input"):
        value = times[name].get(key)
        if value is None or not 0 <= value < float("inf"):
            raise ConfigError(f"times[{name!r}][{key!r}] is {value!r}: expected milliseconds, 0 or more")
    return times[name]


def _whole_lines(slot: Slot) -> bool:
    return isinstance(slot.layout, Parts | Whole) or (isinstance(slot.layout, Spans) and bool(slot.layout.spans))


def _saved(slot: Slot, entry: Mapping[str, float], out_dim: int) -> float:
    """Milliseconds by which one piece of the slot shortens its layer (of whole layers: the mean over the pieces)."""
    if isinstance(slot.layout, Whole):
        return entry["all"] / slot.layout.pieces
    if isinstance(slot.layout, Parts):
        return slot.layout.index.shape[1] * entry["output" if slot.layout.dim == out_dim else "input"]
    assert isinstance(slot.layout, Spans)
    if 0 not in slot.layout.spans or 1 not in slot.layout.spans:
        return entry["output" if out_dim not in slot.layout.spans else "input"]
    return entry["all"]


def _out_dim(model: nn.Module, name: str) -> int:
    module = model.get_submodule(owner(name))
    return 1 if isinstance(module, nn.modules.conv._ConvTransposeNd) or type(module).__name__ == "Conv1D" else 0


def _input_shapes(model: nn.Module, names: Sequence[str], inputs: Any) -> dict[str, torch.Size]:
    """The shape that enters the layer of each weight in one pass; weights of other layers, and of layers not reached, are left out."""
    seen: dict[str, torch.Size] = {}
    handles = []

    def watch(module: nn.Module, weights: list[str]) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            first = next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)), None)
            if first is not None:
                seen.update(dict.fromkeys(weights, first.shape))

        return module.register_forward_pre_hook(hook, with_kwargs=True)

    modules = dict(model.named_modules())
    for name in names:
        place = owner(name)
        above = modules[place.rpartition(".")[0]]
        attention = next((m for m in (modules[place], above) if isinstance(m, nn.MultiheadAttention)), None)
        if attention is not None:
            handles.append(watch(attention, [name]))
        elif isinstance(modules[place], nn.Linear | CONVOLUTIONS) or type(modules[place]).__name__ == "Conv1D":
            handles.append(watch(modules[place], [name]))
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)  # the fused path calls no hook
        with preserved(model):
            model.eval()
            forward(model, inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for handle in handles:
            handle.remove()
    return seen


def _timed(model: nn.Module, name: str, shape: torch.Size, seconds: float, threads: int) -> dict[str, float]:
    layer = _alone(model, name)
    groups, out_dim = getattr(layer, "groups", 1), _out_dim(model, name)
    outputs, inputs = layer.weight.shape[out_dim] * (groups if out_dim else 1), layer.weight.shape[1 - out_dim] * (1 if out_dim else groups)

    def time(outs: int, ins: int) -> float:
        twin, x = _narrowed(layer, outs, ins, shape)
        for _ in range(2):  # memory touched for the first time is not the layer's time
            twin(x)
        timer = Timer("twin(x)", globals={"twin": twin, "x": x}, num_threads=threads)
        return timer.blocked_autorange(min_run_time=seconds).median * 1e3

    depthwise = groups > 1 and groups == inputs
    step = 1 if depthwise else groups
    full = time(outputs, inputs)
    found = {"all": full, "output": 0.0, "input": 0.0}
    for key, size in (("output", inputs if depthwise else outputs), ("input", inputs)):
        if depthwise and key == "input":
            continue  # a depthwise channel is one unit, input and output alike
        widths = sorted({max(step, round(share * size / step) * step) for share in SHARES})
        scale = outputs // inputs if depthwise else 1
        pairs = [(w * scale, w) if depthwise else (w, inputs) if key == "output" else (outputs, w) for w in widths]
        ms = [full if pair == (outputs, inputs) else time(*pair) for pair in pairs]
        slope = float(np.polyfit(widths, ms, 1)[0]) / scale if len(widths) > 1 else full / size
        found[key] = max(0.0, slope)  # a layer that is no faster when narrower gains nothing
    return found


def _alone(model: nn.Module, name: str) -> Any:
    """The layer of a weight as a module that can be called by itself."""
    module, weight = model.get_submodule(owner(name)), model.get_parameter(name)
    if isinstance(module, nn.MultiheadAttention):
        return nn.Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
    twin: Any = copy.deepcopy(module)
    twin._forward_hooks.clear()
    twin._forward_pre_hooks.clear()
    return twin.eval()


def _narrowed(layer: Any, outputs: int, inputs: int, shape: torch.Size) -> tuple[nn.Module, Tensor]:
    """A copy of a layer with that many outputs and inputs, random values, and an input for it."""
    twin, weight = copy.copy(layer), layer.weight
    twin._parameters = dict(layer._parameters)
    convolution, transposed = isinstance(layer, CONVOLUTIONS), isinstance(layer, nn.modules.conv._ConvTransposeNd)
    groups = getattr(layer, "groups", 1)
    groups = inputs if convolution and groups > 1 and groups == layer.in_channels else groups
    matrix = (inputs, outputs // groups) if transposed or type(layer).__name__ == "Conv1D" else (outputs, inputs // groups)
    twin._parameters["weight"] = nn.Parameter(torch.randn(*matrix, *weight.shape[2:], dtype=weight.dtype, device=weight.device))
    if twin._parameters.get("bias") is not None:
        twin._parameters["bias"] = nn.Parameter(torch.zeros(outputs, dtype=weight.dtype, device=weight.device))
    if convolution:
        twin.groups, twin.in_channels, twin.out_channels = groups, inputs, outputs
    elif type(layer).__name__ == "Conv1D":
        twin.nf, twin.nx = outputs, inputs
    else:
        twin.in_features, twin.out_features = inputs, outputs
    batched = len(shape) > layer.weight.ndim - 1
    entering = (*shape[: int(batched)], inputs, *shape[int(batched) + 1 :]) if convolution else (*shape[:-1], inputs)
    return twin, torch.randn(entering, dtype=weight.dtype, device=weight.device)
