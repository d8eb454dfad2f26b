"""Size: parameters, non-zeros, bytes and floating-point operations."""

from __future__ import annotations

from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from prunescope.measures.quality import Measurement, batched
from prunescope.registry import measures
from prunescope.types import Split


@measures("size", source="counted over the parameters, shared ones once")
def size(model: nn.Module, split: Split | None = None) -> list[Measurement]:
    """Number of parameters, of parameters that are not zero, and bytes of the dense tensors."""
    parameters = list(model.parameters())
    total = sum(p.numel() for p in parameters)
    nonzero = sum(int(p.detach().count_nonzero()) for p in parameters)
    size_bytes = sum(p.numel() * p.element_size() for p in parameters)
    return [
        Measurement("parameters", total, "count"),
        Measurement("nonzero", nonzero, "count"),
        Measurement("bytes", size_bytes, "bytes", parameters={"format": "dense"}),
    ]


@measures("flops", needs=("data",), source="torch.utils.flop_counter: matrix products and convolutions, 2 per multiply-add")
def flops(model: nn.Module, split: Split) -> list[Measurement]:
    """Floating-point operations of a forward pass on one sample; zeros inside dense tensors are computed and counted."""
    counter = FlopCounterMode(display=False)
    with counter:
        batched(model, split.x[:1])
    return [Measurement("flops", counter.get_total_flops(), "flop", n=1)]
