"""Memory: what a forward pass needs beside the weights and its input."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from prunescope.measures.quality import Measurement
from prunescope.measures.speed import batch
from prunescope.registry import measures
from prunescope.types import Split

ALLOCATION = "[memory]"  # what the profiler calls an allocation, and, with fewer than 0 bytes, its end


@measures("memory", needs=("data",), source="CPU: running sum of torch.profiler's allocations; CUDA: torch.cuda.max_memory_allocated")
def memory(model: nn.Module, split: Split, *, batch_size: int = 64) -> list[Measurement]:
    """Most bytes held at once during a forward pass over `batch_size` samples, beyond the weights and the input ("peak_memory").

    Counted are the tensors and buffers that torch allocates; what a library allocates on its own (oneDNN's scratch space) is not seen on
    the CPU. The parameters hold the bytes of weights and buffers, which come on top, and the method.
    """
    x = batch(split.x, batch_size)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(x)  # the first pass may allocate what is kept for all later ones
            peak = _cuda_peak(model, x) if x.is_cuda else _cpu_peak(model, x)
    finally:
        model.train(was_training)
    held = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    method = "torch.cuda.max_memory_allocated" if x.is_cuda else "torch.profiler"
    detail = {"batch_size": len(x), "weights_bytes": held, "input_bytes": x.numel() * x.element_size(), "method": method}
    return [Measurement("peak_memory", peak, "bytes", n=1, parameters=detail)]


def _cpu_peak(model: nn.Module, x: Tensor) -> int:
    with _muted(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        out = model(x)
    del out  # held until here: its end must not come before the pass is over
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == ALLOCATION]  # type: ignore[union-attr]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def _cuda_peak(model: nn.Module, x: Tensor) -> int:
    torch.cuda.synchronize(x.device)
    before = torch.cuda.memory_allocated(x.device)
    torch.cuda.reset_peak_memory_stats(x.device)
    model(x)
    torch.cuda.synchronize(x.device)
    return torch.cuda.max_memory_allocated(x.device) - before


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """Nothing is written to the process's standard error: the profiler's library announces itself there, below Python."""
    with open(os.devnull, "wb") as nowhere:
        kept = os.dup(2)
        try:
            os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
