"""Entropy and mutual information (nats) of discrete variables from counts, plain and corrected for bias."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from scipy.special import gammaln, polygamma, psi
from torch import Tensor

from prunescope.information.partition import Floats, Groups, Ints, group, joint
from prunescope.information.raw import Raw
from prunescope.registry import estimators
from prunescope.types import EstimateError

FEW_A_CELL = 5  # samples a seen cell below which counts are flagged
Correction = Literal["none", "miller-madow", "shrinkage", "chao-shen", "nsb"]


def plugin_entropy(counts: Ints) -> float:
    """Entropy (nats) of the relative frequencies, -sum(p log p): biased low by about (cells - 1) / 2n.

    >>> round(plugin_entropy(np.array([2, 2])) / math.log(2), 12)
    1.0
    """
    n = counts.sum()
    return float(max(0.0, math.log(n) - (counts * np.log(counts)).sum() / n))


def miller_madow_entropy(counts: Ints) -> float:
    """Entropy (nats), plug-in plus (cells - 1) / 2n. Miller 1955; Paninski 2003, eq. 4.

    >>> round(miller_madow_entropy(np.array([2, 2])) - math.log(2), 12)
    0.125
    """
    return plugin_entropy(counts) + (len(counts) - 1) / (2 * float(counts.sum()))


def chao_shen_entropy(counts: Ints) -> float:
    """Entropy (nats) with unseen cells estimated from the singletons. Chao & Shen 2003, eq. 4 to 6.

    Coverage C = 1 - f1 / n scales the frequencies, Horvitz-Thompson weights 1 - (1 - p)^n undo the chance of being unseen.
    """
    n = float(counts.sum())
    singles = min(int((counts == 1).sum()), n - 1)  # all singletons would leave no coverage at all
    p = (1 - singles / n) * counts / n
    return float(-(p * np.log(p) / -np.expm1(n * np.log1p(-np.minimum(p, 1 - 1e-15)))).sum())


def shrinkage_intensity(counts: Ints, support: int) -> float:
    """Weight in [0, 1] (unitless) of the uniform target over `support` cells. Hausser & Strimmer 2009, shrinkage intensity."""
    n = float(counts.sum())
    squares = float(((counts / n) ** 2).sum())
    spread = squares - 1 / support  # sum over all cells of (1/support - p)^2
    if n <= 1 or spread <= 0:
        return 1.0
    return min(1.0, (1 - squares) / ((n - 1) * spread))


def shrinkage_entropy(counts: Ints, support: int, intensity: float | None = None) -> float:
    """Entropy (nats) of frequencies shrunk towards uniform over `support` cells. Hausser & Strimmer 2009, James-Stein."""
    weight = shrinkage_intensity(counts, support) if intensity is None else intensity
    p = weight / support + (1 - weight) * counts / counts.sum()
    empty = weight / support
    rest = (support - len(counts)) * empty * math.log(empty) if empty > 0 else 0.0
    return float(-(p * np.log(p)).sum() - rest)


def nsb_entropy(counts: Ints, support: int) -> float:
    """Entropy (nats), posterior mean under a mixture of Dirichlet priors flat in expected entropy over `support` cells.

    Nemenman, Shafee & Bialek 2002, eq. 9 to 15; the mean under one Dirichlet is Wolpert & Wolf 1995, eq. 2.15. The integral
    over the concentration is a trapezoid over 400 logarithmic steps. Fails where the support given is far from the true one.
    """
    if support < 2:
        return 0.0
    beta = np.geomspace(1e-8, 1e6, 400) / support * min(support, 100)
    values, times = np.unique(counts, return_counts=True)
    n, total = float(counts.sum()), support * beta
    cells = values[:, None] + beta
    evidence = gammaln(total) - gammaln(n + total) + (times[:, None] * (gammaln(cells) - gammaln(beta))).sum(0)
    prior = support * polygamma(1, total + 1) - polygamma(1, beta + 1)  # derivative of the expected entropy
    empty = (support - len(counts)) * beta * psi(beta + 1)
    mean = psi(n + total + 1) - ((times[:, None] * cells * psi(cells + 1)).sum(0) + empty) / (n + total)
    weight = np.exp(evidence - evidence.max()) * prior * beta
    return float((weight * mean).sum() / weight.sum())


ENTROPIES: dict[str, Callable[[Ints, int], float]] = {
    "none": lambda counts, support: plugin_entropy(counts),
    "miller-madow": lambda counts, support: miller_madow_entropy(counts),
    "chao-shen": lambda counts, support: chao_shen_entropy(counts),
    "shrinkage": shrinkage_entropy,
    "nsb": nsb_entropy,
}


def groups_entropy(groups: Groups, correction: Correction = "none", support: Ints | None = None) -> Floats:
    """Entropy (nats) of each batch's groups (B,); `support` (B,) is the number of possible groups, else those seen."""
    if correction not in ENTROPIES:
        raise EstimateError(f"correction={correction!r}: expected one of {', '.join(ENTROPIES)}")
    if correction == "none":
        return groups.entropy()
    sizes = groups.sizes
    if correction == "miller-madow":
        return groups.entropy() + (sizes - 1) / (2 * groups.n)
    parts = np.split(groups.counts, np.cumsum(sizes)[:-1])
    cells = sizes if support is None else support
    return np.array([ENTROPIES[correction](c, int(s)) for c, s in zip(parts, cells, strict=True)])


