"""Mutual information (nats) that second moments carry: Gaussian, Gaussian copula and canonical correlations."""

from __future__ import annotations

import math

import torch
from scipy.stats import chi2
from torch import Tensor

from prunescope.information.misfit import not_normal
from prunescope.information.ranks import normal_scores, score_rows
from prunescope.information.raw import Raw
from prunescope.registry import estimators
from prunescope.types import EstimateError

SMALLEST = 1e-11  # relative: directions of a correlation matrix below it are rounding, not data
PERFECT = 2.0**-50  # 1 - rho^2 never falls below it: rho = 1 gives about 17 nats a pair


def _centred(x: Tensor) -> Tensor:
    """Columns in float64 with mean 0 and norm 1; constant ones are 0."""
    z = x.double() - x.double().mean(-2, keepdim=True)
    lengths: Tensor = torch.linalg.vector_norm(z, dim=-2, keepdim=True)
    return z / lengths.clamp_min(torch.finfo(torch.float64).tiny)


def _whitening(r: Tensor) -> tuple[Tensor, Tensor]:
    """Whitening matrix of a correlation matrix (..., d, d), directions without variance left out, and their number's rest."""
    values, axes = torch.linalg.eigh(r)
    kept = values > SMALLEST * values[..., -1:]
    roots = torch.where(kept, values, 1.0).rsqrt() * kept
    return axes * roots[..., None, :], kept.sum(-1)


