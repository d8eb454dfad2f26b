"""Signals of what units give: statistics of their activations, and the activations sample by sample."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from prunescope.pruning.signals.calibration import Calibration, forward, mapped, undisturbed
from prunescope.pruning.structure import CONVOLUTIONS
from prunescope.pruning.targets import Target, owner
from prunescope.registry import signals
from prunescope.types import PruningError

ACTIVATING = {
    "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "elu", "elu_", "selu", "selu_", "celu", "celu_", "gelu", "silu", "mish",
    "softplus", "softsign", "tanh", "tanh_", "sigmoid", "sigmoid_", "hardtanh", "hardtanh_", "hardsigmoid", "hardswish",
    "logsigmoid", "prelu", "rrelu", "tanhshrink", "softshrink", "hardshrink", "threshold",
}  # fmt: skip
PASSING = {
    "batch_norm", "instance_norm", "layer_norm", "group_norm", "rms_norm", "dropout", "dropout1d", "dropout2d", "dropout3d",
    "alpha_dropout",
}  # fmt: skip


@dataclass(frozen=True)
class UnitStatistics:
    """Of each unit's activation over samples and positions, (units,) float64: mean, mean of the size, variance, share of zeros.

    `activated` says whether an activation function was found after the layer `name`; else the figures are of the layer's own output.
    """

    mean: Tensor
    size: Tensor
    variance: Tensor
    zeros: Tensor
    activated: bool
    name: str = "the layer"


@dataclass(frozen=True)
class UnitSamples:
    """Each unit's activation for each sample, (n, units), the mean over positions where there are any, and the samples' labels."""

    values: Tensor
    labels: Tensor | None


@signals("unit_statistics", source="sums over the calibration set; share of zeros: Hu et al. 2016, arXiv:1607.03250, eq. 1")
def unit_statistics(calibration: Calibration) -> dict[str, UnitStatistics]:
    """Mean, mean size, variance and share of zeros of each unit's activation, in the activation's unit; `UnitStatistics` a target.

    The activation is the value after the activation function that follows the layer (through a normalisation or dropout) or, where
    there is none, the layer's own. Variance: two passes, around the mean. Refused for weights that have no units of their own.
    """
    sums: dict[str, list[Tensor]] = {}
    counts: dict[str, int] = {}
    found: dict[str, bool] = {}
    for name, values, activated, _ in _passes(calibration, "unit_statistics"):
        v = values.double()
        parts = [v.sum((0, 2)), v.abs().sum((0, 2)), (v == 0).double().sum((0, 2))]
        sums[name] = [a + b for a, b in zip(sums[name], parts, strict=True)] if name in sums else parts
        counts[name] = counts.get(name, 0) + v.shape[0] * v.shape[2]
        found[name] = activated
    means = {n: [p / counts[n] for p in parts] for n, parts in sums.items()}
    squares: dict[str, Tensor] = {}
    for name, values, _, _ in _passes(calibration, "unit_statistics"):
        part = (values.double() - means[name][0][:, None]).square().sum((0, 2))
        squares[name] = squares[name] + part if name in squares else part
    return {n: UnitStatistics(m[0], m[1], squares[n] / counts[n], m[2], found[n], n) for n, m in means.items()}


@signals("unit_samples", source="the activations themselves, pooled by their mean over positions")
def unit_samples(calibration: Calibration) -> dict[str, UnitSamples]:
    """Each unit's activation for each calibration sample, in the activation's unit: `UnitSamples` (n, units) and labels for each target.

    Convolutions and sequences are pooled by the mean over positions. Refused for weights that have no units of their own.
    """
    parts: dict[str, list[Tensor]] = {}
    labels: dict[str, list[Any]] = {}
    for name, values, _, given in _passes(calibration, "unit_samples"):
        parts.setdefault(name, []).append(values.double().mean(2).cpu())
        labels.setdefault(name, []).append(given)
    return {n: UnitSamples(torch.cat(p), _joined(labels[n], len(torch.cat(p)), n)) for n, p in parts.items()}


def _joined(labels: list[Any], samples: int, name: str) -> Tensor | None:
    """All labels (n,), None where there are none; PruningError where they are not one a sample."""
    if any(y is None for y in labels):
        return None
    whole = torch.cat([y.detach().cpu() for y in labels])
    if whole.shape != (samples,):
        got = f"labels of shape {tuple(whole.shape)} for {samples} samples of {name}"
        raise PruningError(f"signal 'unit_samples': {got}: expected one label each")
    return whole


def _passes(calibration: Calibration, signal: str) -> Iterator[tuple[str, Tensor, bool, Any]]:
    """(target, values (n, units, positions), whether they are activated, labels) for each target and part of the calibration set."""
    for target in calibration.targets:
        _check(calibration.model, target, signal)
    with undisturbed(calibration) as model, torch.no_grad():
        for inputs, labels in calibration.chunks(f"signal {signal!r}"):
            seen = _activations(model, calibration.targets, inputs)
            for target in calibration.targets:
                calls = seen.get(target.name)
                if not calls:
                    raise PruningError(f"signal {signal!r}: {target.name} gave no output in the forward pass: exclude the layer")
                values = [_by_unit(v, _home(model, target), target) for v, _ in calls]
                yield target.name, torch.cat(values, 2), all(a for _, a in calls), labels


def _home(model: nn.Module, target: Target) -> nn.Module:
    """The module that gives the target's units: its own, or the attention whose output projection it is."""
    above = model.get_submodule(owner(owner(target.name)))
    return above if isinstance(above, nn.MultiheadAttention) else model.get_submodule(owner(target.name))


