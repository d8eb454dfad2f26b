"""Tasks with known mutual information: the closed forms against integrals done another way, the samplers against their densities."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from prunescope.data.synthetic import GROUPS, MAPS, tasks, transformed, truth
from prunescope.data.synthetic.samplers import channel, erasure_channel, noisy_typewriter, symmetric_channel
from prunescope.data.synthetic.transforms import bimodal, spiral
from prunescope.types import ConfigError, DataError

CLASSIC = tasks("continuous")


def test_the_continuous_group_has_53_tasks_with_distinct_names():
    assert len(CLASSIC) == 53
    assert len(tasks()) == sum(len(tasks(group)) for group in GROUPS)


@pytest.mark.parametrize("name", list(tasks()))
def test_samples_have_the_shape_kind_and_seed_that_the_task_states(name):
    task = tasks()[name]
    x, y = task.sample(50, seed=3)
    for values, columns, kind in ((x, task.dx, task.kinds[0]), (y, task.dy, task.kinds[1])):
        assert values.shape == ((50,) if kind == "discrete" else (50, columns))
        assert values.dtype == (torch.int64 if kind == "discrete" else torch.float64)
        assert bool(torch.isfinite(values.double()).all())
    again, other = task.sample(50, seed=3)[0], task.sample(50, seed=4)[0]
    assert torch.equal(x, again)
    assert not torch.equal(x, other)
    assert task.mi >= 0
    assert task.source


def test_student_entropy_equals_the_integral():
    for dof in (1, 2, 5):
        line = integrate.quad(lambda v, d=dof: -math.exp(stats.t.logpdf(v, d)) * stats.t.logpdf(v, d), -np.inf, np.inf)[0]
        assert truth.student_entropy(1, dof) == pytest.approx(line, abs=1e-6)
        law = stats.multivariate_t(np.zeros(2), np.eye(2), df=dof)
        disc = integrate.quad(lambda r, law=law: -2 * math.pi * r * law.pdf([r, 0]) * law.logpdf([r, 0]), 0, np.inf, limit=200)[0]
        assert truth.student_entropy(2, dof) == pytest.approx(disc, abs=1e-5)
    assert truth.student_excess(3, 3, 1e7) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("width", [0.1, 0.4, 0.5, 0.75, 2.0])
def test_additive_uniform_equals_the_integral(width):
    def minus_plogp(y):
        density = max(0.0, min(1.0, y + width) - max(0.0, y - width)) / (2 * width)
        return -density * math.log(density) if density > 0 else 0.0

    corners = sorted({-width, width, 1 - width, 1 + width})
    entropy = sum(integrate.quad(minus_plogp, a, b)[0] for a, b in itertools.pairwise(corners))
    assert truth.additive_uniform(width) == pytest.approx(entropy - math.log(2 * width), abs=1e-7)


def test_the_normal_closed_form_agrees_with_the_grid_and_with_canonical_correlations():
    c = [[1.0, 0.75], [0.75, 1.0]]
    grid = truth.mixture_2d([1.0], [(0.0, 0.0)], [c], step=0.1)
    assert truth.normal(torch.tensor(c, dtype=torch.float64), 1) == pytest.approx(grid, abs=1e-8)
    assert CLASSIC["normal-1x1"].mi == pytest.approx(-0.5 * math.log(1 - 0.75**2), abs=1e-12)
    # every two columns correlate by 1/2: the sums of x and of y carry all of it
    canonical = 0.5 * 25 / (1 + 0.5 * 24)
    assert CLASSIC["normal-25x25"].mi == pytest.approx(-0.5 * math.log(1 - canonical**2), abs=1e-10)
    for mi in (2, 4, 6, 8, 10):
        assert CLASSIC[f"staircase-{mi}"].mi == pytest.approx(mi, abs=1e-9)


def test_mixed_truths_against_sums_and_grids():
    # Gao et al.: 2 ln 2 - Euler's constant - sum ln k / 2^k without inflation; inflation costs more than the share of its rows
    k = np.arange(1, 200)
    plain = 2 * math.log(2) - np.euler_gamma - float((np.log(k) * 0.5**k).sum())
    assert truth.zero_inflated_poisson(0.0) == pytest.approx(plain, abs=1e-7)
    assert truth.zero_inflated_poisson(0.15) < 0.85 * plain
    x = np.arange(-12, 12, 0.01)
    densities = np.stack([stats.norm.pdf(x, -1), stats.norm.pdf(x, 1)])
    direct = float((densities / 2 * np.log(densities / densities.mean(0))).sum() * 0.01)
    assert truth.two_normals_label(1.0) == pytest.approx(direct, abs=1e-7)


def test_zero_inflation_equals_a_plain_double_sum():
    x = (np.arange(200_000) + 0.5) * 2e-4
    weights = np.exp(-x) * 2e-4
    table = 0.85 * stats.poisson.pmf(np.arange(60)[:, None], x) + 0.15 * (np.arange(60)[:, None] == 0)
    marginal = (table * weights).sum(1, keepdims=True)
    ratio = np.log(np.maximum(table, 1e-300) / marginal)
    assert truth.zero_inflated_poisson(0.15) == pytest.approx(float((table * ratio * weights).sum()), abs=1e-6)


def test_channels_by_the_formulas_of_the_textbook():
    named = tasks("discrete")
    assert named["symmetric-channel-0.11"].mi == pytest.approx(math.log(2) - truth.binary_entropy(0.11), abs=1e-12)
    assert named["erasure-channel-0.25"].mi == pytest.approx(0.75 * math.log(2), abs=1e-12)
    assert named["noisy-typewriter-26"].mi == pytest.approx(math.log(13), abs=1e-12)
    for matrix in (symmetric_channel(0.2), erasure_channel(0.3), noisy_typewriter(5)):
        assert torch.allclose(matrix.sum(1), torch.ones(len(matrix), dtype=torch.float64))


def test_a_channel_draws_its_transition_probabilities():
    matrix = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.0, 0.5, 0.5]], dtype=torch.float64)
    x, y = channel("mine", matrix, "own").sample(30_000)
    counts = torch.zeros(3, 3, dtype=torch.float64).index_put_((x, y), torch.ones(30_000, dtype=torch.float64), accumulate=True)
    assert torch.allclose(counts / counts.sum(1, keepdim=True), matrix, atol=0.02)
    assert counts[2, 0] == 0


def test_normal_and_student_samples_follow_their_law():
    x, y = CLASSIC["two-pairs-3x3"].sample(40_000)
    found = torch.corrcoef(torch.cat([x, y], 1).T)
    expected = torch.eye(6, dtype=torch.float64)
    expected[0, 3] = expected[3, 0] = expected[1, 4] = expected[4, 1] = 0.8
    assert torch.allclose(found, expected, atol=0.025)
    x, y = CLASSIC["student-2x2-dof2"].sample(5_000)
    assert stats.kstest(x[:, 0].numpy(), stats.t(2).cdf).pvalue > 1e-3
    # |(x, y)|^2 / d of a t vector is F distributed: the four columns share one scale
    assert stats.kstest(((x**2).sum(1) + (y**2).sum(1)).numpy() / 4, stats.f(4, 2).cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", ["crossed-lines", "blocks", "inliers-5x5", "half-discrete"])
def test_correlation_alone_does_not_explain_these(name):
    """What the normal formula gives for them is far from their truth: the catalogue is not made of normals in disguise."""
    x, y = tasks()[name].sample(20_000)
    both = torch.cat([x, y], 1)
    assert abs(truth.normal(torch.cov(both.T), x.shape[1]) - tasks()[name].mi) > 0.1


@pytest.mark.parametrize("name", ["cdf", "half-cube", "asinh", "wiggly", "bimodal"])
def test_column_maps_rise(name):
    grid = torch.linspace(-4, 4, 2001, dtype=torch.float64)[:, None]
    for side in (MAPS[name].x, MAPS[name].y):
        assert bool((side(grid).diff(dim=0) > 0).all())


def test_bimodal_lands_on_its_mixture():
    x = bimodal(torch.randn(5_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), weight=0.3, low=0, high=5)

    def cdf(v):
        return 0.3 * stats.norm.cdf(v) + 0.7 * stats.norm.cdf(v - 5)

    assert stats.kstest(x[:, 0].numpy(), cdf).pvalue > 1e-3


def test_the_spiral_keeps_lengths_volume_and_can_be_unwound():
    x = torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turned = spiral(x, plane=(1, 2), speed=2.0)
    assert torch.allclose(turned.norm(dim=1), x.norm(dim=1))
    assert torch.allclose(spiral(turned, plane=(1, 2), speed=-2.0), x)
    jacobian = torch.func.jacrev(lambda v: spiral(v[None], plane=(1, 2), speed=2.0)[0])(x[0])
    assert float(jacobian.det()) == pytest.approx(1.0, abs=1e-9)


def test_maps_compose_in_order_and_keep_the_truth():
    base = CLASSIC["normal-1x1"]
    both = transformed(base, "cdf", "swiss-roll")
    assert (both.mi, both.dx, both.dy) == (base.mi, 2, 1)
    x, _ = both.sample(500)
    radius = x.norm(dim=1) * 21
    assert float(radius.min()) >= 1.5 * math.pi - 1e-9
    assert float(radius.max()) <= 4.5 * math.pi + 1e-9


def test_bad_requests_are_named():
    with pytest.raises(ConfigError, match="unknown map 'twist'"):
        transformed(CLASSIC["normal-1x1"], "twist")
    with pytest.raises(DataError, match="needs at least"):
        transformed(CLASSIC["normal-1x1"], "spiral")
    with pytest.raises(DataError, match="continuous columns"):
        transformed(tasks("discrete")["noisy-typewriter-26"], "cdf")
    with pytest.raises(ConfigError, match="unknown group"):
        tasks("everything")
    with pytest.raises(DataError, match="at least 1 sample"):
        CLASSIC["normal-1x1"].sample(0)
