"""Estimators (nats) that count nearest neighbours: Kraskov and its relatives for continuous, discrete and mixed variables.

All of them assume that the density is about even inside the ball of the k-th neighbour. That fails when the variables depend on each
other so strongly that exp(I) approaches n, and in high dimension, where the ball is as wide as the data (then they read too low).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from scipy.special import gammaln
from torch import Generator, Tensor

from prunescope.information.discrete import FEW_A_CELL
from prunescope.information.neighbours import search
from prunescope.information.raw import Raw
from prunescope.information.tiles import Floats, Integers, Metric
from prunescope.registry import estimators
from prunescope.rng import numpy_generator, torch_generator
from prunescope.types import EstimateError

RESOLVED = 4  # the ball of k neighbours spans about (k / n)^(1 / columns) of the data in each column: flagged where that is over 1 / 4
SEEN = 0.95  # share of labelled samples that must have k others in their cell
MAX_DIMENSION = 4096  # columns above which it is refused


@dataclass(frozen=True)
class Terms:
    """One sample's worth of an estimate: `local` (n,) contributions in nats whose mean is the estimate."""

    local: Floats
    flags: tuple[str, ...] = ()
    detail: dict[str, Any] = field(default_factory=dict)


def frenzel_pompe(
    x: Tensor, y: Tensor, z: Tensor, *, k: int = 3, metric: Metric = "max", jitter: float = 0.0, generator: Generator | None = None
) -> Raw:
    """Conditional mutual information I(x; y | z) in nats: psi(k) - <psi(n_xz + 1) + psi(n_yz + 1) - psi(n_z + 1)>.

    Counts lie strictly within the k-th neighbour's distance in (x, y, z). Reads low when z has many columns.
    Source: Frenzel & Pompe 2007, eq. 6.
    """

    def one(a: Floats, b: Floats, c: Floats) -> Terms:
        counts = search([a, b, c], k=k, metric=metric, counted=[(0, 2), (1, 2), (2,)]).counts
        psi = digamma(len(a) + 1)
        return Terms(psi[k] - psi[counts[:, 0] + 1] - psi[counts[:, 1] + 1] + psi[counts[:, 2] + 1], ties(a, b, c))

    return _estimate("frenzel-pompe", one, [x, y, z], k=k, jitter=jitter, generator=generator)


@estimators(
    "ksg", source="Kraskov et al. 2004, eq. 8 and 9", x="continuous", y="continuous", symmetric=True, batched=True, consistent=True,
    invariant=("shift", "scale", "permutation"), quantities=("mi", "cmi"), conditional=frenzel_pompe, interval="extrapolation",
    coordinates=True,
)  # fmt: skip
def ksg(
    x: Tensor, y: Tensor, *, k: int = 3, variant: Literal[1, 2] = 1, metric: Metric = "max", jitter: float = 0.0,
    generator: Generator | None = None,
) -> Raw:  # fmt: skip
    """Mutual information in nats of x (..., n, dx) and y (..., n, dy) by counting neighbours.

    variant 1: psi(k) + psi(n) - <psi(nx + 1) + psi(ny + 1)>, counts strictly within the k-th neighbour's distance (eq. 8);
    variant 2: psi(k) - 1/k + psi(n) - <psi(nx) + psi(ny)>, counts within its rectangle (eq. 9).
    `metric` holds inside x and inside y; their product always takes the larger of both distances. `jitter` adds normal noise of that
    share of each column's deviation, which unties equal values. Without ties it cannot exceed psi(n) - psi(k).
    Flag "high-dimension": fewer than k * 4^columns samples, so that the neighbours lie further away than a quarter of the data's width.
    The function's own standard error takes the samples' terms as independent, but they share neighbours: at n = 2,000 the true deviation
    is 1.1 to 1.35 times as large, and bias is not in it. The interval of the verb has both: `uncertainty.extrapolation`.
    Fails: reads low where exp(I) comes near n and from a few columns on (much of the dependence gone at 10); with rounded values it is
    far too high (variant 1) or too low (variant 2), flagged "ties". Source: Kraskov et al. 2004, eq. 8 and 9.
    See docs/science/estimators/neighbours.md#ksg.
    """

    def one(a: Floats, b: Floats) -> Terms:
        n = len(a)
        found = search([a, b], k=k, metric=metric, counted=[(0,), (1,)], rule="inside" if variant == 1 else "box")
        psi, counts = digamma(n + 1), found.counts
        if variant == 1:
            local = psi[k] + psi[n] - psi[counts + 1].sum(axis=1)
        else:
            local = psi[k] - 1 / k + psi[n] - psi[np.maximum(counts, 1)].sum(axis=1)
        return Terms(local, ties(a, b))

    if variant not in (1, 2):
        raise EstimateError(f"ksg: variant is 1 or 2 (Kraskov's two estimators), {variant!r} came")
    return _estimate("ksg", one, [x, y], k=k, jitter=jitter, generator=generator, ceiling=True)


