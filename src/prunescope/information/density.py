"""Mutual information by classic kernel density estimates (nats): a Gaussian product kernel with a rule for its width."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from prunescope.information.raw import Raw
from prunescope.registry import estimators
from prunescope.types import EstimateError

TILE = 1024
Width = Literal["scott", "silverman"] | float


def bandwidth(n: int, d: int, rule: Width) -> float:
    """Kernel width in standard deviations of each column, for n samples in d dimensions.

    "scott" n^(-1/(d+4)) (Scott 1992, eq. 6.42), "silverman" (4 / (n (d + 2)))^(1/(d+4)) (Silverman 1986, eq. 4.14), or a number.

    >>> round(bandwidth(32, 1, "scott"), 9)
    0.5
    """
    if rule == "scott":
        return float(n ** (-1 / (d + 4)))
    if rule == "silverman":
        return float((4 / (n * (d + 2))) ** (1 / (d + 4)))
    if isinstance(rule, int | float) and rule > 0:
        return float(rule)
    raise EstimateError(f"width={rule!r}: expected 'scott', 'silverman' or a positive number of standard deviations")


def _squares(z: Tensor, rows: slice) -> Tensor:
    """Half squared distances (rows, n) in float64, infinite to oneself."""
    a = z[rows]
    half = 0.5 * (a.square().sum(1)[:, None] + z.square().sum(1)[None]) - a @ z.mT
    half.clamp_min_(0.0)[:, rows].fill_diagonal_(math.inf)
    return half


def _log_mean(half: Tensor) -> Tensor:
    """log of the mean of exp(-half) over the other samples, safe where all of them underflow."""
    return torch.logsumexp(-half, dim=1) - math.log(half.shape[1] - 1)


def _one(x: Tensor, y: Tensor, rule: Width, tile: int) -> tuple[float, float]:
    n = len(x)
    h = bandwidth(n, x.shape[1] + y.shape[1], rule)
    zx, zy = (_standard(v) / h for v in (x, y))
    terms = []
    for i in range(0, n, tile):
        rows = slice(i, min(i + tile, n))
        dx, dy = _squares(zx, rows), _squares(zy, rows)
        marginals = _log_mean(dx) + _log_mean(dy)
        terms.append(_log_mean(dx.add_(dy)) - marginals)
    each = torch.cat(terms)
    return float(each.mean()), float(each.std() / math.sqrt(n))


def _standard(x: Tensor) -> Tensor:
    z = x.double() - x.double().mean(0)
    return z / z.std(0).clamp_min(torch.finfo(torch.float64).tiny)


@estimators(
    "kernel-density",
    source="Moon, Rajagopalan & Lall 1995, eq. 5 and 11; widths Scott 1992, eq. 6.42 and Silverman 1986, eq. 4.14",
    x="continuous",
    y="continuous",
    symmetric=True,
    invariant=("shift", "scale", "permutation"),
    batched=True,
    consistent=True,
    quantities=("mi",),
    interval="extrapolation",
    rate=lambda columns: 1 / (columns + 4),  # that of the kernel's width: its square holds for smooth densities only
    coordinates=True,
)
def kernel_density(x: Tensor, y: Tensor, *, width: Width = "silverman", tile: int = TILE) -> Raw:
    """Mutual information (nats), mean over the samples of log p(x, y) / p(x) p(y) with leave-one-out Gaussian product kernels.

    x, y (..., n, d) floating; one width for the joint and its marginals, in standard deviations of each column.
    Fails beyond about 4 columns in all, where the smoothing hides most of the dependence (flagged "high-dimension"), for dependence
    finer than the kernel, which it stops seeing at about 2 bits of one pair, and for heavy tails, whose standard deviation widens
    the kernel for everybody: it then reads far below 0. Source: Moon, Rajagopalan & Lall 1995, eq. 5 and 11; widths Scott 1992,
    eq. 6.42 and Silverman 1986, eq. 4.14. See docs/science/estimators/kernel-density.md#kernel-density.

    >>> corners = torch.tensor([[-1.0], [-1.0], [1.0], [1.0]])
    >>> round(float(kernel_density(corners, corners, width=0.01).value) / math.log(2), 6)  # 1 of 3 others is near: log2 3
    1.584963
    """
    shape = x.shape[:-2]
    pairs = zip(x.reshape(-1, *x.shape[-2:]), y.expand(*shape, *y.shape[-2:]).reshape(-1, *y.shape[-2:]), strict=True)
    found = torch.tensor([_one(a, b, width, tile) for a, b in pairs], dtype=torch.float64)
    flags = ("high-dimension",) if x.shape[-1] + y.shape[-1] > 4 else ()
    return Raw(found[:, 0].reshape(shape), found[:, 1].reshape(shape), math.log(x.shape[-2] - 1), flags)
