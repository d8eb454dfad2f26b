"""Samples on which estimators fail, with their true mutual information in bits, for estimator_failures.py.

Each function gives what draws `(x, y)` for a position on the x axis of a panel and a seed; every draw has a stream of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from scipy.special import digamma, entr
from torch import Generator, Tensor

from prunescope.data.synthetic import Task, samplers, tasks, truth
from prunescope.data.synthetic.transforms import spiral
from prunescope.information import mutual_information
from prunescope.rng import torch_generator
from prunescope.types import LN2 as BIT
from prunescope.types import Estimate

Samples = Callable[[float, int], tuple[Tensor, Tensor]]


def _stream(name: str, seed: int) -> Generator:
    """The same for every position, so that neighbouring positions share their draws and curves are smooth."""
    return torch_generator(seed, "failures", name)


def _normal(n: int, d: int, generator: Generator) -> Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=generator)


# --- labels on both sides ------------------------------------------------------------------------------------------------------------


def letters(count: int) -> Samples:
    """Two independent letters; the position is n."""

    def samples(n: float, seed: int) -> tuple[Tensor, Tensor]:
        g = _stream("letters", seed)
        return torch.randint(count, (int(n),), generator=g), torch.randint(count, (int(n),), generator=g)

    return samples


def typewriter(count: int) -> Samples:
    """A letter and itself or its right neighbour; the position is n."""
    task = samplers.channel("typewriter", samplers.noisy_typewriter(count), "")
    return lambda n, seed: task.sample(int(n), seed=seed)


def _zipf(count: int) -> Tensor:
    return torch.nn.functional.normalize(1 / torch.arange(1, count + 1, dtype=torch.float64), p=1, dim=0)


def zipf(count: int, kept: float) -> Samples:
    """Letters with probability 1 / rank; y is x with probability `kept`, else drawn anew; the position is n."""
    p = _zipf(count)

    def samples(n: float, seed: int) -> tuple[Tensor, Tensor]:
        g = _stream("zipf", seed)
        x, other = (torch.multinomial(p, int(n), True, generator=g) for _ in range(2))
        return x, torch.where(torch.rand(int(n), generator=g) < kept, x, other)

    return samples


def zipf_truth(count: int, kept: float) -> float:
    """Exact enumeration, bits."""
    p = _zipf(count)
    joint = kept * torch.diag(p) + (1 - kept) * p[:, None] * p
    return float((torch.xlogy(joint, joint) - torch.xlogy(joint, p[:, None] * p)).sum()) / BIT


# --- numbers and labels --------------------------------------------------------------------------------------------------------------


def coin_and_columns(n: int) -> Samples:
    """Normal columns and an independent coin; the position is the number of columns."""
    return lambda d, seed: (_normal(n, int(d), _stream("columns", seed)), _coin(n, seed))


def coin_and(d: int) -> Samples:
    """The same; the position is n."""
    return lambda n, seed: (_normal(int(n), d, _stream("columns", seed)), _coin(int(n), seed))


def _coin(n: int, seed: int) -> Tensor:
    return torch.randint(2, (n,), generator=_stream("coin", seed))


def _signed(n: int, shift: float, d: int, seed: int) -> tuple[Tensor, Tensor]:
    y, x = _coin(n, seed), _normal(n, d, _stream("signed", seed))
    x[:, 0] += shift * (2 * y - 1)
    return x, y


def signed(n: int, shift: float, *, shuffled: bool = False) -> Samples:
    """X = +-shift + N(0, 1) and its sign's label; the position (the noise assumed) changes nothing."""

    def samples(_: float, seed: int) -> tuple[Tensor, Tensor]:
        x, y = _signed(n, shift, 1, seed)
        return x, y[torch.randperm(n, generator=_stream("shuffle", seed))] if shuffled else y

    return samples


def signed_columns(n: int, shift: float) -> Samples:
    """The same in the first of several columns, the others being noise; the position is their number."""
    return lambda d, seed: _signed(n, shift, int(d), seed)


def shifted(n: int) -> Samples:
    """The same in one column; the position is the shift."""
    return lambda shift, seed: _signed(n, shift, 1, seed)


def signed_truth(shift: float) -> Callable[[float], float]:
    """Bits of X + N(0, noise) about the sign, as a function of the noise's variance."""
    return lambda noise: truth.two_normals_label(shift / math.sqrt(1 + noise)) / BIT


def rigorous(end: int) -> Callable[[Tensor, Tensor, float, int], tuple[float, tuple[str, ...]]]:
    """One end (0 lower, 1 upper) of the interval that the pairwise bounds guarantee for the noise assumed, bits."""

    def measure(x: Tensor, y: Tensor, noise: float, seed: int) -> tuple[float, tuple[str, ...]]:
        found = mutual_information(x, y, "kde", noise=noise)
        assert isinstance(found, Estimate)
        return found.parameters["rigorous"][end] / BIT, ()

    return measure


def uniforms(n: int) -> Samples:
    """Y ~ U(c, c + 2) as numbers and the class c as label; the position is the number of classes."""

    def samples(classes: float, seed: int) -> tuple[Tensor, Tensor]:
        label, numbers = samplers.overlapping_uniforms(int(classes)).sample(n, seed=seed)
        return numbers, label

    return samples


