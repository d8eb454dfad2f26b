"""Measures: quality, size, speed and what the layers carry."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from torch import nn

from prunescope.measures import energy, memory, operations, quality, size, speed  # importing them registers their measures
from prunescope.measures.comparison import bench
from prunescope.measures.quality import Measurement, as_split
from prunescope.registry import measures
from prunescope.types import ConfigError

__all__ = ["Measurement", "bench", "energy", "measure", "memory", "operations", "quality", "size", "speed"]


def measure(
    model: nn.Module, data: Any = None, names: Sequence[str] = ("accuracy", "loss", "size", "flops"), **options: Any
) -> dict[str, Measurement]:
    """Measure `model`: metric name -> Measurement (value, unit, n, standard error).

    data     a Split, a Dataset (its test part), a pair (x, y) or a DataLoader; `size` alone needs none
    names    of measures (`prunescope list measures`); options: e.g. loss="nll", batch_size=1 for latency, given to those that take them

    >>> measure(nn.Linear(2, 3), names=["size"])["parameters"].value
    9
    """
    entries = [measures.get(name) for name in names]
    if data is None and (wanting := [e.name for e in entries if "data" in e.needs]):
        raise ConfigError(f"measuring {', '.join(wanting)} needs data: give a Split, (x, y) or a DataLoader as the second argument")
    device = next((p.device for p in model.parameters()), "cpu")
    split = None if data is None else as_split(data, device)
    taken = {o for e in entries for o in e.options}
    if strange := set(options) - taken:
        raise ConfigError(f"unknown option {', '.join(sorted(strange))}: {', '.join(names)} take {', '.join(sorted(taken)) or 'none'}")
    found: dict[str, Measurement] = {}
    for entry in entries:
        own = {k: v for k, v in options.items() if k in inspect.signature(entry.function).parameters}
        found |= {m.metric: m for m in entry.function(model, split, **own)}
    return found
