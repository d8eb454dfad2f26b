"""Standard errors and intervals (nats) of any estimator by computing it on parts of the samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

from prunescope.rng import torch_generator
from prunescope.types import EstimateError

Compute = Callable[[Tensor], float]  # sample numbers -> value in nats


@dataclass(frozen=True)
class Spread:
    """Standard error in nats, half width of the 95 % interval in nats, and how they were found (goes into the parameters)."""

    stderr: float
    half_width: float
    stated: dict[str, Any] = field(default_factory=dict)


def subsampling(compute: Compute, n: int, *, seed: int, parts: int = 10) -> Spread:
    """Standard error (nats) from `parts` disjoint random parts of n / parts samples: their sd / sqrt(parts), as variance falls with 1 / n.

    The interval uses Student's t with parts - 1 degrees of freedom and knows nothing of bias. Holmes & Nemenman 2019, eq. 8.
    """
    size = n // parts
    if size < 10:
        raise EstimateError(f"subsampling: expected at least {10 * parts} samples for {parts} parts, got {n}; use uncertainty='jackknife'")
    order = torch.randperm(n, generator=torch_generator(seed, "subsampling"))
    values = np.array([compute(order[i * size : (i + 1) * size]) for i in range(parts)])
    stderr = float(values.std(ddof=1) / math.sqrt(n / size))
    return _spread(stderr, parts, "subsampling", {"parts": parts})


def jackknife(compute: Compute, n: int, *, seed: int, groups: int = 20) -> Spread:
    """Standard error (nats) by leaving out one of `groups` random groups at a time. Efron & Tibshirani 1993, eq. 11.5."""
    groups = min(groups, n)
    if n < 5:
        raise EstimateError(f"jackknife: expected at least 5 samples, got {n}")
    order = torch.randperm(n, generator=torch_generator(seed, "jackknife"))
    member = torch.arange(n) % groups
    values = np.array([compute(order[member != g].sort().values) for g in range(groups)])
    stderr = math.sqrt((groups - 1) / groups * float(((values - values.mean()) ** 2).sum()))
    return _spread(stderr, groups, "jackknife", {"groups": groups})


def _spread(stderr: float, parts: int, name: str, stated: dict[str, Any]) -> Spread:
    half = float(student.ppf(0.975, parts - 1)) * stderr
    return Spread(stderr, half, {"uncertainty": name, **stated, "interval": "95 %, Student t"})


METHODS: dict[str, Callable[..., Spread]] = {"subsampling": subsampling, "jackknife": jackknife}
