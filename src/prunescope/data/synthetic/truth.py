"""Mutual information, in nats, of distributions that have it in closed form or as a low-dimensional integral."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import integrate, special
from torch import Tensor


def normal(covariance: Tensor, dx: int) -> float:
    """Mutual information in nats of a normal vector split after its first `dx` columns: (ln|Sx| + ln|Sy| - ln|S|) / 2.

    Source: Cover & Thomas, Elements of Information Theory, 2nd ed., eq. 8.34 applied three times.
    """
    parts = (covariance[:dx, :dx], covariance[dx:, dx:], covariance)
    first, second, joint = (float(part.logdet()) for part in parts)
    return (first + second - joint) / 2


def correlation_for(mi: float, pairs: int) -> float:
    """Correlation (no unit) that gives `pairs` independent normal pairs a mutual information of `mi` nats together.

    >>> round(-0.5 * 5 * math.log(1 - correlation_for(2.0, 5) ** 2), 12)
    2.0
    """
    return math.sqrt(-math.expm1(-2 * mi / pairs))


def student_entropy(dimension: int, dof: float) -> float:
    """Entropy in nats of a standard Student-t vector. Source: Arellano-Valle et al. 2013, eq. 7.

    >>> round(student_entropy(1, 1.0), 6) == round(math.log(4 * math.pi), 6)   # Cauchy
    True
    """
    half = (dof + dimension) / 2
    spread = special.gammaln(dof / 2) - special.gammaln(half) + dimension / 2 * math.log(dof * math.pi)
    return float(spread + half * (special.digamma(half) - special.digamma(dof / 2)))


def student_excess(dx: int, dy: int, dof: float) -> float:
    """Mutual information in nats that heavy tails add to the normal value of the same dispersion (0 as dof grows)."""
    return student_entropy(dx, dof) + student_entropy(dy, dof) - student_entropy(dx + dy, dof)


def additive_uniform(width: float) -> float:
    """Mutual information in nats of X ~ U(0, 1) and Y = X + U(-width, width). Source: Czyz et al. 2023, appendix.

    >>> additive_uniform(0.5)
    0.5
    """
    return 1 / (4 * width) if width > 0.5 else width - math.log(2 * width)


def overlapping_uniforms(classes: int) -> float:
    """Mutual information in nats of a uniform label c and Y ~ U(c, c + 2). Source: Gao et al. 2017, experiment 1."""
    return math.log(classes) - (classes - 1) / classes * math.log(2)


def binary_entropy(p: float) -> float:
    """Entropy in nats of a coin that shows heads with probability `p`.

    >>> round(binary_entropy(0.5), 6), binary_entropy(0.0)
    (0.693147, 0.0)
    """
    return float(special.entr(p) + special.entr(1 - p))


def zero_inflated_poisson(p: float, *, terms: int = 400) -> float:
    """Mutual information in nats of X ~ Exp(1) and Y = 0 with probability `p`, Poisson(X) otherwise; to 1e-9.

    H(Y) is a sum over geometric probabilities, H(Y|X) an integral over x. The value (1 - p) 0.3012 that Gao et al. 2017 print is
    exact for p = 0 only: inflated zeros look like Poisson's own.
    """
    k = np.arange(terms)
    marginal = (1 - p) * 0.5 ** (k + 1.0) + p * (k == 0)

    def conditional_entropy(x: float) -> float:
        log_poisson = k * math.log(x) - x - special.gammaln(k + 1) if x > 0 else np.where(k == 0, 0.0, -np.inf)
        probability = (1 - p) * np.exp(log_poisson) + p * (k == 0)
        entropy: float = special.entr(probability).sum()
        return entropy * math.exp(-x)

    noise, _ = integrate.quad(conditional_entropy, 0, 80, limit=400, epsabs=1e-10)
    return float(special.entr(marginal).sum()) - float(noise)


def two_normals_label(shift: float) -> float:
    """Mutual information in nats of a fair sign s and X ~ N(s * shift, 1), by quadrature to 1e-9: E ln 2 / (1 + exp(-2 shift x))."""

    def integrand(x: float) -> float:
        density = math.exp(-((x - shift) ** 2) / 2) / math.sqrt(2 * math.pi)
        return density * (math.log(2) - float(np.logaddexp(0.0, -2 * shift * x)))

    return float(integrate.quad(integrand, shift - 12, shift + 12, epsabs=1e-11)[0])


def mixture_2d(
    weights: Sequence[float], means: Sequence[tuple[float, float]], covariances: Sequence[Sequence[Sequence[float]]], *, step: float
) -> float:
    """Mutual information in nats of a mixture of bivariate normals, by the trapezium rule on a grid of spacing `step`.

    The rule converges faster than any power of the step for such densities: with a step of a third of the smallest standard
    deviation it is exact to about 1e-6.
    """
    reach = 8 * math.sqrt(max(max(c[0][0], c[1][1]) for c in covariances))
    axes = [np.arange(min(m[i] for m in means) - reach, max(m[i] for m in means) + reach, step) for i in (0, 1)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    joint = np.zeros(grid.shape[:2])
    for weight, mean, covariance in zip(weights, means, covariances, strict=True):
        precision = np.linalg.inv(np.asarray(covariance))
        away = grid - np.asarray(mean)
        distance = np.einsum("abi,ij,abj->ab", away, precision, away)
        joint += weight * np.sqrt(np.linalg.det(precision)) / (2 * math.pi) * np.exp(-distance / 2)
    rows, columns = joint.sum(1) * step, joint.sum(0) * step
    entropies = special.entr(rows).sum() * step + special.entr(columns).sum() * step - special.entr(joint).sum() * step**2
    return float(entropies)


def by_sampling(log_ratio: Callable[[int, int], np.ndarray], *, batches: int = 20, size: int = 100_000) -> float:
    """Mutual information in nats as the mean of ln p(x, y) / p(x) p(y) over batches * size seeded draws (standard error < 1e-3)."""
    return float(np.mean([log_ratio(size, batch).mean() for batch in range(batches)]))


def copula(density: Callable[[np.ndarray, np.ndarray], np.ndarray], *, step: float = 0.02) -> float:
    """Mutual information in nats of a copula with this log density on the unit square: trapezium rule on normal scores, to 1e-4."""
    z = np.arange(-8, 8 + step / 2, step)
    u, weight = special.ndtr(z), np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * step
    logs = density(u[:, None], u[None, :])
    return float(weight @ (np.exp(logs) * logs) @ weight)


def clayton(theta: float) -> float:
    """Mutual information in nats of Clayton's copula, (u^-t + v^-t - 1)^(-1/t). Source of the density: Nelsen 2006, sec. 4.2."""

    def density(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        inner = np.logaddexp(-theta * np.log(u), np.log(np.expm1(-theta * np.log(v)).clip(1e-300)))
        return np.asarray(math.log1p(theta) - (1 + theta) * (np.log(u) + np.log(v)) - (2 + 1 / theta) * inner)

    return copula(density)


def frank(theta: float) -> float:
    """Mutual information in nats of Frank's copula. Source of the density: Nelsen 2006, sec. 4.2 (family 5)."""

    def density(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        whole = -math.expm1(-theta)
        below = whole - np.expm1(-theta * u) * np.expm1(-theta * v)
        return np.asarray(math.log(theta * whole) - theta * (u + v) - 2 * np.log(below))

    return copula(density)


def morgenstern() -> float:
    """Mutual information in nats of the Farlie-Gumbel-Morgenstern copula with its strongest dependence: density 1 + (1 - 2u)(1 - 2v)."""
    return copula(lambda u, v: np.log1p(((1 - 2 * u) * (1 - 2 * v)).clip(-1 + 1e-15)))


def gamma_entropy(shape: float) -> float:
    """Entropy in nats of a gamma variable of unit scale. Source: Cover & Thomas, table 17.1.

    >>> gamma_entropy(1.0)
    1.0
    """
    return float(shape + special.gammaln(shape) + (1 - shape) * special.digamma(shape))


def gamma_sum(shape: float, more: float) -> float:
    """Mutual information in nats of X ~ Gamma(shape) and X + Z, Z ~ Gamma(more) independent: h(X + Z) - h(Z)."""
    return gamma_entropy(shape + more) - gamma_entropy(more)


def _entropy(density: Callable[[np.ndarray], np.ndarray], low: float, high: float, steps: int = 20_000) -> float:
    y = np.linspace(low, high, steps + 1)
    return float(integrate.simpson(special.entr(density(y)), x=y))


def sine(noise: float) -> float:
    """Mutual information in nats of X ~ U(-1, 1) and sin(2 pi X) + N(0, noise^2): h(Y) less the noise's entropy."""
    waves = np.sin(2 * np.pi * (np.arange(2000) + 0.5) / 2000)  # periodic: the midpoint rule is exact to rounding

    def density(y: np.ndarray) -> np.ndarray:
        total = sum(np.exp(-((y - w) ** 2) / (2 * noise**2)) for w in waves)
        return np.asarray(total / len(waves) / noise / math.sqrt(2 * math.pi))

    return _entropy(density, -1 - 9 * noise, 1 + 9 * noise, 2000) - 0.5 * math.log(2 * math.pi * math.e * noise**2)


def normal_plus_laplace(scale: float) -> float:
    """Mutual information in nats of X ~ N(0, 1) and X plus Laplace noise: h(Y) - 1 - ln(2 scale)."""

    def density(y: np.ndarray) -> np.ndarray:
        lift, rate = 1 / (2 * scale**2), 1 / scale  # the exponentials of a convolution of normal and Laplace
        left, right = special.log_ndtr(y - rate) - rate * y, special.log_ndtr(-y - rate) + rate * y
        return np.asarray(np.exp(lift + np.logaddexp(left, right)) / (2 * scale))

    return _entropy(density, -30.0, 30.0) - 1 - math.log(2 * scale)


def gamma_classes(shapes: Sequence[float]) -> float:
    """Mutual information in nats of a uniform label c and X ~ Gamma(shapes[c]): h(X) less the mean of the classes' entropies."""

    def density(x: np.ndarray) -> np.ndarray:
        logs = [special.xlogy(s - 1, x) - x - special.gammaln(s) for s in shapes]
        return np.asarray(sum(np.exp(v) for v in logs) / len(shapes))

    return _entropy(density, 0.0, 60.0) - float(np.mean([gamma_entropy(s) for s in shapes]))
