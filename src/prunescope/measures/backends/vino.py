"""OpenVINO: the network as an ONNX file, run by Intel's runtime on any x86 or ARM processor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prunescope.measures.backends.preparation import Job, Run, missing, on_cpu
from prunescope.registry import backends
from prunescope.types import PrunescopeError

SPARSE_RATE = "CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE"


def _absent(device: torch.device) -> PrunescopeError | None:
    return missing(("openvino", "onnx", "onnxscript"), "openvino", "OpenVINO") or on_cpu(device, "OpenVINO")


def _compiled(job: Job, settings: dict[str, Any]) -> tuple[Run, dict[str, Any]]:
    import openvino

    core = openvino.Core()
    # by default it computes in bfloat16 where the processor can, which is another function
    own = {"INFERENCE_NUM_THREADS": job.threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", **settings}
    network = core.compile_model(core.read_model(job.onnx), "CPU", own)
    request = network.create_infer_request()

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(request.infer([x.numpy()], share_inputs=True)[0])

    return run, {"version": openvino.__version__, **settings}


@backends("openvino", source="OpenVINO, CPU device, float32", absent=_absent)
def openvino_float(job: Job) -> tuple[Run, dict[str, Any]]:
    """OpenVINO in float32."""
    return _compiled(job, {})


@backends("openvino-sparse", source="OpenVINO, CPU device: CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE", absent=_absent, sparse=True)
def openvino_sparse(job: Job, *, rate: float = 0.5) -> tuple[Run, dict[str, Any]]:
    """OpenVINO with compressed weights allowed in matrices of at least sparsity `rate`; it uses them for int8 on AMX processors only."""
    return _compiled(job, {SPARSE_RATE: str(rate)})
