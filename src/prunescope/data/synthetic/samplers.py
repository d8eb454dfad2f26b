"""Families of joint distributions, each a function that gives a `Task` with its exact mutual information."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Generator, Tensor

from prunescope.data.synthetic import truth
from prunescope.data.synthetic.task import Task
from prunescope.rng import numpy_generator

CZYZ = "Czyz et al. 2023 (Beyond Normal)"
GAO = "Gao et al. 2017"


def _normals(n: int, columns: int, generator: Generator) -> Tensor:
    return torch.randn(n, columns, dtype=torch.float64, generator=generator)


def _uniforms(n: int, generator: Generator) -> Tensor:
    return torch.rand(n, 1, dtype=torch.float64, generator=generator)


def normal(name: str, covariance: Tensor, dx: int) -> Task:
    """A normal vector of the given covariance, its first `dx` columns being x; mutual information in closed form, nats."""
    factor = torch.linalg.cholesky(covariance)

    def draw(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        both = _normals(n, len(covariance), generator) @ factor.T
        return both[:, :dx], both[:, dx:]

    return Task(name, draw, truth.normal(covariance, dx), dx, len(covariance) - dx, source=f"closed form; {CZYZ}")


def dense(d: int, correlation: float = 0.5) -> Tensor:
    """Covariance (2d, 2d), no unit, in which every two columns have the same correlation."""
    return torch.full((2 * d, 2 * d), correlation, dtype=torch.float64).fill_diagonal_(1.0)


def pairs(d: int, correlated: int, correlation: float) -> Tensor:
    """Covariance (2d, 2d), no unit, in which x_i and y_i correlate for i < `correlated` and nothing else does."""
    covariance = torch.eye(2 * d, dtype=torch.float64)
    for i in range(correlated):
        covariance[i, d + i] = covariance[d + i, i] = correlation
    return covariance


def student(name: str, covariance: Tensor, dx: int, dof: int) -> Task:
    """A multivariate Student-t vector of the given dispersion: its columns depend on each other even where uncorrelated.

    Mutual information: the normal value of the dispersion plus a term of (dx, dy, dof) only, in nats.
    """
    factor = torch.linalg.cholesky(covariance)
    dy = len(covariance) - dx

    def draw(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        scale = (_normals(n, dof, generator) ** 2).sum(1, keepdim=True) / dof
        both = _normals(n, dx + dy, generator) @ factor.T / scale.sqrt()
        return both[:, :dx], both[:, dx:]

    mi = truth.normal(covariance, dx) + truth.student_excess(dx, dy, dof)
    return Task(name, draw, mi, dx, dy, source=f"closed form, Arellano-Valle et al. 2013, eq. 7; {CZYZ}")


def additive_uniform(width: float) -> Task:
    """X ~ U(0, 1), Y = X + U(-width, width); mutual information in closed form, nats."""

    def draw(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        x = _uniforms(n, generator)
        return x, x + width * (2 * _uniforms(n, generator) - 1)

    return Task(f"uniform-noise-{width}", draw, truth.additive_uniform(width), 1, 1, source=f"closed form; {CZYZ}")


def mixture(
    name: str, means: Sequence[tuple[float, float]], covariances: Sequence[Sequence[Sequence[float]]], *, step: float
) -> Task:
    """An even mixture of bivariate normals, one column each; mutual information by the trapezium rule, nats, to 1e-6."""
    centres = torch.tensor(means, dtype=torch.float64)
    factors = torch.linalg.cholesky(torch.tensor(covariances, dtype=torch.float64))

    def draw(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        which = torch.randint(len(means), (n,), generator=generator)
        both = centres[which] + torch.einsum("nij,nj->ni", factors[which], _normals(n, 2, generator))
        return both[:, :1], both[:, 1:]

    mi = truth.mixture_2d([1 / len(means)] * len(means), means, covariances, step=step)
    return Task(name, draw, mi, 1, 1, source="trapezium rule, to 1e-6; after Czyz et al. 2025 (mixtures)")


def inliers(name: str, d: int, correlation: float, noise: float) -> Task:
    """Two correlated normal pairs among d columns, a fraction `noise` of whose rows has y drawn independently of x.

    Mutual information in nats: mean of ln((1 - noise) r + noise), r the density ratio of the normal, over 2 million seeded draws
    (standard error below 1e-3).
    """

    def draw(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        x, y = _normals(n, d, generator), _normals(n, d, generator)
        kept = (_uniforms(n, generator) >= noise)[:, 0]
        mixed = correlation * x[:, :2] + math.sqrt(1 - correlation**2) * y[:, :2]
        y[:, :2] = torch.where(kept[:, None], mixed, y[:, :2])
        return x, y

    def log_ratio(size: int, batch: int) -> np.ndarray:
        random = numpy_generator(0, "truth", name, batch)
        x, y = random.standard_normal((2, size, 2))
        kept = random.random((size, 1)) >= noise
        y = np.where(kept, correlation * x + math.sqrt(1 - correlation**2) * y, y)
        spread = 1 - correlation**2
        ratio = (2 * correlation * x * y - correlation**2 * (x * x + y * y)) / (2 * spread) - math.log(spread) / 2
        values: np.ndarray = np.logaddexp(math.log(1 - noise) + ratio.sum(1), math.log(noise))
        return values

    return Task(name, draw, truth.by_sampling(log_ratio), d, d, source="Monte Carlo of the exact density ratio, to 1e-3")


def channel(name: str, transition: Tensor, source: str) -> Task:
    """A uniform letter sent through a discrete memoryless channel: `transition[i, j]` = P(j | i). Exact enumeration, nats."""
    letters = len(transition)
    output = transition.mean(0)
    terms = torch.xlogy(transition, transition) - torch.xlogy(transition, output)

    def draw(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        x = torch.randint(letters, (n,), generator=generator)
        return x, torch.multinomial(transition[x], 1, generator=generator)[:, 0]

    return Task(name, draw, float(terms.sum() / letters), 1, 1, ("discrete", "discrete"), source)


def symmetric_channel(flip: float) -> Tensor:
    """Transition matrix (2, 2), probabilities, of the binary symmetric channel."""
    return torch.tensor([[1 - flip, flip], [flip, 1 - flip]], dtype=torch.float64)


def erasure_channel(lost: float) -> Tensor:
    """Transition matrix (2, 3), probabilities, of the binary erasure channel; the third output is the erasure."""
    return torch.tensor([[1 - lost, 0, lost], [0, 1 - lost, lost]], dtype=torch.float64)


def noisy_typewriter(letters: int) -> Tensor:
    """Transition matrix (letters, letters), probabilities: a letter or its right neighbour, each with probability 1/2."""
    kept = torch.eye(letters, dtype=torch.float64)
    return (kept + kept.roll(1, dims=1)) / 2


def overlapping_uniforms(classes: int) -> Task:
    """A uniform label c as x and Y ~ U(c, c + 2); closed form, nats."""

    def draw(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        x = torch.randint(classes, (n,), generator=generator)
        return x, x[:, None] + 2 * _uniforms(n, generator)

    mi = truth.overlapping_uniforms(classes)
    return Task(f"overlapping-uniforms-{classes}", draw, mi, 1, 1, ("discrete", "continuous"), f"closed form; {GAO}")


def zero_inflated_poisson(p: float) -> Task:
    """X ~ Exp(1), Y = 0 with probability p and Poisson(X) otherwise; quadrature to 1e-9, nats."""

    def draw(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        x = -torch.log1p(-_uniforms(n, generator))
        counts = torch.poisson(x, generator=generator)
        counts[_uniforms(n, generator) < p] = 0
        return x, counts[:, 0].long()

    mi = truth.zero_inflated_poisson(p)
    return Task(f"zero-inflated-poisson-{p}", draw, mi, 1, 1, ("continuous", "discrete"), f"quadrature to 1e-9; {GAO}")


def two_normals(shift: float) -> Task:
    """X ~ N(+-shift, 1) with the sign as label y; quadrature to 1e-9, nats."""

    def draw(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        y = torch.randint(2, (n,), generator=generator)
        return _normals(n, 1, generator) + shift * (2 * y[:, None] - 1), y

    return Task(
        f"two-normals-{shift}", draw, truth.two_normals_label(shift), 1, 1, ("continuous", "discrete"), "quadrature to 1e-9"
    )


def half_discrete(correlation: float, agree: float) -> Task:
    """Half of the rows a normal pair, half of them signs (+-1, +-1) that agree with probability `agree`; closed form, nats.

    Which half a row is from can be read off x and off y, hence I = ln 2 + I(normal) / 2 + (ln 2 - h(agree)) / 2.
    """

    def draw(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        x, y = _normals(n, 1, generator), _normals(n, 1, generator)
        y = correlation * x + math.sqrt(1 - correlation**2) * y
        sign = 2.0 * torch.randint(2, (n, 1), generator=generator) - 1
        other = torch.where(_uniforms(n, generator) < agree, sign, -sign)
        discrete = _uniforms(n, generator) < 0.5
        return torch.where(discrete, sign, x), torch.where(discrete, other, y)

    signs = math.log(2) - truth.binary_entropy(agree)
    mi = math.log(2) + (-0.5 * math.log(1 - correlation**2) + signs) / 2
    return Task("half-discrete", draw, mi, 1, 1, ("mixed", "mixed"), f"closed form; {GAO}, experiment 1")
