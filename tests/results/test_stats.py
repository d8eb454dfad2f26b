"""Truths of the statistics: coverage, hand-checked pairs, and what must never be invented."""

import numpy as np
import pandas as pd
import pytest

from prunescope.results import stats
from prunescope.types import DataError


def records(rows):
    """A records frame from (trial, variant, sparsity, seed, metric, value) tuples at phase final, split test."""
    frame = pd.DataFrame(rows, columns=["trial", "variant", "sparsity", "seed", "metric", "value"])
    return frame.assign(group="", phase="final", split="test", layer="", epoch=np.nan, estimator="", n=100)


def accuracies(values, variant="a", sparsity=0.5):
    return [(f"{variant}{sparsity}{s}", variant, sparsity, s, "accuracy", v) for s, v in enumerate(values)]


@pytest.mark.parametrize(("n", "least"), [(5, 0.9), (10, 0.93), (30, 0.935)])
def test_interval_of_the_mean_covers_normal_data(n, least):
    draws = np.random.default_rng(1).normal(3.0, 2.0, (n, 3000))
    low, high = stats.bootstrap_interval(draws, resamples=4000)
    coverage = np.mean((low <= 3.0) & (high >= 3.0))
    assert least <= coverage <= 0.97


@pytest.mark.parametrize(("n", "least"), [(5, 0.92), (21, 0.92)])
def test_interval_of_the_median_covers_normal_data(n, least):
    draws = np.random.default_rng(2).normal(0.0, 1.0, (n, 2000))
    low, high = stats.bootstrap_interval(draws, statistic="median", resamples=2000)
    assert least <= np.mean((low <= 0) & (high >= 0)) <= 0.985


def test_plain_percentile_would_not_cover_with_five_seeds():
    """The reason for the correction: 0.025 tails cover about 84 %."""
    draws = np.random.default_rng(1).normal(size=(5, 2000))
    means = stats._counts(5, 2000, 0) @ draws / 5
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    assert np.mean((low <= 0) & (high >= 0)) < 0.88


def test_interval_is_a_function_of_the_values_alone():
    values = [3.0, 1.0, 4.0, 1.5, 5.0]
    assert stats.bootstrap_interval(values) == stats.bootstrap_interval(values[::-1])
    values = [v**1.3 for v in range(20)]
    assert stats.bootstrap_interval(values, seed=1) != stats.bootstrap_interval(values, seed=0)


def test_interval_agrees_with_an_explicit_resampling_loop():
    values = np.arange(12.0) ** 1.5
    generator = np.random.default_rng(0)
    medians = [np.median(generator.choice(values, 12)) for _ in range(20_000)]
    low, high = stats.bootstrap_interval(values, statistic="median", resamples=20_000)
    assert np.allclose([low, high], np.quantile(medians, [0.025, 0.975]), atol=1.0)


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_columns_are_intervals_of_their_own_and_nan_is_left_out(statistic):
    table = np.random.default_rng(0).normal(size=(6, 3))
    table[2, 1] = np.nan
    low, high = stats.bootstrap_interval(table, statistic=statistic)
    alone = stats.bootstrap_interval(np.delete(table[:, 1], 2), statistic=statistic)
    assert low.shape == (3,)
    assert (low[1], high[1]) == pytest.approx((float(alone[0]), float(alone[1])))
    assert (low < high).all()


@pytest.mark.parametrize("values", [[], [1.0], [1.0, np.nan], [np.nan, np.inf]])
def test_no_interval_is_invented(values):
    low, high = stats.bootstrap_interval(values)
    assert np.isnan(low)
    assert np.isnan(high)


def test_summary_by_hand():
    frame = stats.summarise(records(accuracies([0.8, 0.9, 1.0, np.nan])), "accuracy")
    row = frame.iloc[0]
    assert (row["n"], row["missing"]) == (3, 1)
    assert row[["mean", "median", "sd", "min", "max"]].tolist() == pytest.approx([0.9, 0.9, 0.1, 0.8, 1.0])
    assert 0.8 <= row["low"] < 0.9 < row["high"] <= 1.0