def uniforms_truth(classes: float) -> float:
    """Closed form, bits."""
    return truth.overlapping_uniforms(int(classes)) / BIT


def codes(n: int) -> Samples:
    """Columns of four levels that know nothing of a coin; the position is their number."""
    return lambda d, seed: (torch.randint(4, (n, int(d)), generator=_stream("codes", seed)).double(), _coin(n, seed))


def steps(n: int, noise: float) -> Samples:
    """One of 8 levels plus noise, and which half it lies in, told wrong with probability 0.1; the position changes nothing."""

    def samples(_: float, seed: int) -> tuple[Tensor, Tensor]:
        g = _stream("steps", seed)
        level = torch.randint(8, (n,), generator=g)
        flip = torch.rand(n, generator=g) < 0.1
        return level.double()[:, None] + noise * _normal(n, 1, g), (level >= 4).long() ^ flip.long()

    return samples


def flip_truth(p: float) -> float:
    """1 - h(p), bits."""
    return 1 - truth.binary_entropy(p) / BIT


# --- numbers on both sides -----------------------------------------------------------------------------------------------------------


def task(name: str) -> Samples:
    """A task of the catalogue; the position is n."""
    return lambda n, seed: tasks()[name].sample(int(n), seed=seed)


def task_truth(name: str) -> Callable[[float], float]:
    """Its mutual information, bits."""
    return lambda _: tasks()[name].mi / BIT


def _pairs(n: int, d: int, correlated: int, correlation: float, seed: int) -> tuple[Tensor, Tensor]:
    g = _stream("pairs", seed)
    x, y = _normal(n, d, g), _normal(n, d, g)
    y[:, :correlated] = correlation * x[:, :correlated] + math.sqrt(1 - correlation**2) * y[:, :correlated]
    return x, y


def pairs(n: int, correlated: int, correlation: float) -> Samples:
    """So many correlated normal pairs among d columns on each side; the position is d."""
    return lambda d, seed: _pairs(n, int(d), correlated, correlation, seed)


def every_pair(n: int, correlation: float) -> Samples:
    """d correlated normal pairs; the position is d."""
    return lambda d, seed: _pairs(n, int(d), int(d), correlation, seed)


def equal_pairs(n: int, d: int) -> Samples:
    """d pairs of one correlation, which is the position."""
    return lambda correlation, seed: _pairs(n, d, d, correlation, seed)


def pairs_truth(correlated: int, correlation: float) -> float:
    """Closed form, bits."""
    return -0.5 * correlated * math.log2(1 - correlation**2)


def normal_pair(n: int, correlation: float) -> Samples:
    """One pair; the position (a parameter) changes nothing."""
    return lambda _, seed: _pairs(n, 1, 1, correlation, seed)


def pair_truth(correlation: float) -> Callable[[float], float]:
    """The pair's bits, whatever the position."""
    return lambda _: pairs_truth(1, correlation)


def rounded_pair(n: int, correlation: float) -> Samples:
    """The pair rounded to multiples of the position."""

    def samples(step: float, seed: int) -> tuple[Tensor, Tensor]:
        x, y = _pairs(n, 1, 1, correlation, seed)
        return (x / step).round() * step, (y / step).round() * step

    return samples


