"""Size: parameters, non-zeros, bytes in several formats, and floating-point operations."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from prunescope.measures.formats import FORMATS, stored
from prunescope.measures.quality import Measurement, batched
from prunescope.registry import measures
from prunescope.types import Split


def size(model: nn.Module) -> list[Measurement]:
    """Number of parameters, of parameters that are not zero, and bytes of the dense tensors: what every trial records."""
    parameters = list(model.parameters())
    total = sum(p.numel() for p in parameters)
    nonzero = sum(int(p.detach().count_nonzero()) for p in parameters)
    size_bytes = sum(p.numel() * p.element_size() for p in parameters)
    return [
        Measurement("parameters", total, "count"),
        Measurement("nonzero", nonzero, "count"),
        Measurement("bytes", size_bytes, "bytes", parameters={"format": "dense"}),
    ]


@measures("size", source="counted over the parameters, shared ones once; formats in measures/formats.py")
def size_in_formats(model: nn.Module, split: Split | None = None, *, formats: Sequence[str] = FORMATS) -> list[Measurement]:
    """Number of parameters and of non-zeros, bytes of the dense tensors, and bytes in each of `formats` ("bytes_csr", ...).

    "zlib" takes about a second for 20 MB; `formats=()` counts only.
    """
    return [*size(model), *stored(model, formats)]


@measures("flops", needs=("data",), source="torch.utils.flop_counter: matrix products and convolutions, 2 per multiply-add")
def flops(model: nn.Module, split: Split) -> list[Measurement]:
    """Floating-point operations of a forward pass on one sample; zeros inside dense tensors are computed and counted."""
    counter = FlopCounterMode(display=False)
    with seen_products(), counter:
        batched(model, split.x[:1])
    return [Measurement("flops", counter.get_total_flops(), "flop", n=1)]


@contextlib.contextmanager
def seen_products() -> Iterator[None]:
    """Fused attention and the LSTMs of oneDNN and cuDNN are one call each, whose products a counter does not see: they are off inside."""
    fused, onednn = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    torch._C._set_mkldnn_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        torch._C._set_mkldnn_enabled(onednn)
