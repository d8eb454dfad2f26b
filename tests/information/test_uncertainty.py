"""Intervals that carry bias: what extrapolation finds, when it speaks up, and how often the verb's intervals hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from prunescope.data.synthetic import tasks
from prunescope.information import conditional_mutual_information, entropy, mutual_information
from prunescope.information.gaussian import normal_scores
from prunescope.information.uncertainty import extrapolation, extrapolation_or_own, remaining
from prunescope.rng import numpy_generator
from prunescope.types import EstimateError


def drifting(limit, constant, rate):
    return lambda rows: limit + constant * len(rows) ** -rate


@pytest.mark.parametrize("rate", [1.0, 0.5, 0.25])
@pytest.mark.parametrize("constant", [3.0, -3.0])
def test_the_limit_of_a_drifting_value_is_found_exactly(rate, constant):
    compute = drifting(2.0, constant, rate)
    found = extrapolation(compute, 4096, seed=0, value=compute(range(4096)), rate=rate)
    bias = -constant * 4096**-rate
    assert found.stated["bias_nats"] == pytest.approx(bias, abs=1e-9)
    assert (found.below, found.above) == pytest.approx((max(0.0, -bias), max(0.0, bias)), abs=1e-9)
    assert found.flags == ("unconverged",)


def test_a_slower_rate_than_the_true_one_only_widens():
    compute = drifting(2.0, -3.0, 1.0)
    found = extrapolation(compute, 4096, seed=0, value=compute(range(4096)), rate=0.5)
    assert found.above > 3.0 / 4096
    assert found.below == 0.0


def test_a_settled_value_has_no_bias_and_no_flag():
    found = extrapolation(lambda rows: 1.5, 1000, seed=0, value=1.5, own=0.1, rate=0.5)
    assert (found.below, found.above, found.flags) == (pytest.approx(0.196), pytest.approx(0.196), ())
    away = extrapolation(lambda rows: 1.5, 1000, seed=0, value=1.5, own=0.1, rate=0.5, other=1.9)
    assert (away.below, away.above, away.flags) == (pytest.approx(0.196), pytest.approx(0.596), ("unconverged",))


def test_the_standard_error_of_a_mean_and_its_coverage():
    """The mean of 512 draws, 200 times: stderr is 1 / sqrt(512) on average, and Student's interval holds 0 in 95 % (+- 3.5 %)."""
    stderrs, hits = [], 0
    for seed in range(200):
        draws = torch.from_numpy(numpy_generator(seed, "means").standard_normal(512))
        value = float(draws.mean())
        found = extrapolation(lambda rows, d=draws: float(d[rows].mean()), 512, seed=seed, value=value, rate=1.0)
        stderrs.append(found.stderr)
        hits += -found.above <= value <= found.below
        assert "unconverged" not in found.flags, "a mean has the same value at every n"
    assert np.mean(np.square(stderrs)) == pytest.approx(1 / 512, rel=0.1)
    assert 183 <= hits <= 199


def test_too_few_samples_are_refused_or_said():
    with pytest.raises(EstimateError, match=r"at least 128 samples, got 100.*jackknife"):
        extrapolation(lambda rows: 0.0, 100, seed=0, value=0.0)
    found = extrapolation_or_own(lambda rows: 0.0, 100, value=0.0, own=0.5, rate=1.0, other=None)
    assert (found.below, found.above, found.flags) == (0.98, 0.98, ("few-samples",))
    assert "at least 128" in found.stated["unchecked"]
    assert remaining(1.0) == pytest.approx(1.0)


def pair(name, n=600, seed=0):
    return tasks()[name].sample(n, seed=seed)


def test_the_interval_is_about_the_plain_value_and_none_asks_for_nothing():
    x, y = pair("frank-1x1")
    plain, checked = (mutual_information(x, y, "ksg", uncertainty=u, unit="nats") for u in (None, "auto"))
    assert plain.value == checked.value
    assert plain.interval is None
    assert plain.stderr < checked.stderr * 1.0001
    assert checked.interval[0] < checked.value < checked.interval[1]
    assert "extrapolation" in checked.parameters["uncertainty"]
    bits = mutual_information(x, y, "ksg")
    assert bits.interval[1] * math.log(2) == pytest.approx(checked.interval[1])