@estimators(
    "ksg-lnc", source="Gao, Ver Steeg & Galstyan 2015, eq. 15 and algorithm 1", x="continuous", y="continuous", symmetric=True,
    batched=True, consistent=False, invariant=("shift", "permutation"), quantities=("mi",), interval="extrapolation", coordinates=True,
)  # fmt: skip
def ksg_lnc(
    x: Tensor, y: Tensor, *, k: int = 10, alpha: float | None = None, jitter: float = 0.0, generator: Generator | None = None
) -> Raw:
    """Mutual information in nats by Kraskov's second estimator, corrected where the k neighbours lie along a line or sheet.

    The rectangle around the neighbours is compared with the one along their principal axes; where the latter's volume is below
    `alpha` of the former's, the logarithm of the ratio is added. `alpha` defaults to the 0.5 % quantile of that ratio for evenly spread
    neighbours, so that one neighbourhood in 200 is corrected by mistake. Needs k > dx + dy; not for more than a few columns.
    Fails: takes for dependence what is x's own shape, so that independent variables read high where x (or y) lies near a line or
    sheet, and the value grows with n: not consistent. Source: Gao, Ver Steeg & Galstyan 2015, eq. 15 and algorithm 1.
    See docs/science/estimators/neighbours.md#ksg-lnc.
    """
    columns = x.shape[-1] + y.shape[-1]
    if k <= columns:
        raise EstimateError(f"ksg-lnc: k must exceed the {columns} columns of x and y to span their space, {k} came: set k={2 * columns}")
    threshold = math.log(alpha) if alpha is not None else even_ratio(k, columns)

    def one(a: Floats, b: Floats) -> Terms:
        n = len(a)
        found = search([a, b], k=k, metric="max", counted=[(0,), (1,)], rule="box")
        psi = digamma(n + 1)
        plain = psi[k] - 1 / k + psi[n] - psi[np.maximum(found.counts, 1)].sum(axis=1)
        both = np.concatenate([a, b], axis=1)
        ratio = rotated_volume(both[found.indices] - both[:, None])
        corrected = ratio < threshold
        detail = {"alpha": math.exp(threshold), "corrected": float(corrected.mean())}
        return Terms(plain - np.where(corrected, ratio, 0.0), ties(a, b), detail)

    return _estimate("ksg-lnc", one, [x, y], k=k, jitter=jitter, generator=generator)


@estimators(
    "ross", source="Ross 2014, eq. 2", x="continuous", y="discrete", symmetric=False, batched=True, consistent=True,
    invariant=("shift", "scale", "permutation"), quantities=("mi",), interval="extrapolation", coordinates=True,
)  # fmt: skip
def ross(
    x: Tensor, y: Tensor, *, k: int = 3, metric: Metric = "max", jitter: float = 0.0, generator: Generator | None = None
) -> Raw:
    """Mutual information in nats of continuous x (..., n, dx) and labels y (..., n).

    psi(n) + <psi(k)> - <psi(n_y)> - <psi(m + 1)>: m samples of any label lie strictly nearer than the k-th neighbour of the same label.
    Classes with k or fewer samples use all they have; classes of one sample are left out (flagged "dropped").
    Fails: reads low with only a few samples a class, and where many columns say nothing about the label. Source: Ross 2014, eq. 2.
    See docs/science/estimators/neighbours.md#ross.
    """

    def one(a: Floats, labels: Integers) -> Terms:
        classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)[1:]
        kept = sizes[classes] > 1
        flags = ties(a) + (() if kept.all() else ("dropped",)) + (("degenerate",) if len(sizes) == 1 else ())
        a, labels, size = a[kept], labels[kept], sizes[classes][kept]
        if not len(a):
            raise EstimateError(f"ross: every one of the {len(kept)} labels occurs once, so no neighbour shares a label: expected classes")
        found = search([a], k=k, metric=metric, counted=[(0,)], rule="closed", labels=labels)
        psi, n = digamma(len(a) + 1), len(a)
        return Terms(psi[n] + psi[np.minimum(k, size - 1)] - psi[size] - psi[found.counts[:, 0] + 1], flags)

    return _estimate("ross", one, [x, y], k=k, jitter=jitter, generator=generator)