def groups_mi(x: Groups, y: Groups, correction: Correction = "none", shape: tuple[int, ...] = ()) -> Raw:
    """Mutual information (nats) of two groupings of the same samples, of shape `shape`; one of them may have one batch for all."""
    x, y = _same_batches(x, y)
    both = joint(x, y)
    cells = x.sizes * y.sizes
    if correction == "shrinkage":
        value = _shrunk_mi(x, y, both, cells)
    else:
        marginal = groups_entropy(x, correction) + groups_entropy(y, correction)
        value = marginal - groups_entropy(both, correction, cells)
    stderr = _plugin_stderr(x, y, both)
    detail = {} if correction == "none" else {"correction": correction}
    return Raw(_shaped(value, shape), _shaped(stderr, shape), None, undersampled(both), detail)


def undersampled(groups: Groups) -> tuple[str, ...]:
    """The flag "undersampled" where any batch has fewer than 5 samples a cell that was seen: series in 1 / n then say little."""
    return ("undersampled",) if bool((FEW_A_CELL * groups.sizes > groups.n).any()) else ()


def groups_conditional_mi(x: Groups, y: Groups, z: Groups, correction: Correction, shape: tuple[int, ...]) -> Raw:
    """Conditional mutual information (nats), H(X, Z) + H(Y, Z) - H(X, Y, Z) - H(Z). Cover & Thomas 2006, eq. 2.60."""
    x, z = _same_batches(x, z)
    y, z = _same_batches(y, z)
    x, z = _same_batches(x, z)
    xz, yz = joint(x, z), joint(y, z)
    cells = x.sizes * y.sizes * z.sizes
    value = groups_entropy(xz, correction, x.sizes * z.sizes) + groups_entropy(yz, correction, y.sizes * z.sizes)
    value = value - groups_entropy(joint(xz, y), correction, cells) - groups_entropy(z, correction)
    return Raw(_shaped(value, shape))


def _same_batches(x: Groups, y: Groups) -> tuple[Groups, Groups]:
    if x.n != y.n:
        raise EstimateError(f"x and y: expected as many samples in each, got {x.n} and {y.n}; pair them row by row")
    most = max(len(x.ids), len(y.ids))
    return _repeat(x, most), _repeat(y, most)


def _repeat(groups: Groups, batches: int) -> Groups:
    if len(groups.ids) == batches:
        return groups
    k = len(groups.counts)
    return Groups(np.repeat(groups.ids, batches, 0), np.tile(groups.counts, batches), np.repeat(np.arange(batches), k))


def _shaped(value: Floats, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.asarray(value, dtype=np.float64)).reshape(shape or ())


def _shrunk_mi(x: Groups, y: Groups, both: Groups, cells: Ints) -> Floats:
    """One intensity, that of the joint table, for all three entropies: its marginals shrink with it and the value stays >= 0."""
    parts = [np.split(g.counts, np.cumsum(g.sizes)[:-1]) for g in (x, y, both)]
    values = []
    for cx, cy, cxy, total in zip(*parts, cells, strict=True):
        weight = shrinkage_intensity(cxy, int(total))
        marginals = shrinkage_entropy(cx, len(cx), weight) + shrinkage_entropy(cy, len(cy), weight)
        values.append(marginals - shrinkage_entropy(cxy, int(total), weight))
    return np.array(values)


def _plugin_stderr(x: Groups, y: Groups, both: Groups) -> Floats:
    """Standard error (nats): sd of the samples' pointwise information over sqrt n, and the chi-squared spread left at independence."""

    def logs(groups: Groups) -> Floats:
        starts = np.concatenate([[0], np.cumsum(groups.sizes)[:-1]])
        each: Floats = np.log(groups.counts)[groups.ids + starts[:, None]]
        return each

    pointwise = logs(both) - logs(x) - logs(y)
    freedom = np.maximum(both.sizes - x.sizes - y.sizes + 1, 0)
    stderr: Floats = np.sqrt(pointwise.var(-1) / x.n + freedom / (2 * x.n**2))
    return stderr


def label_groups(x: Tensor) -> Groups:
    """Groups of labels (..., n) int64, one batch for each leading index."""
    return group(x.reshape(-1, x.shape[-1]).cpu().numpy())


def label_entropy(y: Tensor) -> float:
    """Entropy (nats) of labels (n,), plug-in."""
    return float(label_groups(y).entropy()[0])


