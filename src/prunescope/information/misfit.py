"""Does an elliptical copula fit how x and y depend on each other? A test (no unit) against samples drawn from the fitted copula."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import special
from torch import Tensor

from prunescope.information.elliptical import ROWS, Elliptical, Floats, half_ranks, normal_fit
from prunescope.information.residual import features
from prunescope.rng import numpy_generator
from prunescope.types import EstimateError

LEVEL = 1e-3  # probability of rejecting a copula that fits
LEAST = 50  # samples: below, products of ranks are far from normal and the test says nothing


@dataclass(frozen=True)
class Misfit:
    """Largest deviation of data from the copula in standard errors, and the limit that it exceeds with probability 1/1000 by chance."""

    deviation: float
    limit: float

    @property
    def rejects(self) -> bool:
        """Whether the copula is surely not the data's."""
        return self.deviation > self.limit


def misfit(x: Floats, y: Floats, fit: Elliptical, *, generator: Generator) -> Misfit:
    """Compare x (n, dx) and y (n, dy) with as many rows drawn from `fit`: means of products of a function of x and one of y.

    Functions: Legendre polynomials of degree 1 to 3 (bounded, so that means are normal) of the ranks of each column, of the leading
    canonical directions and of the distance from the centre. Every product's two means are compared by their standard errors, with
    Bonferroni's limit for all products. Sees dependence of other shape than the copula's (curved, turned, mixed, one-sided); blind to
    what only shows in three columns of one side together, and to differences below about 5 standard errors.
    """
    step = math.ceil(len(x) / ROWS)
    x, y = x[::step], y[::step]
    drawn = _drawn(fit, len(x), generator)
    mean, variance = _products(x, y, fit)
    other, spread = _products(drawn[:, : fit.dx], drawn[:, fit.dx :], fit)
    deviation = np.abs(mean - other) / np.sqrt((variance + spread) / len(x) + 1e-300)
    return Misfit(float(deviation.max()), float(-special.ndtri(LEVEL / 2 / mean.size)))


def _drawn(fit: Elliptical, n: int, generator: Generator) -> Floats:
    factor = np.linalg.cholesky(fit.correlation)
    rows = generator.standard_normal((n, len(factor))) @ factor.T
    if math.isinf(fit.dof):
        return np.asarray(rows)
    return np.asarray(rows / np.sqrt(generator.chisquare(fit.dof, (n, 1)) / fit.dof))


def _products(x: Floats, y: Floats, fit: Elliptical) -> tuple[Floats, Floats]:
    """Means and variances (functions of x, functions of y), no unit, of all products of a function of x with one of y."""
    a, b = features(x, y, fit)
    left, right = (_polynomials(np.column_stack([side, extra.double().numpy()])) for side, extra in ((x, a), (y, b)))
    mean = left.T @ right / len(x)
    return mean, (left**2).T @ right**2 / len(x) - mean**2


def _polynomials(values: Floats) -> Floats:
    t = half_ranks(values) / (len(values) + 1) - 1
    return np.concatenate([t, (3 * t**2 - 1) / 2, (5 * t**3 - 3 * t) / 2], axis=1)


def not_normal(x: Tensor, y: Tensor) -> bool:
    """Whether the normal copula surely does not fit x (n, dx) and y (n, dy). False, too, where there are too few samples to tell."""
    first, second = (part.detach().cpu().double().numpy() for part in (x, y))
    if len(first) < max(LEAST, 2 * (first.shape[1] + second.shape[1])):
        return False
    try:
        fit = normal_fit(first, second)
    except EstimateError:  # columns that determine each other: the estimator flags or refuses them itself
        return False
    return misfit(first, second, fit, generator=numpy_generator(0, "misfit")).rejects