@estimators(
    "gao-mixed", source="Gao et al. 2017, algorithm 1", x="any", y="any", symmetric=True, batched=True, consistent=True,
    invariant=("shift", "permutation"), quantities=("mi",), interval="extrapolation", coordinates=True,
)  # fmt: skip
def gao_mixed(x: Tensor, y: Tensor, *, k: int = 5, metric: Metric = "max", generator: Generator | None = None) -> Raw:
    """Mutual information in nats where columns may be continuous, discrete or atoms mixed with a density.

    <psi(k_i) + ln n - psi(nx + 1) - psi(ny + 1)>; where the k-th neighbour is at distance 0, k_i and both counts take all samples at
    distance 0, and the plug-in value results. Labels are as far from each other as can be. psi stands where the paper has a logarithm
    of the counts, as in the authors' program: the two agree as counts grow, and psi is the less biased for small ones. Flag
    "undersampled": mostly atoms, and fewer than 5 samples for each; or labels of which 5 % lie in cells of k samples or fewer, which
    are then taken for a density.
    Fails: as "ksg" in many columns; reads high where values repeat, but fewer than k times; loses nearly everything where a label has k
    samples or fewer (use "ross"); an atom inside a density is blurred until n is large. Source: Gao et al. 2017, algorithm 1.
    See docs/science/estimators/neighbours.md#gao-mixed.
    """
    labelled = not (x.is_floating_point() or y.is_floating_point())

    def one(a: Floats, b: Floats) -> Terms:
        n = len(a)
        found = search([a, b], k=k, metric=metric, counted=[(0,), (1,), (0, 1)], rule="closed")
        psi, counts = digamma(n + 1), found.counts
        at_zero = found.radius[:, -1] == 0
        inside = np.where(at_zero, counts[:, 2] + 1, k)
        flags: tuple[str, ...] = ()
        if labelled or at_zero.mean() > 0.5:
            cells = len(np.unique(np.concatenate([a, b], axis=1), axis=0))
            flags = ("undersampled",) if FEW_A_CELL * cells > n or (labelled and at_zero.mean() < SEEN) else ()
        return Terms(psi[inside] + math.log(n) - psi[counts[:, :2] + 1].sum(axis=1), flags, {"atoms": float(at_zero.mean())})

    return _estimate("gao-mixed", one, [x, y], k=k, far_labels=True)


@estimators(
    "kl-entropy", source="Kozachenko & Leonenko 1987; Kraskov et al. 2004, eq. 20", x="continuous", batched=True,
    consistent=True, invariant=("shift", "permutation"), quantities=("entropy",), interval="extrapolation",
)  # fmt: skip
def kozachenko_leonenko(
    x: Tensor, *, k: int = 3, metric: Metric = "euclidean", jitter: float = 0.0, generator: Generator | None = None
) -> Raw:
    """Differential entropy in nats of x (..., n, d): psi(n) - psi(k) + ln c_d + d <ln r>, r the distance to the k-th neighbour.

    c_d is the volume of the unit ball of the metric. It grows with the unit of x: ln 2 more per column when x is doubled.
    Fails: reads high from 5 to 10 columns on, and a sum of such entropies does not cancel the errors; refuses repeated values.
    Source: Kozachenko & Leonenko 1987; Kraskov et al. 2004, eq. 20. See docs/science/estimators/neighbours.md#kl-entropy.
    """

    def one(a: Floats) -> Terms:
        n, d = a.shape
        radius = search([a], k=k, metric=metric).radius[:, -1]
        if (equal := int((radius == 0).sum())) > 0:
            raise EstimateError(
                f"kl-entropy: {equal} of {n} samples have {k} exact copies, where no density exists: "
                "set jitter=1e-10, or use a discrete estimator"
            )
        ball = d * math.log(2) if metric == "max" else d / 2 * math.log(math.pi) - float(gammaln(d / 2 + 1))
        psi = digamma(n + 1)
        return Terms(psi[n] - psi[k] + ball + d * np.log(radius), ties(a))

    return _estimate("kl-entropy", one, [x], k=k, jitter=jitter, generator=generator)


def digamma(n: int) -> Floats:
    """psi(0 .. n) (no unit) at whole numbers, by recurrence; the entry for 0 is minus infinity.

    >>> round(float(digamma(2)[2] - digamma(2)[1]), 12)
    1.0
    """
    return np.concatenate([[-np.inf, -np.euler_gamma], np.cumsum(1 / np.arange(1, n)) - np.euler_gamma])[: n + 1]


def ties(*blocks: Floats) -> tuple[str, ...]:
    """The flag "ties" where a block (n, d) has equal rows; an even density has none.

    >>> ties(np.array([[1.0, 2.0], [1.0, 2.0]])), ties(np.array([[1.0, 2.0], [1.0, 3.0]]))
    (('ties',), ())
    """
    for block in blocks:
        d = block.shape[1]
        # equal rows have equal projections; that unequal ones do too has probability about 1e-16 a pair
        line = np.sort(block[:, 0] if d == 1 else block @ numpy_generator(0, "ties", d).standard_normal(d))
        if (line[1:] == line[:-1]).any():
            return ("ties",)
    return ()


