"""What a network with int8 layers has to store, and how it is put together again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prunescope import extras
from prunescope.types import StoreError

SCALE, INPUT_SCALE, INPUT_ZERO = ".scale", ".input_scale", ".input_zero"


def is_int8(tensor: Tensor) -> bool:
    """Whether a weight is torchao's int8 tensor."""
    return type(tensor).__name__ == "Int8Tensor" and hasattr(tensor, "qdata")


def stored(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of `model` under its state dict's names: an int8 weight as int8 (out, in), with `NAME.scale` (out, 1) beside it.

    Where activations are static, `NAME.input_scale` and `NAME.input_zero` say how inputs are rounded: q = round(x / scale) + zero.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        found |= _parts(name, tensor)
    return found


def _parts(name: str, tensor: Any) -> dict[str, Tensor]:
    if not is_int8(tensor):
        return {name: tensor.detach()}
    parts = {name: tensor.qdata, name + SCALE: tensor.scale, name + INPUT_SCALE: tensor.act_quant_scale}
    parts[name + INPUT_ZERO] = tensor.act_quant_zero_point
    return {n: v for n, v in parts.items() if v is not None}


def stored_bytes(model: nn.Module) -> int:
    """Bytes of all parameters, shared ones once, scales of int8 weights included."""
    return sum(v.numel() * v.element_size() for p in model.parameters() for v in _parts("", p).values())


def restore(model: nn.Module, tensors: Mapping[str, Tensor], *, activations: str) -> nn.Module:
    """Give `model`, freshly built, the tensors that `stored` gave for a quantised one of its architecture; in place. Returns the model.

    Raises StoreError where names or shapes do not fit.
    """
    whole = {n: t for n, t in tensors.items() if not n.endswith((SCALE, INPUT_SCALE, INPUT_ZERO))}
    int8 = {n: t for n, t in whole.items() if t.dtype == torch.int8}
    try:
        plain = {n: t.float() if n in int8 else t for n, t in whole.items()}
        model.load_state_dict(plain)
        for name, values in int8.items():
            owner, _, own = name.rpartition(".")
            weight = _int8_tensor(values, {part: tensors.get(name + part) for part in (SCALE, INPUT_SCALE, INPUT_ZERO)}, activations)
            setattr(model.get_submodule(owner), own, nn.Parameter(weight, requires_grad=False))
    except (RuntimeError, KeyError, AttributeError) as error:
        raise StoreError(f"these tensors are not of a quantised {type(model).__name__}: {str(error).splitlines()[0]}") from error
    return model.eval()


def _int8_tensor(values: Tensor, parts: Mapping[str, Tensor | None], activations: str) -> Any:
    kinds = extras.load("torchao.quantization.quantize_.workflows.int8.int8_tensor", extra="quant", purpose="an int8 network")
    api = extras.load("torchao.quantization", extra="quant", purpose="an int8 network")
    scale = parts[SCALE]
    if scale is None:
        raise KeyError("an int8 weight without its scale")
    how = {"dynamic": api.PerRow(), "static": api.PerTensor(), "float": None}[activations]
    inputs = None if how is None else kinds.QuantizeTensorToInt8Kwargs(granularity=how, mapping_type=api.MappingType.ASYMMETRIC)
    return kinds.Int8Tensor(
        values, scale, [1, values.shape[1]], scale.dtype, zero_point=torch.zeros_like(scale, dtype=torch.int8),
        act_quant_scale=parts[INPUT_SCALE], act_quant_zero_point=parts[INPUT_ZERO], act_quant_kwargs=inputs,
    )  # fmt: skip