COVERED = [("ksg", "frank-1x1"), ("ksg", "uniform-noise-0.1"), ("ksg", "gamma-sum-1x1"), ("ksg", "normal-2x2"), ("ross", "gamma-classes-3"),
           ("plugin", "skewed-chain-12"), ("plugin", "random-table-8"), ("chao-shen", "z-channel")]  # fmt: skip


@pytest.mark.parametrize(("estimator", "name"), COVERED)
def test_intervals_hold_the_truth(estimator, name):
    """20 draws of 600: at least 17 intervals hold it (with a true share of 95 % fewer have probability 0.016, and samples are fixed)."""
    hits = 0
    for seed in range(20):
        found = mutual_information(*pair(name, seed=seed), estimator, unit="nats", seed=seed)
        hits += found.interval[0] <= tasks()[name].mi <= found.interval[1]
    assert hits >= 17


@pytest.mark.parametrize(
    ("estimator", "name"), [("ksg", "two-pairs-25x25"), ("ksg", "student-1x1-dof1"), ("kernel-density", "sine-1x1"), ("ksg", "staircase-4")]
)
def test_what_has_not_settled_says_so(estimator, name):
    assert "unconverged" in mutual_information(*pair(name, n=1000), estimator).flags


def test_entropies_and_conditional_information_have_such_intervals_too():
    x, y = pair("normal-1x1")
    found = entropy(x, unit="nats")
    assert found.interval[0] < 0.5 * math.log(2 * math.pi * math.e) < found.interval[1]
    given = conditional_mutual_information(x, y, torch.randn(600, 1, generator=torch.Generator().manual_seed(0)), unit="nats")
    assert given.interval[0] < tasks()["normal-1x1"].mi < given.interval[1]
    assert "extrapolation" in given.parameters["uncertainty"]


def test_counts_with_few_samples_a_cell_say_so():
    x, y = pair("random-table-8", n=150)
    assert "undersampled" in mutual_information(x, y, "plugin").flags
    assert "undersampled" in mutual_information(x, y, "gao-mixed").flags
    assert "undersampled" not in mutual_information(*pair("random-table-8", n=600), "plugin").flags
    assert "few-samples" in mutual_information(x[:100], y[:100], "plugin").flags


def test_high_dimension_is_a_matter_of_samples():
    x, y = pair("normal-2x2")
    assert "high-dimension" in mutual_information(x, y, "ksg", uncertainty=None, k=3).flags  # 600 < 3 * 4^4
    assert "high-dimension" not in mutual_information(x, y, "ksg", uncertainty=None, k=2).flags


def test_autos_interval_holds_the_doubt_between_methods():
    """A copula that passes its test at n = 200 need not be right: the neighbours' interval is inside that of `auto`."""
    chosen = 0
    for seed in range(6):
        x, y = pair("uniform-noise-0.75", n=200, seed=seed)
        found = mutual_information(x, y, "auto", unit="nats")
        near = mutual_information(normal_scores(x), normal_scores(y), "ksg", k=4, unit="nats")
        assert found.interval[0] <= near.interval[0] + 1e-9
        assert found.interval[1] >= near.interval[1] - 1e-9
        assert "methods" in found.parameters["uncertainty"]
        chosen += found.parameters["method"] == "elliptical-copula"
    assert chosen > 0


def test_autos_interval_in_many_columns_reaches_above_a_copula_that_fails():
    x, y = pair("spiral @ two-pairs-3x3", n=2000)
    found = mutual_information(x, y, "auto", unit="nats")
    assert "unreliable" in found.flags
    assert found.interval[0] <= tasks()["spiral @ two-pairs-3x3"].mi <= found.interval[1]
