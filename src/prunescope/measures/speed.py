"""Speed: what a forward pass takes on this machine."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.benchmark import Timer

from prunescope.measures.quality import Measurement
from prunescope.registry import measures
from prunescope.types import Split


@measures("latency", needs=("data",), source="torch.utils.benchmark.Timer.blocked_autorange: median of blocks after warm-up")
def latency(
    model: nn.Module, split: Split, *, batch_size: int = 64, threads: int = 1, seconds: float = 0.1
) -> list[Measurement]:
    """Median milliseconds of a forward pass over `batch_size` samples with `threads` threads, interquartile range in the parameters."""
    was_training = model.training
    model.eval()
    x = split.x[:batch_size]
    try:
        with torch.no_grad():
            for _ in range(3):  # memory touched for the first time can cost more than the product itself
                model(x)
            timed = Timer("model(x)", globals={"model": model, "x": x}, num_threads=threads).blocked_autorange(min_run_time=seconds)
    finally:
        model.train(was_training)
    quartiles = torch.tensor(timed.times, dtype=torch.float64).quantile(torch.tensor([0.25, 0.75], dtype=torch.float64)) * 1e3
    detail = {"batch_size": len(x), "threads": threads, "quartiles_ms": [round(q, 6) for q in quartiles.tolist()], "device": str(x.device)}
    return [Measurement("latency_ms", timed.median * 1e3, "ms", n=len(timed.times), parameters=detail)]
