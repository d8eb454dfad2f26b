import math

import numpy as np
import pytest
import torch

from prunescope.information import mutual_information, plane_points
from prunescope.information.kernel import kernel_sums
from prunescope.types import EstimateError


def channel_truth(variance):
    """I in nats of Y = +-1 through Gaussian noise, by integration over a grid."""
    grid = np.linspace(-12, 12, 40_001)
    density = [np.exp(-((grid - m) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance) for m in (-1, 1)]
    mixture = sum(density) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = [np.where(d > 0, d * np.log(d / mixture), 0.0) for d in density]
    return sum(t.sum() for t in terms) / 2 * (grid[1] - grid[0])


@pytest.mark.parametrize("variance", [0.1, 0.5, 2.0])
def test_a_binary_gaussian_channel(variance):
    """The mixture around +-1 IS the channel: the estimate must lie within its own error of the integral."""
    y = torch.arange(1000) % 2
    t = 2.0 * y[:, None] - 1.0
    estimate = mutual_information(t, y, "noisy", noise=variance, draws=10, unit="nats")
    assert abs(estimate.value - channel_truth(variance)) < 3.5 * estimate.stderr + 1e-6
    points = plane_points({"t": t}, y, x=t, estimators=[{"name": "noisy", "noise": variance, "draws": 10}], unit="nats")
    assert all(abs(p.estimate.value - channel_truth(variance)) < 0.02 for p in points)


def test_intervals_cover_the_value_that_many_draws_give():
    t = torch.tanh(torch.randn(200, 2, generator=torch.Generator().manual_seed(0)))
    y = (t[:, 0] > 0).long()
    sure = mutual_information(t, y, "noisy", noise=0.2, draws=300).value
    hits = 0
    for seed in range(60):
        low, high = mutual_information(t, y, "noisy", noise=0.2, seed=seed).interval
        hits += low <= sure <= high
    assert hits >= 53


@pytest.mark.parametrize("d", [2, 40])
def test_it_lies_between_the_pairwise_bounds(d):
    t = torch.tanh(torch.randn(300, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    y = torch.arange(300) % 3
    sums = kernel_sums(t, y, 0.3)
    points = plane_points({"t": t}, y, estimators=[{"name": "noisy", "noise": 0.3, "draws": 20}], unit="nats")
    value = {p.quantity: p.estimate.value for p in points}["mi_input"]
    assert sums.information("lower") - 0.02 < value < sums.information("upper") + 0.02


def test_float32_follows_float64_and_classes_far_apart_do_not_underflow():
    t = torch.randn(200, 3, generator=torch.Generator().manual_seed(2))
    y = torch.arange(200) % 2
    for scale in (1.0, 30.0):
        narrow, wide = (mutual_information((t * scale).to(k), y, "noisy", noise=0.3).value for k in (torch.float32, torch.float64))
        assert math.isfinite(narrow)
        assert math.isclose(narrow, wide, rel_tol=1e-4, abs_tol=1e-4)


def test_bad_settings_are_named():
    t, y = torch.randn(50, 1), torch.arange(50) % 2
    with pytest.raises(EstimateError, match="draw"):
        mutual_information(t, y, "noisy", draws=0)
    with pytest.raises(EstimateError, match="variance"):
        mutual_information(t, y, "noisy", noise=-1.0)
