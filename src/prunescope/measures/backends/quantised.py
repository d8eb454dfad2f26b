"""int8 in torch: weights quantised once, activations while the network runs."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import nn

from prunescope import extras
from prunescope.measures.backends.preparation import BackendError, Job, Run, missing, on_cpu
from prunescope.registry import backends
from prunescope.types import ConfigError, PrunescopeError

INT8 = 0.1  # int8 moves logits by 1 to 5 % of their size; more than this is a fault


def _no_engine(device: torch.device) -> PrunescopeError | None:
    if torch.backends.quantized.engine in ("none", None):
        return ConfigError("torch has no quantisation engine on this machine: use onnxruntime-int8 or leave torch-int8 out")
    return on_cpu(device, "torch's dynamic int8")


@backends("torch-int8", source="torch.ao.quantization.quantize_dynamic (deprecated by torch, still its fastest on CPUs)", absent=_no_engine,
          tolerance=INT8)  # fmt: skip
def torch_int8(job: Job) -> tuple[Run, dict[str, Any]]:
    """torch's dynamic quantisation of linear and recurrent layers: int8 weights, int8 activations."""
    kinds = (nn.Linear, nn.LSTM, nn.GRU)
    if not any(type(m) in kinds for m in job.model.modules()):
        raise BackendError("torch-int8: this model has no linear or recurrent layer, so there is nothing to quantise")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says at every call that it will go some day
        held = nn.Sequential(copy.deepcopy(job.model))  # it exchanges what is inside a module, never the module itself
        made: Any = torch.ao.quantization.quantize_dynamic(held, set(kinds), dtype=torch.qint8)
    return made[0], {"engine": torch.backends.quantized.engine}


@backends("torchao-int8", source="torchao: Int8DynamicActivationInt8WeightConfig", tolerance=INT8,
          absent=lambda device: missing(("torchao",), "quant", "torchao-int8"))  # fmt: skip
def torchao_int8(job: Job) -> Run:
    """torchao's int8 weights and dynamic int8 activations of linear layers."""
    if not any(type(m) is nn.Linear for m in job.model.modules()):
        raise BackendError("torchao-int8: this model has no linear layer, so there is nothing to quantise")
    with extras.quiet():
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

        made = nn.Sequential(copy.deepcopy(job.model))
        quantize_(made, Int8DynamicActivationInt8WeightConfig())
    return made[0]
