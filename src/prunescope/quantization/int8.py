"""Int8 weights after training: a copy of the network whose linear layers hold int8, and what was done to which layer."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunescope import extras
from prunescope.quantization.choice import chosen
from prunescope.quantization.storage import stored_bytes
from prunescope.registry import unknown
from prunescope.types import ConfigError, PrunescopeError

ACTIVATIONS = ("dynamic", "static", "float")
SETTINGS: dict[str, Any] = {"set_inductor_config": False}  # torchao would else change torch.compile's settings for the whole process


@dataclass(frozen=True)
class QuantizeReport:
    """What `quantize` did.

    layers        names of those with int8 weights; kept: every other layer with weights and why it stays as it is
    weights       numbers that are int8 now, of `parameters` in all
    bytes_before, bytes_after   of all parameters, scales included
    """

    activations: str
    layers: tuple[str, ...]
    kept: dict[str, str]
    weights: int
    parameters: int
    bytes_before: int
    bytes_after: int


def quantize(
    model: nn.Module, *, activations: str = "dynamic", exclude: Sequence[str] = (), calibration: Iterable[Any] | None = None
) -> tuple[nn.Module, QuantizeReport]:
    """A copy of `model` in evaluation mode whose nn.Linear weights are int8 (bytes: a quarter, and 4 a row), and a report. Extra: quant.

    Weights are symmetric with one scale a row (output unit), so that zeros stay exactly zero and masks hold: w = s q, s = max |w| / 127.5.

    activations   "dynamic": int8, asymmetric, a scale and a zero point for each row, found as the rows come; "static": one scale and zero
                  point a layer, from the smallest and largest value in `calibration`; "float": weights alone are int8
    exclude       names of layers that stay as they are, with * and ?
    calibration   batches for "static": tensors, or pairs whose first is one

    Raises ConfigError where no layer can be quantised, where "static" has no calibration, MissingExtraError without torchao.

    >>> small, report = quantize(nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2)))
    >>> report.layers, report.bytes_before, report.bytes_after  # 40 int8 weights, 6 scales and 6 biases of 4 bytes
    (('0', '2'), 184, 88)
    """
    if activations not in ACTIVATIONS:
        raise ConfigError(unknown("kind of activations", activations, list(ACTIVATIONS)))
    taken, kept = chosen(model, exclude)
    if not taken:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(kept.items())[:3]) or "it has none"
        raise ConfigError(f"{type(model).__name__}: no layer can have int8 weights ({why})")
    api = torchao()
    found = copy.deepcopy(model).eval().requires_grad_(False)
    ranges = _ranges(found, taken, calibration) if activations == "static" else {}
    for name in taken:
        api.quantize_(found, _config(api, activations, ranges.get(name)), filter_fn=lambda _, path, name=name: path == name)
    weights = sum(found.get_parameter(f"{name}.weight".removeprefix(".")).numel() for name in taken)
    total = sum(p.numel() for p in model.parameters())
    return found, QuantizeReport(activations, tuple(taken), kept, weights, total, stored_bytes(model), stored_bytes(found))


@functools.cache
def torchao() -> Any:
    """torchao.quantization, once it is sure that this machine's int8 products are exact (some overflow within 16 bits)."""
    api = extras.load("torchao.quantization", extra="quant", purpose="int8 quantisation")
    left, right = torch.full((32, 64), -128, dtype=torch.int8), torch.full((64, 16), -128, dtype=torch.int8)
    if not torch.equal(torch._int_mm(left, right), torch.full((32, 16), 64 * 128 * 128, dtype=torch.int32)):
        raise PrunescopeError("this machine's int8 matrix products overflow (torch._int_mm): quantised networks would be wrong here")
    return api


def _config(api: Any, activations: str, lowest_highest: tuple[Tensor, int] | None) -> Any:
    if activations == "float":
        return api.Int8WeightOnlyConfig(granularity=api.PerRow(), **SETTINGS)
    if activations == "dynamic":
        return api.Int8DynamicActivationInt8WeightConfig(act_mapping_type=api.MappingType.ASYMMETRIC, granularity=api.PerRow(), **SETTINGS)
    assert lowest_highest is not None, "the ranges of all layers are known"
    values, dimensions = lowest_highest
    scale, zero = api.choose_qparams_affine(
        values, api.MappingType.ASYMMETRIC, (2,), torch.int8, eps=torch.finfo(torch.float32).eps, scale_dtype=torch.float32,
        zero_point_dtype=torch.int8,
    )  # fmt: skip
    shape = [1] * dimensions
    return api.Int8StaticActivationInt8WeightConfig(
        act_quant_scale=scale.reshape(shape), act_quant_zero_point=zero.reshape(shape), granularity=[api.PerTensor(), api.PerRow()],
        act_mapping_type=api.MappingType.ASYMMETRIC, version=2, **SETTINGS,
    )  # fmt: skip


def _ranges(model: nn.Module, names: Sequence[str], calibration: Iterable[Any] | None) -> dict[str, tuple[Tensor, int]]:
    """The smallest and largest input of each layer over the calibration batches, as a tensor of two, and the inputs' dimensions."""
    if calibration is None:
        raise ConfigError('activations "static" have their range from samples: give calibration=[batches], or use "dynamic"')
    found: dict[str, tuple[Tensor, int]] = {}

    def look(name: str, x: Tensor) -> None:
        now = torch.stack(x.aminmax())
        before = found[name][0] if name in found else now
        found[name] = torch.stack([torch.minimum(now[0], before[0]), torch.maximum(now[1], before[1])]), x.ndim

    hooks = [
        model.get_submodule(name).register_forward_pre_hook(lambda _, inputs, name=name: look(name, inputs[0])) for name in names
    ]
    try:
        with torch.no_grad():
            for batch in calibration:
                model(batch[0] if isinstance(batch, tuple | list) else batch)
    finally:
        for hook in hooks:
            hook.remove()
    if missing := [n for n in names if n not in found]:
        raise ConfigError(f"{missing[0]} was not reached by the calibration samples: exclude it, or give samples that use it")
    return found
