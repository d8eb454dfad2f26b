"""The held-out tasks: truths against integrals done another way, samplers against their laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from prunescope.data.synthetic import tasks, truth

HELD = tasks("held-out")


def columns(name, n=200_000):
    x, y = HELD[name].sample(n, seed=1)
    return x.numpy()[:, 0], y.numpy()[:, 0]


def log_clayton(u, v, t=2.0):
    return math.log(1 + t) - (1 + t) * np.log(u * v) - (2 + 1 / t) * np.log(u**-t + v**-t - 1)


def log_frank(u, v, t=6.0):
    whole = 1 - math.exp(-t)
    return np.log(t * whole) - t * (u + v) - 2 * np.log(whole - (1 - np.exp(-t * u)) * (1 - np.exp(-t * v)))


COPULAS = {"clayton-1x1": log_clayton, "frank-1x1": log_frank, "morgenstern-1x1": lambda u, v: np.log1p((1 - 2 * u) * (1 - 2 * v))}


@pytest.mark.parametrize("name", COPULAS)
def test_copulas_sampled_and_integrated_agree(name):
    """The mean log density over 200,000 samples is the integral, and both columns are uniform."""
    u, v = columns(name)
    terms = COPULAS[name](u, v)
    assert terms.mean() == pytest.approx(HELD[name].mi, abs=4 * terms.std() / math.sqrt(len(u)))
    for side in (u, v):
        assert stats.kstest(side, "uniform").statistic < 2 / math.sqrt(len(u))


def test_sums_by_quadrature():
    def entropy(law, low, high):
        return integrate.quad(lambda v: -law.pdf(v) * law.logpdf(v), low, high, limit=300)[0]

    assert truth.gamma_sum(2.0, 1.0) == pytest.approx(entropy(stats.gamma(3), 1e-12, 80) - 1.0, abs=1e-6)
    y = columns("gamma-sum-1x1")[1]
    assert stats.kstest(y, "gamma", args=(3,)).statistic < 2 / math.sqrt(len(y))


def test_additive_noise_by_convolution():
    """h(Y) from densities that are convolved numerically, less the noise's entropy; and Y's distribution is the sampler's."""
    x = (np.arange(40_000) + 0.5) / 20_000 - 1
    cases = {
        "sine-1x1": (np.sin(2 * np.pi * x), np.full(len(x), 1 / len(x)), stats.norm(scale=0.3)),
        "laplace-1x1": (8 * x, stats.norm.pdf(8 * x) * 8 / 20_000, stats.laplace(scale=0.5)),
    }
    for name, (signal, weight, noise) in cases.items():
        grid = np.linspace(-14, 14, 1401)
        density = np.array([(weight * noise.pdf(v - signal)).sum() for v in grid])
        terms = np.where(density > 0, -density * np.log(np.maximum(density, 1e-300)), 0)
        assert integrate.simpson(terms, x=grid) - noise.entropy() == pytest.approx(HELD[name].mi, abs=2e-4)
        below = integrate.simpson(np.where(grid <= 0.5, density, 0), x=grid)
        assert (columns(name)[1] < 0.5).mean() == pytest.approx(below, abs=0.01)


def test_labels_and_repetition():
    x, y = HELD["gamma-classes-3"].sample(60_000, seed=2)
    for c, shape in enumerate((1, 3, 5)):
        assert stats.kstest(x.numpy()[y.numpy() == c, 0], "gamma", args=(shape,)).statistic < 0.015
    laws = [stats.gamma(s) for s in (1, 3, 5)]

    def terms(v):
        each = np.array([law.pdf(v) for law in laws])
        return sum(p * math.log(p / each.mean()) for p in each if p > 0) / 3

    assert integrate.quad(terms, 1e-9, 60, limit=300)[0] == pytest.approx(HELD["gamma-classes-3"].mi, abs=1e-5)
    assert HELD["frank-2x2"].mi == pytest.approx(2 * HELD["frank-1x1"].mi)
    turned = HELD["clayton-3x3-turned"].sample(50_000, seed=0)[0].numpy()
    assert np.cov(turned.T) == pytest.approx(np.eye(3), abs=0.03), "a turned standard normal is one"