def _corrected(correction: Correction) -> tuple[Callable[..., Raw], Callable[..., Raw]]:
    def entropy(x: Tensor) -> Raw:
        groups = label_groups(x)
        ceiling = math.log(groups.n)
        return Raw(_shaped(groups_entropy(groups, correction), x.shape[:-1]), ceiling=ceiling)

    def conditional(x: Tensor, y: Tensor, z: Tensor) -> Raw:
        gx, gy, gz = (label_groups(v) for v in (x, y, z))
        raw = groups_conditional_mi(gx, gy, gz, correction, x.shape[:-1])
        return Raw(raw.value, ceiling=_ceiling(gx, gy))

    return entropy, conditional


def _ceiling(x: Groups, y: Groups) -> Tensor:
    shape = (max(len(x.ids), len(y.ids)),)
    least = np.minimum(np.broadcast_to(x.entropy(), shape), np.broadcast_to(y.entropy(), shape))
    return torch.from_numpy(least)


def _mi(x: Tensor, y: Tensor, correction: Correction) -> Raw:
    gx, gy = label_groups(x), label_groups(y)
    shape = x.shape[:-1] if x.ndim >= y.ndim else y.shape[:-1]
    raw = groups_mi(gx, gy, correction, shape)
    return Raw(raw.value, raw.stderr, _ceiling(gx, gy).reshape(shape), raw.flags, raw.detail)


def _discrete(name: str, correction: Correction, source: str, *, consistent: bool = True) -> Callable[..., Callable[..., Raw]]:
    entropy, conditional = _corrected(correction)
    return estimators(
        name, source=source, x="discrete", y="discrete", symmetric=True, invariant=("relabel", "permutation"), batched=True,
        consistent=consistent, quantities=("mi", "entropy", "cmi"), entropy=entropy, conditional=conditional, interval="extrapolation",
    )  # fmt: skip


@_discrete("plugin", "none", "Paninski 2003, eq. 3; standard error Moddemeijer 1989, eq. 13")
def plugin(x: Tensor, y: Tensor) -> Raw:
    """Mutual information (nats) of the relative frequencies of labels x and y, both (..., n) int64: H(x) + H(y) - H(x, y).

    Exact for the empirical distribution. Fails with few samples a cell: biased high by about (cells_xy - cells_x - cells_y + 1) / 2n.
    Source: Paninski 2003, eq. 3; standard error Moddemeijer 1989, eq. 13. See docs/science/estimators/discrete.md#plugin.

    >>> round(float(plugin(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 1])).value) / math.log(2), 12)
    1.0
    """
    return _mi(x, y, "none")


@_discrete("miller-madow", "miller-madow", "Miller 1955; Paninski 2003, eq. 4")
def miller_madow(x: Tensor, y: Tensor) -> Raw:
    """Mutual information (nats) of labels (..., n) with the first-order bias (cells - 1) / 2n of each entropy taken off.

    Fails where cells are seen once or never: the series behind the correction needs several samples a cell.
    Source: Miller 1955; Paninski 2003, eq. 4. See docs/science/estimators/discrete.md#miller-madow.
    """
    return _mi(x, y, "miller-madow")


@_discrete("shrinkage", "shrinkage", "Hausser & Strimmer 2009, James-Stein shrinkage of the frequencies")
def shrinkage(x: Tensor, y: Tensor) -> Raw:
    """Mutual information (nats) of labels (..., n) from a joint table shrunk towards the uniform one, James-Stein style.

    p = w / cells + (1 - w) count / n, the weight w from the data. Never negative. Fails for strong dependence and few samples: the
    uniform target pulls the value towards 0. Source: Hausser & Strimmer 2009, James-Stein shrinkage of the frequencies.
    See docs/science/estimators/discrete.md#shrinkage.
    """
    return _mi(x, y, "shrinkage")


@_discrete("chao-shen", "chao-shen", "Chao & Shen 2003, eq. 4 to 6")
def chao_shen(x: Tensor, y: Tensor) -> Raw:
    """Mutual information (nats) of labels (..., n) with coverage-adjusted entropies, which allow for unseen cells.

    H = -sum C p ln(C p) / (1 - (1 - C p)^n), C the share of samples in cells seen more than once, p = count / n. Fails when almost all
    cells are singletons: the coverage is then a guess, and the difference of entropies varies much, below 0 too.
    Source: Chao & Shen 2003, eq. 4 to 6. See docs/science/estimators/discrete.md#chao-shen.
    """
    return _mi(x, y, "chao-shen")


@_discrete("nsb", "nsb", "Nemenman, Shafee & Bialek 2002, eq. 9 to 15")
def nsb(x: Tensor, y: Tensor) -> Raw:
    """Mutual information (nats) of labels (..., n) from Bayesian entropies whose prior is flat in the expected entropy.

    H is the posterior mean over Dirichlet priors of all concentrations. The support is the seen values of each variable, and all their
    pairs. Fails for long-tailed tables, which the prior does not know, and reads low where few of the pairs ever occur.
    Source: Nemenman, Shafee & Bialek 2002, eq. 9 to 15. See docs/science/estimators/discrete.md#nsb.
    """
    return _mi(x, y, "nsb")
