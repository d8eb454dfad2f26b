import math
import resource

import numpy as np
import pytest
import torch

from prunescope.information import kernel, mutual_information
from prunescope.information.kernel import kernel_sums
from prunescope.information.plane import plane_points
from prunescope.types import EstimateError


def layer(n=400, d=5, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.tanh(torch.randn(n, d, generator=g, dtype=torch.float64)).to(dtype), torch.randint(0, 4, (n,), generator=g)


def direct(x, y, variance, factor):
    """The bound as it is written, one float64 sum over all pairs: I(X; T) and I(X; T | Y) in nats."""
    x = x.double().numpy()
    squares = ((x[:, None] - x[None]) ** 2).sum(-1)
    weights = np.exp(-squares / (factor * variance))
    inside = weights * (y[:, None] == y[None]).numpy()
    sizes = (y[:, None] == y[None]).sum(1).numpy()
    return -np.log(weights.mean(1)).mean(), -np.log(inside.sum(1) / sizes).mean()


@pytest.mark.parametrize("variance", [1e-3, 0.03, 1.0])
@pytest.mark.parametrize(("bound", "factor"), [("upper", 2), ("lower", 8)])
def test_bounds_equal_a_direct_float64_sum(variance, bound, factor):
    x, y = layer()
    sums = kernel_sums(x, y, variance, tile=150)
    whole, given = direct(x, y, variance, factor)
    assert math.isclose(sums.information(bound), whole, rel_tol=1e-9)
    assert math.isclose(sums.given_label(bound), given, rel_tol=1e-9)


@pytest.mark.parametrize("variance", [1e-3, 0.1])
def test_float32_is_close_and_tiles_do_not_matter(variance):
    x, y = layer(dtype=torch.float32)
    values = [kernel_sums(x, y, variance, tile=t).information("upper") for t in (64, 399, 1024)]
    assert max(values) - min(values) <= 1e-6 * values[0]
    assert math.isclose(values[0], direct(x, y, variance, 2)[0], rel_tol=1e-6)


def test_an_offset_of_10000_in_float32_loses_nothing():
    x = (layer()[0] * 256).round() / 256
    y = layer()[1]
    near, far = (kernel_sums(v.float(), y, 0.01).information("upper") for v in (x, x + 10_000))
    assert math.isclose(near, far, rel_tol=1e-9)


def test_two_distant_points_by_hand():
    """Two clusters far apart: I(X; T) = 1 bit under both bounds; with labels equal to the clusters I(T; Y) = 1 bit, against them 0."""
    t = torch.tensor([[0.0], [0.0], [50.0], [50.0]])
    for y, truth in (([0, 0, 1, 1], 1.0), ([0, 1, 0, 1], 0.0)):
        points = plane_points({"fc": t}, y, estimators=["kde", {"name": "kde", "bound": "lower"}])
        for p in points:
            assert math.isclose(p.estimate.value, 1.0 if p.quantity == "mi_input" else truth, abs_tol=1e-9)


def test_lower_never_exceeds_upper_and_both_fall_with_noise():
    x, y = layer()
    sums = [kernel_sums(x, y, v) for v in (1e-3, 1e-2, 1e-1, 1.0)]
    uppers, lowers = ([s.information(b) for s in sums] for b in ("upper", "lower"))
    assert all(low <= high for low, high in zip(lowers, uppers, strict=True))
    assert uppers == sorted(uppers, reverse=True)


def test_the_gaussian_truth_lies_between_the_rigorous_bounds():
    """Y = +-1, T = Y + noise: I(T; Y) is that of a binary-input Gaussian channel, here by numerical integration."""
    y = torch.arange(400) % 2
    estimate = mutual_information(2.0 * y[:, None] - 1.0, y, "kde", noise=0.5, unit="nats")
    low, high = estimate.parameters["rigorous"]
    grid = np.linspace(-8, 8, 20001)
    density = [np.exp(-((grid - m) ** 2)) / math.sqrt(math.pi) for m in (-1, 1)]
    mixture = sum(density) / 2
    truth = sum((d * np.log(d / mixture)).sum() for d in density) / 2 * (grid[1] - grid[0])
    assert low <= truth <= high


def test_relative_noise_does_not_follow_the_scale():
    x, y = layer()
    one, ten = (mutual_information(s * x, y, "kde", noise=0.1, relative=True).value for s in (1.0, 10.0))
    assert math.isclose(one, ten, rel_tol=1e-9)


@pytest.mark.parametrize("noise", [0.0, -1.0, math.nan])
def test_impossible_noise_is_named(noise):
    with pytest.raises(EstimateError, match="variance"):
        mutual_information(*layer(), "kde", noise=noise)


def test_few_near_pairs_and_many_are_the_same_arithmetic(monkeypatch):
    """Gathering the few pairs that matter must give what the dense tile gives."""
    x, y = layer(n=300, d=8, dtype=torch.float32)
    sparse = kernel_sums(x, y, 2e-3).information("lower")
    monkeypatch.setattr(kernel, "FEW", 1)
    assert kernel_sums(x, y, 2e-3).information("lower") == pytest.approx(sparse, rel=1e-12)
    assert sparse == pytest.approx(direct(x, y, 2e-3, 8)[0], rel=1e-9)


@pytest.mark.slow
def test_large_samples_stay_within_memory():
    """All pairs at once would be 12 GB."""
    x, y = layer(n=55_000, d=3, dtype=torch.float32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    value = mutual_information(x, y, "kde", noise=0.1).value
    assert 0 <= value < 0.1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # kB