def canonical_correlations(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Canonical correlations (unitless) of x (..., n, dx) and y (..., n, dy), largest first, and both ranks. Hotelling 1936."""
    a, b = _centred(x), _centred(y)
    return _canonical(a.mT @ a, b.mT @ b, a.mT @ b)


def _canonical(rx: Tensor, ry: Tensor, cross: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    (wa, ra), (wb, rb) = _whitening(rx), _whitening(ry)
    rho = torch.linalg.svdvals(wa.mT @ cross @ wb).clamp_max(1.0)
    return rho, ra, rb


def _of_scores(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `canonical_correlations`, of the normal scores: their mean is 0, so that one product of the scores with themselves holds all."""
    z, dx = score_rows([x, y]), x.shape[-1]
    products = torch.from_numpy(z @ z.swapaxes(-1, -2))  # numpy forms only half of an array's product with itself
    lengths = products.diagonal(dim1=-2, dim2=-1).clamp_min(torch.finfo(torch.float64).tiny).sqrt()
    r = products / (lengths[..., :, None] * lengths[..., None, :])
    return _canonical(r[..., :dx, :dx], r[..., dx:, dx:], r[..., :dx, dx:])


def _pairs_information(rho: Tensor) -> Tensor:
    return -0.5 * (1 - rho.square()).clamp_min(PERFECT).log()


def _psi_sum(n: int, d: Tensor) -> Tensor:
    """sum over i = 1..d of digamma((n - i) / 2), the part of E log det of a sample covariance that depends on n."""
    steps = torch.arange(1, int(d.max()) + 1, dtype=torch.float64)
    terms = torch.special.digamma((n - steps) / 2)
    return torch.cat([torch.zeros(1, dtype=torch.float64), terms.cumsum(0)])[d.cpu()]


def _bias(n: int, dx: Tensor, dy: Tensor) -> Tensor:
    return 0.5 * (_psi_sum(n, dx) + _psi_sum(n, dy) - _psi_sum(n, dx + dy))


def _need(n: int, d: int, what: str = "samples") -> None:
    if n < d + 2:
        raise EstimateError(f"covariance of {d} columns: expected at least {d + 2} {what}, got {n}; reduce the columns first (pca)")


def _gaussian(x: Tensor, y: Tensor, correct: bool, *, scores: bool = False) -> Raw:
    """From the canonical correlations of the columns, or of their normal scores."""
    n = x.shape[-2]
    _need(n, x.shape[-1] + y.shape[-1])
    rho, ranks_x, ranks_y = (_of_scores if scores else canonical_correlations)(x, y)
    value = _pairs_information(rho).sum(-1).cpu()
    if correct:
        value = value - _bias(n, ranks_x, ranks_y)
    spread = rho.square().sum(-1).cpu() / n + (ranks_x * ranks_y).cpu() / (2 * n**2)
    singular = bool((ranks_x < x.shape[-1]).any() or (ranks_y < y.shape[-1]).any())
    ceiling = -0.5 * math.log(PERFECT) * min(x.shape[-1], y.shape[-1])
    return Raw(value, spread.sqrt(), ceiling, ("degenerate",) if singular else ())


def _log_det(x: Tensor, correct: bool) -> float:
    """log det of the covariance of x (n, d); `correct` makes its expectation that of the true one."""
    n, d = x.shape
    _need(n, d, "samples in each class")
    z = x.double() - x.double().mean(0)
    sign, value = torch.linalg.slogdet(z.mT @ z / (n - 1))
    if float(sign) <= 0:
        raise EstimateError("covariance: expected columns that are not sums of each other, got a singular one; reduce first (pca)")
    bias = float(_psi_sum(n, torch.tensor(d))) - d * math.log((n - 1) / 2) if correct else 0.0
    return float(value) - bias


def _with_labels(x: Tensor, labels: Tensor, correct: bool) -> float:
    """0.5 log det of all minus its mean over the classes: Gaussian classes, and the Gaussian bound for their mixture."""
    _, inverse, counts = labels.unique(return_inverse=True, return_counts=True)
    within = sum(int(c) / len(labels) * _log_det(x[inverse == i], correct) for i, c in enumerate(counts))
    return 0.5 * (_log_det(x, correct) - within)


def _labelled(x: Tensor, y: Tensor, correct: bool) -> Raw:
    shape = x.shape[:-2]
    labels = y.expand(*shape, y.shape[-1]).reshape(-1, y.shape[-1])
    values = [_with_labels(a, b, correct) for a, b in zip(x.reshape(-1, *x.shape[-2:]), labels, strict=True)]
    return Raw(torch.tensor(values, dtype=torch.float64).reshape(shape))


def _conditional(x: Tensor, y: Tensor, z: Tensor, *, correct: bool = True) -> Raw:
    """Conditional mutual information (nats) of Gaussian variables: I(X; (Y, Z)) - I(X; Z). Cover & Thomas 2006, eq. 2.60."""
    whole, part = _gaussian(x, torch.cat([y, z], -1), correct), _gaussian(x, z, correct)
    return Raw(whole.value - part.value, None, whole.ceiling, whole.flags)


def _entropy(x: Tensor, *, correct: bool = True) -> Raw:
    """Differential entropy (nats) of a Gaussian with the covariance of x (..., n, d): 0.5 log det + d/2 log 2 pi e."""
    constant = x.shape[-1] / 2 * math.log(2 * math.pi * math.e)
    values = [0.5 * _log_det(one, correct) + constant for one in x.reshape(-1, *x.shape[-2:])]
    return Raw(torch.tensor(values, dtype=torch.float64).reshape(x.shape[:-2]), ceiling=math.inf)


def copula_fits(x: Tensor, y: Tensor) -> tuple[str, ...]:
    """The flag "not-gaussian" where the normal copula surely does not fit x (n, dx) and y (n, dy); labels are not tested."""
    return ("not-gaussian",) if y.is_floating_point() and not_normal(x, y) else ()


def moments_fit(x: Tensor, y: Tensor) -> tuple[str, ...]:
    """The same, and where the columns' shapes alone move the value (nats) by more than twice its standard error: ranks tell."""
    if not y.is_floating_point():
        return ()
    plain, ranked = _gaussian(x, y, True), _gaussian(normal_scores(x), normal_scores(y), True)
    error = float(plain.stderr) if plain.stderr is not None else math.inf
    return ("not-gaussian",) if abs(float(plain.value - ranked.value)) > 2 * error else copula_fits(x, y)


@estimators(
    "gaussian",
    source="Cover & Thomas 2006, eq. 8.56 (log det); bias Misra, Singh & Demchuk 2005, eq. 1.3",
    x="continuous",
    y="any",
    symmetric=True,
    invariant=("shift", "scale", "permutation", "linear"),
    batched=True,
    consistent=False,
    quantities=("mi", "entropy", "cmi"),
    entropy=_entropy,
    conditional=_conditional,
    check=moments_fit,
)
def gaussian(x: Tensor, y: Tensor, *, correct: bool = True) -> Raw:
    """Mutual information (nats) of jointly Gaussian variables with these covariances, -0.5 sum log(1 - rho^2) over canonical pairs.

    x (..., n, dx), y (..., n, dy) floating or labels (..., n), then 0.5 log det of all minus the classes' mean. Exact for
    Gaussian data, with the finite-sample bias taken off. Standard error from the variance of the information density, sum rho^2 / n.
    Fails: sees only linear dependence (y = x^2 gives 0), and is drawn by outliers; no bound where the variables are not Gaussian, with
    labels it can exceed H(y). Source: Cover & Thomas 2006, eq. 8.56 (log det); bias Misra, Singh & Demchuk 2005, eq. 1.3.
    See docs/science/estimators/gaussian.md#gaussian. Errors: n < dx + dy + 2.

    >>> t = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]); u = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
    >>> abs(float(gaussian(t, u, correct=False).value)) < 1e-12
    True
    """
    return _gaussian(x, y, correct) if y.is_floating_point() else _labelled(x, y, correct)


def _copula_conditional(x: Tensor, y: Tensor, z: Tensor, *, correct: bool = True) -> Raw:
    """Conditional mutual information (nats) of the Gaussian copula. Ince et al. 2017, eq. 17."""
    return _conditional(normal_scores(x), normal_scores(y), normal_scores(z), correct=correct)


@estimators(
    "gaussian-copula",
    source="Ince et al. 2017, eq. 13 to 16",
    x="continuous",
    y="any",
    symmetric=True,
    invariant=("shift", "scale", "permutation", "monotone"),
    batched=True,
    consistent=False,
    quantities=("mi", "cmi"),
    conditional=_copula_conditional,
    check=copula_fits,
)
def gaussian_copula(x: Tensor, y: Tensor, *, correct: bool = True) -> Raw:
    """Mutual information (nats) of a Gaussian copula: every column becomes normal scores of its ranks, then as "gaussian".

    x (..., n, dx), y (..., n, dy) floating or labels (..., n). For one column each a lower bound at large n, whatever the marginals; for
    more columns no bound. Robust to outliers. Fails: dependence that is not monotone is invisible (circle, XOR, y = x^2), that of tails
    too; reads high where x's own columns depend on each other in another way (a ring). Source: Ince et al. 2017, eq. 13 to 16.
    See docs/science/estimators/gaussian.md#gaussian-copula. Errors: n < dx + dy + 2.
    """
    if not y.is_floating_point():
        return _labelled(normal_scores(x), y, correct)
    return _gaussian(x, y, correct, scores=True)


def _significant(rho: Tensor, n: int, dx: int, dy: int, level: float) -> Tensor:
    """Mask of the leading canonical pairs that Bartlett's sequential test keeps at `level`."""
    k = torch.arange(rho.shape[-1], dtype=torch.float64)
    rest = (1 - rho.square()).clamp_min(PERFECT).log().flip(-1).cumsum(-1).flip(-1)
    statistic = -(n - 1 - (dx + dy + 1) / 2) * rest
    limits = torch.from_numpy(chi2.ppf(1 - level, ((dx - k) * (dy - k)).numpy()))
    return (statistic.cpu() > limits).cumprod(-1).bool()


@estimators(
    "cca",
    source="Hotelling 1936; sequential test Bartlett 1947, eq. 9; information Kay 1992, eq. 4",
    x="continuous",
    y="continuous",
    symmetric=True,
    invariant=("shift", "scale", "permutation", "linear"),
    batched=True,
    consistent=False,
    quantities=("mi",),
    check=moments_fit,
)
def cca(x: Tensor, y: Tensor, *, level: float = 0.05) -> Raw:
    """Mutual information (nats) of the canonical pairs that are significant at `level`, -0.5 sum log(1 - rho^2).

    x (..., n, dx), y (..., n, dy). Noise pairs, which bias the plain Gaussian value upwards when many columns carry nothing, are left
    out; the pairs kept are counted in `detail`. Fails as "gaussian" does, overlooks dependence too weak for the test, and reads high for
    what passes it, since the largest of many correlations is kept with its luck. Source: Hotelling 1936; sequential test Bartlett 1947,
    eq. 9; information Kay 1992, eq. 4. See docs/science/estimators/gaussian.md#cca.
    """
    n, dx, dy = x.shape[-2], x.shape[-1], y.shape[-1]
    _need(n, dx + dy)
    rho, _, _ = canonical_correlations(x, y)
    kept = _significant(rho, n, dx, dy, level)
    squares = (rho.square().cpu() * kept).sum(-1)
    value = (_pairs_information(rho).cpu() * kept).sum(-1)
    spread = (squares / n + kept.sum(-1) / (2 * n**2)).sqrt()
    ceiling = -0.5 * math.log(PERFECT) * min(dx, dy)
    return Raw(value, spread, ceiling, (), {"pairs": kept.sum(-1).tolist()})
