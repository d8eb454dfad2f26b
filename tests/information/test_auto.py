"""The rule of `auto`: what it chooses, why, and that it says where it cannot be trusted."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from prunescope.data.synthetic import tasks
from prunescope.information.auto import auto
from prunescope.information.elliptical import fit_elliptical
from prunescope.information.residual import features, residual
from prunescope.information.validation import applies, check, tolerance
from prunescope.registry import estimators
from prunescope.types import EstimateError


def found_in(name, n=3000, seed=0):
    task = tasks()[name]
    return task, auto(*task.sample(n, seed=seed))


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("symmetric-channel-0.11", "miller-madow"),
        ("two-normals-1.0", "ross"),
        ("overlapping-uniforms-5", "ross"),
        ("normal-1x1", "elliptical-copula"),
        ("uniform-noise-0.1", "ksg"),
        ("swiss-roll @ cdf @ normal-1x1", "ksg"),
        ("blocks", "ksg"),
    ],
)
def test_choice_and_value_in_few_columns(name, method):
    task, found = found_in(name)
    assert found.detail["method"] == method
    assert abs(float(found.value) - task.mi) < max(tolerance(task.mi), 3 * float(found.stderr))
    assert "unreliable" not in found.flags


@pytest.mark.parametrize("name", ["student-2x2-dof1", "two-pairs-5x5", "staircase-4", "independent-5x5"])
def test_the_copula_in_many_columns(name):
    task, found = found_in(name)
    assert found.detail["method"] == "elliptical-copula"
    assert "nothing beyond it" in found.detail["why"]
    assert abs(float(found.value) - task.mi) < max(tolerance(task.mi), 3 * float(found.stderr))


def test_what_the_copula_misses_is_found_and_flagged():
    task, found = found_in("spiral @ two-pairs-3x3", n=4000)
    assert "unreliable" in found.flags
    assert found.detail["gain"] > 3 * found.detail["gain_stderr"]
    assert found.detail["copula"] + 0.2 < float(found.value) < task.mi + 0.05


def test_residual_is_nothing_for_the_right_copula_and_features_are_canonical():
    x, y = (part.numpy() for part in tasks()["normal-5x5"].sample(3000))
    fit = fit_elliptical(x, y)
    beyond = residual(x, y, fit, generator=torch.Generator().manual_seed(0))
    assert not beyond.rejects
    a, b = features(x, y, fit)
    assert a.shape == b.shape == (3000, 6)
    cross = np.corrcoef(a[:, :5].T, b[:, :5].T)[:5, 5:]
    assert np.abs(cross - np.diag(np.diag(cross))).max() < 0.02


def test_ties_labels_and_small_samples():
    _, mixed = found_in("half-discrete", n=1000)
    assert mixed.detail["method"] == "gao-mixed"
    assert set(mixed.flags) >= {"ties", "unreliable"}
    g = torch.Generator().manual_seed(0)
    rare = auto(torch.randint(40, (300,), generator=g), torch.randint(40, (300,), generator=g))
    assert rare.detail["method"] == "chao-shen"
    assert "undersampled" in rare.flags
    small = auto(torch.randn(100, 3, generator=g), torch.randn(100, 3, generator=g))
    assert "unreliable" in small.flags
    assert "unchecked" in small.detail["why"]
    tied_numbers = auto(torch.randint(3, (500, 1), generator=g).double(), torch.randint(2, (500,), generator=g))
    assert tied_numbers.detail["method"] == "gao-mixed"


def test_wide_columns_with_labels_use_a_bound():
    g = torch.Generator().manual_seed(1)
    labels = torch.randint(2, (1500,), generator=g)
    x = torch.randn(1500, 12, generator=g) + 1.5 * labels[:, None]
    found = auto(x, labels)
    assert found.detail["method"] == "mine"
    assert "high-dimension" in found.flags
    assert 0.5 < float(found.value) < math.log(2) + 0.05
    with pytest.raises(EstimateError, match="too few for any estimator"):
        auto(x[:50], labels[:50])


def test_strong_dependence_in_few_samples_is_doubted():
    """At n = 60 a dependence of 5 nats leaves neighbours no room: exp(5) > 60."""
    g = torch.Generator().manual_seed(0)
    x = torch.rand(60, 1, generator=g, dtype=torch.float64)
    y = torch.stack([(9 * x[:, 0]).sin(), (9 * x[:, 0]).cos()], 1) + 1e-4 * torch.randn(60, 2, generator=g, dtype=torch.float64)
    assert "unreliable" in auto(x, y).flags


def test_batches_and_columns_that_determine_each_other():
    x, y = tasks()["normal-1x1"].sample(400)
    both = auto(torch.stack([x, y]), torch.stack([y, x]))
    assert both.value.shape == (2,)
    assert len(both.detail["why"]) == 2
    wide = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(EstimateError, match="determine each other"):
        auto(wide, wide)


def test_the_check_reports_values_failures_and_coverage():
    few = {name: tasks()[name] for name in ("normal-1x1", "noisy-typewriter-26", "five-pairs-5x5")}
    frame = check(["auto", "ksg", "ksg-lnc", "miller-madow"], few, n=600, seeds=2)
    got = frame.set_index(["task", "estimator", "seed"])
    assert got.loc[("normal-1x1", "ksg", 0), "value"] != got.loc[("normal-1x1", "ksg", 1), "value"]
    assert "must exceed the 10 columns" in got.loc[("five-pairs-5x5", "ksg-lnc", 0), "failure"]
    assert not bool(got.loc[("five-pairs-5x5", "ksg", 0), "inside"])
    assert bool(got.loc[("noisy-typewriter-26", "miller-madow", 0), "inside"])
    assert ("normal-1x1", "miller-madow", 0) not in got.index
    row = got.loc[("normal-1x1", "auto", 0)]
    assert row["covered"] == (row["low"] <= row["truth"] <= row["high"])
    assert applies(estimators.get("ross"), tasks()["overlapping-uniforms-5"])


@pytest.mark.slow
def test_every_third_of_the_53_tasks_is_inside_or_called_unreliable():
    """All of them, three seeds and every other estimator: benchmarks/mi_accuracy.py."""
    continuous = dict(list(tasks("continuous").items())[::3])
    frame = check(["auto"], continuous, n=10_000)
    assert len(frame) == 18
    assert frame["inside"].sum() >= 16
    assert frame["error"].max() < 0.1
    silent = frame[~frame["inside"].astype(bool) & ~frame["flags"].str.contains("unreliable")]
    assert len(silent) == 0, "wrong in silence: " + ", ".join(silent["task"])