def test_a_single_seed_has_no_interval():
    row = stats.summarise(records(accuracies([0.7])), "accuracy").iloc[0]
    assert row["mean"] == 0.7
    assert row[["low", "high", "sd"]].isna().all()


def test_repeated_measures_are_not_replicates():
    twice = records(accuracies([0.8, 0.9]) * 2)
    twice["epoch"] = [0, 0, 1, 1]
    with pytest.raises(DataError, match="several; fix or group by epoch"):
        stats.summarise(twice, "accuracy")
    assert len(stats.summarise(twice, "accuracy", by=("variant", "epoch"))) == 2


def test_sparsity_that_was_not_asked_for_is_a_group():
    assert len(stats.summarise(records(accuracies([0.7, 0.8], sparsity=np.nan)), "accuracy")) == 1


def test_differences_are_paired_by_seed():
    rows = accuracies([0.9, 0.5, 0.7], "dense", 0.0) + accuracies([0.8, 0.4], "pruned", 0.9)
    frame = stats.paired_differences(records(rows), "accuracy", baseline="dense")
    assert frame["variant"].tolist() == ["pruned"]
    row = frame.iloc[0]
    assert row["n"] == 2
    assert row[["mean", "low", "high"]].tolist() == pytest.approx([-0.1] * 3)  # every pair differs by 0.1: no spread is left


def test_a_baseline_of_several_levels_is_compared_like_with_like():
    rows = [r for level, v in ((0.5, [0.9, 0.8]), (0.75, [0.7, 0.6])) for r in accuracies(v, "magnitude", level)]
    rows += accuracies([0.95, 0.9], "other", 0.5) + accuracies([0.5, 0.5], "other", 0.75) + accuracies([0.4, 0.4], "other", 0.9)
    frame = stats.paired_differences(records(rows), "accuracy", baseline="magnitude").set_index("sparsity")
    assert frame["variant"].tolist() == ["other", "other"], "the reference itself and levels without a partner are absent"
    assert frame["mean"].to_dict() == pytest.approx({0.5: 0.075, 0.75: -0.15})
    rows += accuracies([0.99, 0.99], "magnitude", 0.0)
    whole = stats.paired_differences(records(rows), "accuracy", baseline="magnitude")
    assert whole[(whole["variant"] == "other") & (whole["sparsity"] == 0.9)]["mean"].item() == pytest.approx(-0.59)


def test_without_a_baseline_sparsity_zero_of_the_variant_is_the_reference():
    rows = accuracies([0.9, 0.8], "w", 0.0) + accuracies([0.6, 0.6], "w", 0.9) + accuracies([0.1], "u", 0.9)
    frame = stats.paired_differences(records(rows), "accuracy")
    assert frame[["variant", "sparsity", "n"]].to_numpy().tolist() == [["w", 0.9, 2]]
    assert frame["mean"].iloc[0] == pytest.approx(-0.25)


def test_collapse_is_at_most_one_standard_deviation_above_chance():
    rows = accuracies([0.5, 0.54, 0.56, 0.95, np.nan])  # n = 100, chance 0.5: one standard deviation is 0.05
    rows += [(trial, variant, sparsity, seed, "chance", 0.5) for trial, variant, sparsity, seed, _, _ in rows]
    counts = stats.collapsed_counts(records(rows)).iloc[0]
    assert (counts["collapsed"], counts["judged"]) == (2, 4)


@pytest.mark.parametrize(("options", "word"), [({"statistic": "mode"}, "mode"), ({"level": 95}, "95"), ({"resamples": 5}, "resamples")])
def test_bad_options_are_named(options, word):
    with pytest.raises(DataError, match=word):
        stats.bootstrap_interval([1.0, 2.0], **options)
