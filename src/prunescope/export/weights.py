"""Weights as safetensors with a description of the network in the header: architecture, masks, where they came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from prunescope.export.agreement import Agreement, outputs
from prunescope.export.inputs import Inputs, drawn
from prunescope.quantization.storage import stored
from prunescope.types import ExportError, StoreError

HEADER = "prunescope"


def described(model: nn.Module, masks: Mapping[str, Tensor] | None, example: Inputs, about: Mapping[str, Any]) -> dict[str, Any]:
    """What the network is, JSON-ready: its class and layers, parameters' shapes and zeros, masks' counts, example's shape, and `about`."""
    layers = [
        {"name": name, "kind": type(m).__name__, "options": m.extra_repr()[:200]}
        for name, m in model.named_modules()
        if name and not any(True for _ in m.children())
    ]
    tensors = {
        n: {"shape": list(t.shape), "dtype": str(t.dtype).removeprefix("torch."), "zero": t.numel() - int(t.count_nonzero())}
        for n, t in stored(model).items()
    }
    kept = {} if masks is None else {n: {"kept": int(m.sum()), "of": m.numel()} for n, m in masks.items()}
    shapes = [[*x.shape[1:]] for x in example]
    return {
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "layers": layers,
        "tensors": tensors,
        "masks": kept,
        "input_shapes": shapes,
        "about": dict(about),
    }


def write_weights(model: nn.Module, path: Path, example: Inputs, description: Mapping[str, Any]) -> Agreement:
    """Write the tensors of `model` with `description` in the header, read them again and compare every bit."""
    tensors = _apart(stored(model))
    header = {HEADER: json.dumps(description, sort_keys=True, default=str)}
    try:
        safetensors.torch.save_file(tensors, str(path), header)
        again, _ = read_weights(path)
    except SafetensorError as error:
        raise ExportError(f"{path}: the weights could not be written: {error}") from error
    if wrong := [n for n, t in tensors.items() if not _same(t, again.get(n))]:
        raise ExportError(f"{path}: {wrong[0]} came back from the file changed: nothing was written")
    inputs = drawn(example, 2)
    with torch.no_grad():
        outputs(model(*inputs))  # the example fits the network: the card states its shape
    return Agreement("Read again from the file: every tensor the same to the last bit", 0.0, 0.0, ())


def _same(a: Tensor, b: Tensor | None) -> bool:
    if b is None or a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))  # bits: NaN equals itself


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor with memory of its own, as the format wants it; shared ones are written under each of their names."""
    return {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors in a safetensors file, and the description in its header ({} where prunescope did not write it). No pickle is read."""
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
        description = json.loads(header.get(HEADER, "{}"))
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise StoreError(f"{path}: cannot be read as safetensors: {str(error).splitlines()[0]}") from error
    return tensors, description if isinstance(description, dict) else {}
