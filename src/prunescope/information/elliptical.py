"""Mutual information (nats) through an elliptical copula: the normal one, or Student's where tails depend on each other.

Only the ranks of each column are used, so monotone maps of columns change nothing. Wrong, in either direction, where the dependence is
not elliptical: `auto` tests for that before it believes the value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize, special, stats
from torch import Tensor

from prunescope.types import EstimateError

Floats = NDArray[np.float64]
ROWS = 10_000  # rows that fix the degrees of freedom
STEPS = 8  # re-weightings of the correlation for given degrees of freedom


def half_ranks(values: Floats) -> NDArray[np.int64]:
    """Twice the rank (n, d) of each value in its column, equal values sharing the mean rank; from 2 to 2n.

    >>> half_ranks(np.array([[3.0], [1.0], [3.0]])).ravel().tolist()
    [5, 2, 5]
    """
    return np.asarray(np.rint(2 * stats.rankdata(values, axis=0)), dtype=np.int64)


def scores(ranks: NDArray[np.int64], dof: float = math.inf) -> Floats:
    """Quantiles (n, d), no unit, of the standard normal or Student-t distribution at the ranks / (n + 1)."""
    n = len(ranks)
    share = np.arange(2 * n + 1) / (2 * (n + 1))
    table = special.ndtri(share) if math.isinf(dof) else special.stdtrit(dof, share)
    return np.asarray(table[ranks])


def student_excess(dx: int, dy: int, dof: float) -> float:
    """Mutual information in nats between the dx and dy columns of a standard Student-t vector (0 for infinite dof).

    h(dx) + h(dy) - h(dx + dy) with the entropy h of Arellano-Valle et al. 2013, eq. 7.
    """
    if math.isinf(dof):
        return 0.0

    def entropy(d: int) -> float:
        half = (dof + d) / 2
        return float(-special.gammaln(half) + half * (special.digamma(half) - special.digamma(dof / 2)))

    return entropy(dx) + entropy(dy) - entropy(dx + dy) + float(special.gammaln(dof / 2))


def determinant_bias(n: int, d: int) -> float:
    """Expected ln|S| - ln|Sigma| in nats for the sample covariance of n rows in d columns (Misra et al. 2005, eq. 6).

    >>> round(determinant_bias(1001, 1), 6)
    -0.001
    """
    freedom = n - 1
    return float(special.digamma((freedom - np.arange(d)) / 2).sum() + d * math.log(2 / freedom))


@dataclass(frozen=True)
class Elliptical:
    """A fitted copula: correlation (d, d) of x's and y's columns together and degrees of freedom (infinite: normal)."""

    correlation: Floats
    dof: float
    dx: int
    n: int

    @property
    def mi(self) -> float:
        """Mutual information in nats of the fitted copula, less the bias of the determinants."""
        k, d = self.dx, len(self.correlation)
        blocks = (self.correlation[:k, :k], self.correlation[k:, k:], self.correlation)
        first, second, joint = (np.linalg.slogdet(block)[1] - determinant_bias(self.n, len(block)) for block in blocks)
        return float(first + second - joint) / 2 + student_excess(k, d - k, self.dof)

    def scores(self, x: Floats, y: Floats) -> tuple[Tensor, Tensor]:
        """Both samples as the scores that `Ratio` takes, float32."""
        both = torch.from_numpy(scores(half_ranks(np.concatenate([x, y], axis=1)), self.dof)).float()
        return both[:, : self.dx], both[:, self.dx :]

    def standard_error(self, x: Floats, y: Floats) -> float:
        """Standard error in nats of the mean of ln p(x, y) / p(x) p(y) over the samples."""
        ratio, (a, b) = Ratio(self), self.scores(x, y)
        return float(ratio.matched(a, b).double().std() / math.sqrt(len(x)))


class Ratio:
    """The log density ratio of an elliptical copula (nats) as a function of scores, all pairs of rows at once."""

    def __init__(self, fit: Elliptical) -> None:
        k, correlation = fit.dx, fit.correlation
        joint = torch.from_numpy(np.linalg.inv(correlation)).float()
        self.a, self.b, self.cross = joint[:k, :k], joint[k:, k:], joint[:k, k:]
        self.x, self.y = (torch.from_numpy(np.linalg.inv(c)).float() for c in (correlation[:k, :k], correlation[k:, k:]))
        logs = [np.linalg.slogdet(c)[1] for c in (correlation[:k, :k], correlation[k:, k:], correlation)]
        self.dof, self.d = fit.dof, (k, len(correlation) - k)
        self.level = float(logs[0] + logs[1] - logs[2]) / 2
        if not math.isinf(fit.dof):
            g = [float(special.gammaln((fit.dof + d) / 2)) for d in (*self.d, sum(self.d))]
            self.level += g[2] + float(special.gammaln(fit.dof / 2)) - g[0] - g[1]

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        joint = _form(x, self.a)[:, None] + _form(y, self.b) + 2 * (x @ self.cross) @ y.T
        return self._log(joint, _form(x, self.x)[:, None], _form(y, self.y))

    def matched(self, x: Tensor, y: Tensor) -> Tensor:
        """The same for the pairs (x_i, y_i) only: (rows,)."""
        joint = _form(x, self.a) + _form(y, self.b) + 2 * ((x @ self.cross) * y).sum(1)
        return self._log(joint, _form(x, self.x), _form(y, self.y))

    def _log(self, joint: Tensor, first: Tensor, second: Tensor) -> Tensor:
        if math.isinf(self.dof):
            return self.level + (first + second - joint) / 2
        v, (dx, dy) = self.dof, self.d
        tails = [(v + d) / 2 * torch.log1p(q.clamp(min=0) / v) for d, q in ((dx, first), (dy, second), (dx + dy, joint))]
        return self.level + tails[0] + tails[1] - tails[2]


def _form(values: Tensor, matrix: Tensor) -> Tensor:
    """Squared lengths (rows,), no unit, of rows in the metric `matrix`."""
    return ((values @ matrix) * values).sum(1)


def normal_fit(x: Floats, y: Floats) -> Elliptical:
    """The normal copula, its correlation (no unit) that of the normal scores. Errors: n <= dx + dy + 1, singular correlation."""
    both = np.concatenate([x, y], axis=1)
    n, d = both.shape
    if n <= d + 1:
        raise EstimateError(f"elliptical copula: {d} columns need more than {d + 1} samples, {n} came: reduce the columns first (PCA)")
    normal = np.atleast_2d(np.corrcoef(scores(half_ranks(both)).T))
    if not np.linalg.eigvalsh(normal)[0] > 1e-9:
        raise EstimateError("elliptical copula: columns of x and y determine each other (singular correlation): drop copies of columns")
    return Elliptical(normal, math.inf, x.shape[1], n)


def fit_elliptical(x: Floats, y: Floats) -> Elliptical:
    """The normal or Student-t copula of greatest likelihood: Student's where it gains more than ln(n) / 2 nats (BIC)."""
    normal = normal_fit(x, y)
    both = np.concatenate([x, y], axis=1)
    dof = _degrees_of_freedom(both[:: math.ceil(len(both) / ROWS)])
    if math.isinf(dof):
        return normal
    return replace(normal, correlation=_correlation(scores(half_ranks(both), dof), dof, normal.correlation), dof=dof)