def rounded_truth(correlation: float) -> Callable[[float], float]:
    """Bits left after rounding, summed over cells of the density; below a step of 0.1 the loss is under 0.001 bit and left out."""

    def at(step: float) -> float:
        if step < 0.1:
            return pairs_truth(1, correlation)
        fine = math.ceil(step / 0.02)
        line = (np.arange(-math.ceil(6 / step) * fine, (math.ceil(6 / step) + 1) * fine) + 0.5) * step / fine - step / 2
        square = (line[:, None] ** 2 + line**2 - 2 * correlation * line[:, None] * line) / (1 - correlation**2)
        cells = np.exp(-square / 2).reshape(len(line) // fine, fine, -1, fine).sum((1, 3))
        cells /= cells.sum()
        return float((entr(cells.sum(0)).sum() + entr(cells.sum(1)).sum() - entr(cells).sum()) / BIT)

    return at


def strength(n: int, count: int) -> Samples:
    """`count` equal normal pairs of so many bits together, which is the position."""
    return lambda bits, seed: _pairs(n, count, count, truth.correlation_for(bits * BIT, count), seed)


def ksg_ceiling(n: int, k: int) -> float:
    """psi(n) - psi(k) in bits."""
    return float(digamma(n) - digamma(k)) / BIT


def tanh(n: int) -> Samples:
    """X ~ N(0, 1) and T = tanh X: a deterministic map, of infinite information."""

    def samples(_: float, seed: int) -> tuple[Tensor, Tensor]:
        x = _normal(n, 1, _stream("tanh", seed))
        return x, x.tanh()

    return samples


def student(n: int, d: int) -> Samples:
    """Student-t columns that share their scale, uncorrelated, d on each side; the position is the degrees of freedom."""
    return lambda dof, seed: samplers.student("t", torch.eye(2 * d, dtype=torch.float64), d, int(dof)).sample(n, seed=seed)


def student_truth(d: int) -> Callable[[float], float]:
    """Closed form, bits."""
    return lambda dof: truth.student_excess(d, d, dof) / BIT


def near_a_line(n: int) -> Samples:
    """x = (a, a + distance * noise), y independent of both; the position is the distance."""

    def samples(distance: float, seed: int) -> tuple[Tensor, Tensor]:
        g = _stream("line", seed)
        a, off, y = (_normal(n, 1, g) for _ in range(3))
        return torch.cat([a, a + distance * off], 1), y

    return samples


def normals(n: int) -> Samples:
    """Independent normal columns, so many as the position says, given twice."""
    return lambda d, seed: (_normal(n, int(d), _stream("normals", seed)),) * 2


def flat(n: int) -> Samples:
    """The same, uniform on [0, 1]."""

    def samples(d: float, seed: int) -> tuple[Tensor, Tensor]:
        x = torch.rand(n, int(d), dtype=torch.float64, generator=_stream("flat", seed))
        return x, x

    return samples


def waves(n: int, noise: float = 0.3) -> Samples:
    """Y = sin(2 pi w U) + noise with U uniform; the position is the number of waves w."""

    def samples(w: float, seed: int) -> tuple[Tensor, Tensor]:
        g = _stream("waves", seed)
        u = torch.rand(n, 1, dtype=torch.float64, generator=g)
        return u, (2 * math.pi * w * u).sin() + noise * _normal(n, 1, g)

    return samples


@cache
def waves_truth(w: float, noise: float = 0.3) -> float:
    """H(Y) - H(noise) in bits by the trapezium rule; the same for every whole number of waves."""
    y, angle = np.linspace(-1 - 9 * noise, 1 + 9 * noise, 4001), 2 * np.pi * (np.arange(2000) + 0.5) / 2000
    density = np.exp(-(((y[:, None] - np.sin(angle)) / noise) ** 2) / 2).mean(1) / (noise * math.sqrt(2 * math.pi))
    density = np.maximum(density, 1e-300)
    return float(np.trapezoid(-density * np.log2(density), y)) - 0.5 * math.log2(2 * math.pi * math.e * noise**2)


def outliers(n: int) -> Samples:
    """Independent normal columns of which the first m samples lie around (30, 30); the position is m."""

    def samples(m: float, seed: int) -> tuple[Tensor, Tensor]:
        x, y = _pairs(n, 1, 1, 0.0, seed)
        x[: int(m)] += 30
        y[: int(m)] += 30
        return x, y

    return samples


def ring(n: int) -> Samples:
    """Points on a circle as x, and as y points whose angle differs by at most a share of half a turn, the position."""

    def samples(share: float, seed: int) -> tuple[Tensor, Tensor]:
        g = _stream("ring", seed)
        first = math.pi * (2 * torch.rand(n, dtype=torch.float64, generator=g) - 1)
        second = first + share * math.pi * (2 * torch.rand(n, dtype=torch.float64, generator=g) - 1)
        return torch.stack([first.cos(), first.sin()], 1), torch.stack([second.cos(), second.sin()], 1)

    return samples


@cache
def _crossed(correlation: float) -> Task:
    c = correlation
    step = 0.05 if c < 0.95 else 0.02
    return samplers.mixture("crossed", [(0, 0), (0, 0)], [[[1, c], [c, 1]], [[1, -c], [-c, 1]]], step=step)


def crossed(n: int) -> Samples:
    """An even mixture of a rising and a falling normal pair; the position is the correlation along each."""
    return lambda correlation, seed: _crossed(correlation).sample(n, seed=seed)


def crossed_truth(correlation: float) -> float:
    """Trapezium rule, bits."""
    return max(0.0, _crossed(correlation).mi / BIT)


def stretched(n: int, correlation: float) -> Samples:
    """Two pairs, the first of whose columns are multiplied by the position on both sides."""

    def samples(factor: float, seed: int) -> tuple[Tensor, Tensor]:
        scale = torch.tensor([factor, 1.0], dtype=torch.float64)
        x, y = _pairs(n, 2, 2, correlation, seed)
        return x * scale, y * scale

    return samples


def spiral_of() -> Samples:
    """Two pairs of correlation 0.8 among 3 and 3 columns, wound up by a turn that grows with the distance; the position is n."""

    def samples(n: float, seed: int) -> tuple[Tensor, Tensor]:
        x, y = _pairs(int(n), 3, 2, 0.8, seed)
        return spiral(x, plane=(0, 1)), spiral(y, plane=(1, 2))

    return samples


@cache
def _inliers(share: float) -> Task:
    return samplers.inliers("inliers", 5, 0.8, share)


def inliers(n: int) -> Samples:
    """Two pairs of correlation 0.8 among 5 and 5 columns; in a share of the rows, the position, y is drawn anew."""
    return lambda share, seed: _inliers(share).sample(n, seed=seed)


def inliers_truth(share: float) -> float:
    """Monte Carlo of the exact ratio to 1e-3 nats; bits."""
    return _inliers(share).mi / BIT