def rotated_volume(offsets: Floats) -> Floats:
    """ln of the ratio (n,), no unit, of the neighbours' box volume along their principal axes to the one along the columns."""
    axes = np.linalg.eigh(np.einsum("nki,nkj->nij", offsets, offsets))[1]
    turned = np.abs(offsets @ axes).max(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(turned).sum(axis=1) - np.log(np.abs(offsets).max(axis=1)).sum(axis=1)
    return np.where(np.isfinite(ratio), ratio, 0.0)


@cache
def even_ratio(k: int, columns: int, *, trials: int = 4000, quantile: float = 0.005) -> float:
    """The ln ratio of volumes (no unit) that k evenly spread neighbours undercut with probability `quantile`; seeded simulation."""
    offsets = numpy_generator(0, "even", k, columns).uniform(-1, 1, (trials, k, columns))
    return float(np.quantile(rotated_volume(offsets), quantile))


def _estimate(
    name: str, one: Callable[..., Terms], inputs: list[Tensor], *, k: int, jitter: float = 0.0, generator: Generator | None = None,
    far_labels: bool = False, ceiling: bool = False,
) -> Raw:  # fmt: skip
    """`one` on every sample of the batch; the standard error is that of the mean of its local terms, taken as independent."""
    floating = [i for i in inputs if i.is_floating_point()]
    first = inputs[0]
    n = int(first.shape[-2] if first.is_floating_point() else first.shape[-1])
    _require(name, floating, n, k)
    batch = first.shape[:-2] if first.is_floating_point() else first.shape[:-1]
    flat = [i.reshape(-1, *i.shape[len(batch) :]) for i in inputs]
    draw = generator if generator is not None else torch_generator(0, "jitter")
    results = []
    for sample in zip(*flat, strict=True):
        arrays = [_untied(part, jitter, draw) for part in sample]
        results.append(one(*(_as_columns(arrays) if far_labels else arrays)))
    terms = np.stack([r.local.mean() for r in results])
    errors = np.stack([r.local.std(ddof=1) / math.sqrt(len(r.local)) for r in results])
    flags = tuple(dict.fromkeys(flag for r in results for flag in r.flags))
    if n < k * RESOLVED ** sum(i.shape[-1] for i in floating):
        flags += ("high-dimension",)
    detail: dict[str, Any] = {key: float(np.mean([r.detail[key] for r in results])) for key in results[0].detail}
    if jitter > 0:
        detail["jitter"] = jitter
    shape = batch or ()
    psi = digamma(n)
    top = float(psi[n] - psi[k]) if ceiling else None
    return Raw(torch.from_numpy(terms).reshape(shape), torch.from_numpy(errors).reshape(shape), top, flags, detail)


def _require(name: str, floating: list[Tensor], n: int, k: int) -> None:
    if k < 1:
        raise EstimateError(f"{name}: k is a number of neighbours of at least 1, {k} came")
    if n < k + 2:
        raise EstimateError(f"{name}: {k} neighbours need at least {k + 2} samples, {n} came: lower k or bring more samples")
    if (columns := sum(i.shape[-1] for i in floating)) > MAX_DIMENSION:
        raise EstimateError(
            f"{name}: {columns} columns, but neighbours say nothing beyond {MAX_DIMENSION}: "
            "reduce them first (PCA) or use a Gaussian estimator"
        )
    if not all(bool(torch.isfinite(i).all()) for i in floating):
        raise EstimateError(f"{name}: samples contain NaN or infinite values: expected finite numbers, remove those rows")


def _untied(part: Tensor, jitter: float, generator: Generator) -> Any:
    """A float64 (or int64 label) array of one sample, with noise where it is asked for."""
    if not part.is_floating_point():
        return part.cpu().numpy()
    values = part.detach().cpu().double()
    if jitter > 0:
        spread = values.std(dim=0, keepdim=True)
        values = values + jitter * spread * torch.randn(values.shape, dtype=torch.float64, generator=generator)
    return values.numpy()


def _as_columns(arrays: list[Any]) -> list[Floats]:
    """Labels as one column whose values lie further apart than any two samples of the other variables."""
    spans = [float(np.ptp(a, axis=0).max()) for a in arrays if a.dtype.kind == "f"]
    far = 4 * max(spans, default=1.0) or 1.0
    return [a if a.dtype.kind == "f" else far * np.unique(a, return_inverse=True)[1].astype(np.float64)[:, None] for a in arrays]
