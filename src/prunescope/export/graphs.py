"""Files that hold the computation too: ONNX by PyTorch's exporter over torch.export, and PyTorch's own pt2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunescope import extras
from prunescope.export.agreement import SIZES, Agreement, compared, outputs
from prunescope.export.inputs import Inputs, of_size
from prunescope.quantization.storage import is_int8
from prunescope.types import ExportError

TOLERANCE = 1e-4  # of the largest output: other libraries sum in another order


def check_onnx() -> None:
    """Raise MissingExtraError where one of the packages that ONNX needs is not there."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        extras.load(package, extra="export", purpose="ONNX")


def write_onnx(model: nn.Module, path: Path, example: Inputs, *, dynamic: bool) -> Agreement:
    """Write `model` as one ONNX file, weights within, and compare it by ONNX Runtime. Raises ExportError, MissingExtraError."""
    check_onnx()
    if any(is_int8(p) for p in model.parameters()):
        raise ExportError("int8 networks of torchao have no ONNX form: export them as pt2 or safetensors, or the network before quantising")
    names = ["input"] if len(example) == 1 else [f"input_{i}" for i in range(len(example))]
    shapes = tuple({0: torch.export.Dim("batch")} for _ in example) if dynamic else None
    try:
        with extras.quiet():
            program = torch.onnx.export(
                model, of_size(example, max(2, len(example[0]))) if dynamic else example, dynamo=True, external_data=False,
                dynamic_shapes=shapes, input_names=names, verbose=False,
            )  # fmt: skip
            assert program is not None, "the exporter over torch.export gives a program"
            program.save(str(path), external_data=False)
    except Exception as error:  # the exporter raises many kinds of its own
        raise _untraceable(model, "ONNX", error, dynamic) from error
    return compared(model, _onnx_runner(path), example, by="ONNX Runtime", sizes=_sizes(example, dynamic), tolerance=TOLERANCE)


def _onnx_runner(path: Path) -> Any:
    runtime = extras.load("onnxruntime", extra="export", purpose="ONNX")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    named = [entry.name for entry in session.get_inputs()]

    def run(inputs: Inputs) -> list[Tensor]:
        given = dict(zip(named, (x.cpu().numpy() for x in inputs), strict=True))
        return [torch.as_tensor(value) for value in session.run(None, given)]

    return run


def write_pt2(model: nn.Module, path: Path, example: Inputs, *, dynamic: bool) -> Agreement:
    """Write `model` by torch.export.save, load it again and compare. Raises ExportError where it cannot be traced."""
    shapes = tuple({0: torch.export.Dim("batch")} for _ in example) if dynamic else None
    try:
        with extras.quiet(), torch.no_grad():
            tried = of_size(example, max(2, len(example[0]))) if dynamic else example
            torch.export.save(torch.export.export(model, tried, dynamic_shapes=shapes), str(path))
            loaded = torch.export.load(str(path)).module()  # our own file of a moment ago: nothing from elsewhere is ever loaded so
    except Exception as error:  # torch.export raises many kinds of its own
        raise _untraceable(model, "pt2", error, dynamic) from error

    def run(inputs: Inputs) -> list[Tensor]:
        with torch.no_grad():
            returned = loaded(*inputs)
        return outputs(returned)

    return compared(model, run, example, by="torch.export.load", sizes=_sizes(example, dynamic), tolerance=TOLERANCE)


def _sizes(example: Inputs, dynamic: bool) -> tuple[int, ...]:
    n = len(example[0])
    return SIZES if dynamic else (n, n)


def _untraceable(model: nn.Module, kind: str, error: Exception, dynamic: bool) -> ExportError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = error.__cause__
    while cause is not None:  # the exporters wrap what torch.export said, which names the place
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or lines
        cause = cause.__cause__
    said = lines[0][:300] if lines else type(error).__name__
    hint = "; without a free batch size (dynamic_batch) it may work" if dynamic else ""
    return ExportError(f"{type(model).__name__} cannot be written as {kind}: {said}{hint}")
