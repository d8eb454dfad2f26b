"""The test of elliptical copulas: it leaves those that fit alone and sees others; and the flags that rest on it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prunescope.data.synthetic import tasks
from prunescope.information import mutual_information
from prunescope.information.elliptical import fit_elliptical
from prunescope.information.misfit import misfit, not_normal
from prunescope.rng import numpy_generator


def result_of(name, n=1500, seed=0):
    x, y = (part.numpy() for part in tasks()[name].sample(n, seed=seed))
    return misfit(x, y, fit_elliptical(x, y), generator=numpy_generator(seed, "test"))


@pytest.mark.parametrize("name", ["normal-2x2", "student-2x2-dof2", "independent-5x5", "half-cube @ two-pairs-3x3"])
def test_a_copula_that_fits_is_left_alone(name):
    """12 draws each: one rejection in all of them has probability 1.2 %."""
    assert not any(result_of(name, seed=s).rejects for s in range(12))


@pytest.mark.parametrize("name", ["blocks", "galaxy-2x1", "ring-2x2", "sine-1x1", "clayton-1x1", "spiral @ cdf @ two-pairs-3x3"])
def test_others_are_seen(name):
    assert result_of(name, n=4000).rejects


def test_deviation_is_in_standard_errors():
    assert result_of("normal-1x1").deviation < result_of("normal-1x1").limit
    more, fewer = (result_of("sine-1x1", n=n).deviation for n in (6000, 1500))
    assert 1.5 < more / fewer < 2.7, "it grows with sqrt n"


def flags(x, y, name):
    return mutual_information(x, y, name).flags


def test_not_gaussian_is_said_by_those_that_assume_it():
    x, y = tasks()["normal-2x2"].sample(1000)
    for name in ("gaussian", "gaussian-copula", "cca"):
        assert "not-gaussian" not in flags(x, y, name)
    assert "not-gaussian" in flags(x.exp() ** 2, y.exp() ** 2, "gaussian"), "the columns' shapes move the value"
    assert "not-gaussian" not in flags(x.exp() ** 2, y.exp() ** 2, "gaussian-copula"), "ranks do not see them"
    bent = x**2 + 0.1 * y
    for name in ("gaussian", "gaussian-copula", "cca"):
        assert "not-gaussian" in flags(x, bent, name)
        assert mutual_information(x, bent, name, uncertainty=None).flags == ()
    assert "not-elliptical" in flags(x, bent, "elliptical-copula")
    assert "not-elliptical" not in flags(x, y, "elliptical-copula")
    student = tasks()["student-2x2-dof1"].sample(1000)
    assert "not-gaussian" in flags(*student, "cca")
    assert "not-elliptical" not in flags(*student, "elliptical-copula")


def test_too_few_rows_or_copies_of_columns_are_not_tested():
    few = torch.from_numpy(np.random.default_rng(0).normal(size=(30, 2)))
    assert not not_normal(few, few**2)
    copied = torch.from_numpy(np.random.default_rng(0).normal(size=(300, 1)))
    assert not not_normal(copied, copied)


def test_networks_say_when_they_learned_nothing_or_by_heart():
    x, y = tasks()["independent-1x1"].sample(400)
    assert "untrained" in flags(x, y, "mine")
    five = tasks()["five-pairs-5x5"]
    learned = mutual_information(*five.sample(300), "mine", unit="nats", start="zero", patience=20)
    assert learned.flags == ("overfit",)
    assert learned.value < five.mi < learned.interval[1], "what it knows by heart reads high: the truth lies between"
    nothing = mutual_information(*tasks()["two-pairs-25x25"].sample(200), "mine", start="zero")
    assert (nothing.value, nothing.interval) == (0.0, None), "a constant critic's bound is 0, whatever the truth"
    taught = mutual_information(*tasks()["sine-1x1"].sample(2000), "mine", unit="nats")
    assert "untrained" not in taught.flags
    assert taught.interval[0] < taught.value < taught.parameters["training_value"] + 0.1 <= taught.interval[1] + 0.1