def _degrees_of_freedom(both: Floats) -> float:
    ranks = half_ranks(both)
    normal = np.atleast_2d(np.corrcoef(scores(ranks).T))  # of these rows: another's would make their tails look heavy
    plain = _likelihood(ranks, math.inf, normal)
    if _likelihood(ranks, 50.0, normal) <= plain:
        return math.inf
    found = optimize.minimize_scalar(lambda t: -_likelihood(ranks, math.exp(t), normal), bounds=(math.log(0.5), math.log(100)),
                                     method="bounded", options={"xatol": 0.01})  # fmt: skip
    return math.exp(found.x) if -found.fun - plain > math.log(len(ranks)) / 2 else math.inf


def _correlation(values: Floats, dof: float, start: Floats) -> Floats:
    """Correlation (d, d) of greatest t likelihood: far rows weigh (dof + d) / (dof + distance)."""
    found, d = start, values.shape[1]
    for _ in range(STEPS):
        weight = (dof + d) / (dof + _distance(values, found))
        moments = (values * weight[:, None]).T @ values
        spread = np.sqrt(np.diag(moments))
        found = moments / np.outer(spread, spread)
    return np.asarray(found)


def _distance(values: Floats, correlation: Floats) -> Floats:
    return np.asarray((np.linalg.solve(np.linalg.cholesky(correlation), values.T) ** 2).sum(axis=0))


def _likelihood(ranks: NDArray[np.int64], dof: float, start: Floats) -> float:
    """Log likelihood, nats, of the copula (columns' own densities divided out)."""
    values, (n, d) = scores(ranks, dof), ranks.shape
    if math.isinf(dof):
        return float(-n / 2 * np.linalg.slogdet(start)[1] - (_distance(values, start).sum() - (values**2).sum()) / 2)
    correlation = _correlation(values, dof, start)
    level = special.gammaln((dof + d) / 2) + (d - 1) * special.gammaln(dof / 2) - d * special.gammaln((dof + 1) / 2)
    joint = (dof + d) / 2 * np.log1p(_distance(values, correlation) / dof).sum()
    own = (dof + 1) / 2 * np.log1p(values**2 / dof).sum()
    return float(n * level - n / 2 * np.linalg.slogdet(correlation)[1] - joint + own)
