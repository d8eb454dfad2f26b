"""Elliptical copulas: closed forms, likelihood, ranks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from prunescope.data.synthetic import tasks, truth
from prunescope.information.copula import elliptical_copula
from prunescope.information.elliptical import (
    Elliptical,
    Ratio,
    determinant_bias,
    fit_elliptical,
    half_ranks,
    scores,
    student_excess,
)
from prunescope.types import EstimateError


def test_ranks_and_scores():
    values = np.array([[5.0, 1.0], [3.0, 1.0], [4.0, 2.0]])
    assert half_ranks(values).tolist() == [[6, 3], [2, 3], [4, 6]]
    assert scores(half_ranks(values))[:, 0] == pytest.approx(stats.norm.ppf([0.75, 0.25, 0.5]))
    assert scores(half_ranks(values), 2.0)[:, 1] == pytest.approx(stats.t.ppf([0.375, 0.375, 0.75], 2))


def test_student_excess_is_the_tasks_closed_form():
    for dx, dy, dof in ((1, 1, 1.0), (3, 2, 2.5), (5, 5, 30.0)):
        assert student_excess(dx, dy, dof) == pytest.approx(truth.student_excess(dx, dy, dof), abs=1e-9)
    assert student_excess(2, 2, math.inf) == 0.0


def test_determinant_bias_against_simulation():
    random = np.random.default_rng(0)
    draws = [np.linalg.slogdet(np.cov(random.standard_normal((30, 4)).T))[1] for _ in range(4000)]
    assert determinant_bias(30, 4) == pytest.approx(np.mean(draws), abs=0.04)


@pytest.mark.parametrize("dof", [math.inf, 3.0])
def test_the_ratio_is_that_of_the_densities(dof):
    correlation = np.array([[1.0, 0.3, 0.6], [0.3, 1.0, 0.2], [0.6, 0.2, 1.0]])
    fit = Elliptical(correlation, dof, 2, 100)

    def log_density(point, matrix):
        law = stats.multivariate_normal(cov=matrix) if math.isinf(dof) else stats.multivariate_t(shape=matrix, df=dof)
        return law.logpdf(point)

    x, y = np.array([[0.5, -1.0], [2.0, 0.1]]), np.array([[0.8], [-1.5]])
    found = Ratio(fit)(torch.tensor(x).float(), torch.tensor(y).float())
    for i in range(2):
        for j in range(2):
            joint = log_density(np.r_[x[i], y[j]], correlation)
            exact = joint - log_density(x[i], correlation[:2, :2]) - log_density(y[j], correlation[2:, 2:])
            assert float(found[i, j]) == pytest.approx(exact, abs=1e-5)
    matched = Ratio(fit).matched(torch.tensor(x).float(), torch.tensor(y).float())
    assert torch.allclose(matched, found.diagonal(), atol=1e-5)


@pytest.mark.parametrize(
    "name", ["normal-3x3", "student-2x2-dof2", "asinh @ student-3x3-dof2", "half-cube @ two-pairs-3x3", "independent-5x5"]
)
def test_known_values(name):
    task = tasks()[name]
    found = elliptical_copula(*task.sample(4000))
    assert abs(float(found.value) - task.mi) < 3.5 * float(found.stderr) + 0.005
    assert ("student" in name) == (found.detail["dof"] < 100)


def test_tails_are_told_from_many_columns():
    """A normal sample of many columns must not pass for a heavy-tailed one."""
    assert math.isinf(fit_elliptical(*(part.numpy() for part in tasks()["normal-25x25"].sample(3000))).dof)


def test_monotone_maps_change_nothing_and_batches_loop():
    x, y = tasks()["normal-2x2"].sample(500)
    plain = elliptical_copula(x, y).value
    assert torch.equal(elliptical_copula(x**3, y.exp()).value, plain)
    both = elliptical_copula(torch.stack([x, y]), torch.stack([y, x]))
    assert both.value.tolist() == pytest.approx([float(plain)] * 2, abs=1e-9)


def test_refusals():
    x = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(EstimateError, match="determine each other"):
        elliptical_copula(x, x)
    with pytest.raises(EstimateError, match="need more than 5 samples, 5 came"):
        elliptical_copula(x[:5], x[5:10])
