"""ONNX Runtime: the network as an ONNX file, in float32 and in int8."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunescope import extras
from prunescope.measures.backends.preparation import Job, Run, missing, on_cpu
from prunescope.measures.backends.quantised import INT8
from prunescope.registry import backends
from prunescope.types import PrunescopeError

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def _absent(device: torch.device) -> PrunescopeError | None:
    return missing(PACKAGES, "export", "ONNX Runtime") or on_cpu(device, "ONNX Runtime")


def _session(content: bytes, threads: int) -> Run:
    """A function from a tensor to the file's first output."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: x.numpy()})[0])

    return run


@backends("onnxruntime", source="ONNX Runtime, CPUExecutionProvider, all graph optimisations", absent=_absent)
def onnxruntime_float(job: Job) -> Run:
    """ONNX Runtime in the model's own precision."""
    return _session(job.onnx, job.threads)


@backends("onnxruntime-int8", source="onnxruntime.quantization: quant_pre_process, then quantize_dynamic", absent=_absent, tolerance=INT8)
def onnxruntime_int8(job: Job) -> tuple[Run, dict[str, Any]]:
    """ONNX Runtime with int8 weights and dynamic int8 activations, after its own preparation of the graph."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, extras.quiet():
        plain, prepared, quantised = (Path(folder) / f"{name}.onnx" for name in ("plain", "prepared", "quantised"))
        plain.write_bytes(job.onnx)
        quant_pre_process(str(plain), str(prepared))
        # signed weights saturate in 16 bits on processors without VNNI: 0.17 of the outputs' size instead of 0.014
        quantize_dynamic(str(prepared), str(quantised), weight_type=QuantType.QUInt8)
        content = quantised.read_bytes()
    return _session(content, job.threads), {"bytes": len(content)}
