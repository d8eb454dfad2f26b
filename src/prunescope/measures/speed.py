"""Speed: what a forward pass takes on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from prunescope.measures.quality import Measurement
from prunescope.measures.timing import synchroniser, timed
from prunescope.registry import measures
from prunescope.types import ConfigError, Split


@measures("latency", needs=("data",), source="median of blocks of calls after warm-up, interval by order statistics (measures/timing.py)")
def latency(
    model: nn.Module,
    split: Split,
    *,
    batch_size: int | Sequence[int] = 64,
    threads: int = 1,
    seconds: float = 0.1,
    clock: Literal["wall", "processor"] = "wall",
) -> list[Measurement]:
    """Median milliseconds of a forward pass over `batch_size` samples with `threads` threads.

    The parameters hold the 95 % interval of the median and the quartiles over blocks. Several batch sizes give one measurement each,
    called "latency_ms_1", "latency_ms_64", ...; rows are repeated where there are fewer samples than a batch takes.
    """
    if isinstance(batch_size, int):
        return [_latency(model, batch(split.x, batch_size), "latency_ms", threads, seconds, clock)]
    return [_latency(model, batch(split.x, size), f"latency_ms_{size}", threads, seconds, clock) for size in batch_size]


def _latency(model: nn.Module, x: Tensor, metric: str, threads: int, seconds: float, clock: str) -> Measurement:
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            found = timed(lambda: model(x), seconds=seconds, threads=threads, clock=clock, synchronise=synchroniser(x.device))
    finally:
        model.train(was_training)
    detail = {
        "batch_size": len(x), "threads": threads, "clock": clock, "device": str(x.device),
        "quartiles_ms": [round(q, 6) for q in found.quartiles], "interval_ms": [round(v, 6) for v in found.interval],
    }  # fmt: skip
    return Measurement(metric, found.median, "ms", n=len(found.blocks), parameters=detail)


def batch(x: Tensor, size: int) -> Tensor:
    """`size` rows of `x`, from the first on and again from the first where there are fewer.

    >>> batch(torch.tensor([1, 2, 3]), 5).tolist()
    [1, 2, 3, 1, 2]
    """
    if size < 1 or not len(x):
        raise ConfigError(f"a batch of {size} of {len(x)} samples: expected at least one of each")
    return x[:size] if size <= len(x) else x[torch.arange(size, device=x.device) % len(x)]