def _check(model: nn.Module, target: Target, signal: str) -> None:
    if target.kind == "other":
        kind = type(model.get_submodule(owner(target.name))).__name__
        raise PruningError(f"signal {signal!r}: {target.name} ({kind}) is no layer with units of its own: exclude it")


def _by_unit(values: Tensor, module: nn.Module, target: Target) -> Tensor:
    """(n, units, positions) of a layer's values: units lie along dimension 1 of convolutions, along the last of others."""
    units = target.parameter.shape[target.out_dim]
    dims = len(module.kernel_size) if isinstance(module, CONVOLUTIONS) else 0
    along = values.ndim - 1 - dims if dims else values.ndim - 1
    moved = values.movedim(along, -1)
    if moved.shape[-1] != units:
        raise PruningError(f"{target.name}: activations of shape {tuple(values.shape)} do not have its {units} units: exclude the layer")
    if moved.ndim == 1 or (dims and values.ndim == dims + 1):
        moved = moved[None]
    return moved.reshape(moved.shape[0], -1, units).mT


def _activations(model: nn.Module, targets: Sequence[Target], inputs: Any) -> dict[str, list[tuple[Tensor, bool]]]:
    """For each target the values of every call of its layer, each with whether an activation function made them."""
    follower = _Follower()
    with contextlib.ExitStack() as stack:
        for target in targets:
            handle = _home(model, target).register_forward_hook(follower.hook(target.name))
            stack.callback(handle.remove)
        stack.enter_context(follower)
        forward(model, inputs)
    return follower.found


class _Follower(TorchFunctionMode):
    """Follows each layer's output through normalisations and dropout to the activation function, as module or as function."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, list[tuple[Tensor, bool]]] = {}
        self.tracked: Any = WeakIdKeyDictionary()

    def hook(self, name: str) -> Any:
        def receive(_module: nn.Module, _inputs: Any, output: Any) -> None:
            output = output[0] if isinstance(output, tuple) else output
            if isinstance(output, Tensor):
                self.found.setdefault(name, []).append((output.detach().clone(), False))
                self.tracked[output] = [*self.tracked.get(output, []), (name, len(self.found[name]) - 1)]

        return receive

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        source = args[0] if args else (kwargs or {}).get("input")
        if (name in ACTIVATING or name in PASSING) and isinstance(source, Tensor) and isinstance(result, Tensor):
            places = self.tracked.get(source, [])
            for target, call in places:
                self.found[target][call] = (mapped(result, lambda t: t.detach().clone()), name in ACTIVATING)
            if places and name in PASSING:
                self.tracked[result] = places
            elif places and result is source:
                del self.tracked[source]
        return result
