"""Standard errors and intervals (nats) of any estimator by computing it on parts of the samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student
from torch import Tensor

from prunescope.rng import torch_generator
from prunescope.types import EstimateError

Compute = Callable[[Tensor], float]  # sample numbers -> value in nats
Floats = NDArray[np.float64]

DOUBLINGS = 3  # extrapolation looks at n / 2, n / 4 and n / 8
LEAST_PART = 16  # samples in the smallest part: below, a part says more about its own size than about the whole


@dataclass(frozen=True)
class Spread:
    """Standard error in nats, how far the 95 % interval reaches below and above the value (nats), and how that was found.

    `stated` goes into the estimate's parameters, `flags` into its flags.
    """

    stderr: float
    below: float
    above: float
    stated: dict[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


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
    return Spread(stderr, half, half, {"uncertainty": name, **stated, "interval": "95 %, Student t"})


METHODS: dict[str, Callable[..., Spread]] = {"subsampling": subsampling, "jackknife": jackknife}


def remaining(rate: float) -> float:
    """How many times the change at the last doubling of n is still to come (no unit) if the bias falls like n^-rate.

    >>> round(remaining(1.0), 12), round(remaining(0.5), 3)
    (1.0, 2.414)
    """
    return float(1 / math.expm1(rate * math.log(2)))


def extrapolation(
    compute: Compute, n: int, *, seed: int, value: float, own: float = 0.0, rate: float = 0.5, other: float | None = None
) -> Spread:
    """Standard error (nats) and an interval that carries bias, from the value at n and the mean values at n / 2, n / 4 and n / 8.

    The samples are halved at random three times, so that each mean is over all of them and the means differ by their bias more than by
    chance. Statistical part: the differences between the two halves of each part (seven, at three sizes) give the variance, which falls
    with 1 / n and into which shared neighbours enter; Student's t with 7 degrees of freedom; never below 1.96 times `own`, the
    estimator's own standard error. Bias part: the least-squares curve value = limit + c n^-rate through the four means, followed to
    its limit; `rate` is the slowest that the method allows (1 for counts, 1 / columns for neighbours, whose distance falls no
    faster). `other` is the same quantity in coordinates in which it must be equal, where there are such. The interval reaches the
    value, the limit and `other`, each with the statistical part to either side.
    Flag "unconverged": the change at the last doubling, on that curve, or the distance to `other`, exceeds the standard error.

    After Holmes & Nemenman 2019, sec. II C and III (subsamples; no trust where the value drifts with n); the rate of neighbours:
    Gao, Oh & Viswanath 2018, theorem 1. Errors: EstimateError below 128 samples.
    """
    if n < LEAST_PART * 2**DOUBLINGS:
        raise EstimateError(f"extrapolation: expected at least {LEAST_PART * 2**DOUBLINGS} samples, got {n}; use uncertainty='jackknife'")
    order = torch.randperm(n, generator=torch_generator(seed, "extrapolation"))
    levels = [np.array([compute(part.sort().values) for part in order.tensor_split(2**d)]) for d in range(1, DOUBLINGS + 1)]
    variance, freedom = _nested_variance(levels)
    stderr = max(variance**0.5, own)
    half = max(float(student.ppf(0.975, freedom)) * variance**0.5, 1.96 * own)
    change = _last_change(np.array([value, *(level.mean() for level in levels)]), rate)
    bias = remaining(rate) * change
    away = 0.0 if other is None else other - value
    moving = abs(change) > stderr or abs(away) > stderr
    stated = {"uncertainty": "extrapolation from n/8, n/4 and n/2 to n and beyond, 95 %", "bias_nats": bias}
    return Spread(
        stderr, half - min(0.0, bias, away), half + max(0.0, bias, away), stated, ("unconverged",) if moving else ()
    )  # fmt: skip


def extrapolation_or_own(compute: Compute, n: int, *, value: float, own: float, rate: float, other: float | None, seed: int = 0) -> Spread:
    """`extrapolation`, or, where the samples are too few for parts, the method's own standard error `own` (nats): flag "few-samples"."""
    try:
        return extrapolation(compute, n, seed=seed, value=value, own=own, rate=rate, other=other)
    except EstimateError as error:
        text = "the estimator's own standard error, 95 % normal interval without bias"
        return Spread(own, 1.96 * own, 1.96 * own, {"uncertainty": text, "unchecked": str(error)}, ("few-samples",))


def _nested_variance(levels: list[Floats]) -> tuple[float, int]:
    """Variance (nats squared) of the value at n from the contrasts of neighbouring parts, and how many contrasts there are."""
    total, count = 0.0, 0
    for values in levels:
        pairs = values.reshape(-1, 2)
        total += float(((pairs[:, 0] - pairs[:, 1]) ** 2).sum()) / 2 / len(values)
        count += len(pairs)
    return total / count, count


def _last_change(means: Floats, rate: float) -> float:
    """Change in nats from n / 2 to n on the curve limit + c n^-rate that fits the changes between the means (n, n / 2, ...) best."""
    changes = means[:-1] - means[1:]
    weights = 2.0 ** (rate * np.arange(len(changes)))
    return float((weights * changes).sum() / (weights**2).sum())
