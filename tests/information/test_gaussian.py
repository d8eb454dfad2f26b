import math

import numpy as np
import pytest
import torch

from prunescope.information import conditional_mutual_information, entropy, mutual_information
from prunescope.information.gaussian import canonical_correlations, normal_scores
from prunescope.types import EstimateError


def pair(n, d, rho, seed=0):
    a, b = torch.randn(2, n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return a, rho * a + math.sqrt(1 - rho**2) * b


def truth(d, rho):
    return -0.5 * d * math.log2(1 - rho**2)


@pytest.mark.parametrize("name", ["gaussian", "gaussian-copula", "cca"])
@pytest.mark.parametrize(("d", "rho"), [(1, 0.5), (3, 0.9), (10, 0.3)])
def test_normal_pairs_within_three_standard_errors(name, d, rho):
    estimate = mutual_information(*pair(4000, d, rho), name)
    assert abs(estimate.value - truth(d, rho)) < 3 * estimate.stderr


@pytest.mark.parametrize("name", ["gaussian", "gaussian-copula"])
def test_intervals_cover_and_the_bias_is_gone(name):
    estimates = [mutual_information(*pair(100, 3, 0.5, s), name) for s in range(200)]
    assert sum(e.interval[0] <= truth(3, 0.5) <= e.interval[1] for e in estimates) >= 180
    plain = [mutual_information(*pair(100, 3, 0.5, s), name, correct=False).value for s in range(200)]
    error, uncorrected = (np.mean(v) - truth(3, 0.5) for v in ([e.value for e in estimates], plain))
    assert abs(error) < (0.015 if name == "gaussian" else 0.03)  # ranks of 100 samples lose a little
    assert uncorrected > abs(error)


def test_correlation_of_one_column_by_hand():
    x, y = pair(200, 1, 0.7)
    r = np.corrcoef(x[:, 0], y[:, 0])[0, 1]
    assert math.isclose(mutual_information(x, y, "gaussian", correct=False, unit="nats").value, -0.5 * math.log(1 - r * r), rel_tol=1e-9)


def test_canonical_correlations_of_rotated_pairs():
    x, y = pair(500, 3, 0.8)
    plain, turned = canonical_correlations(x, y)[0], canonical_correlations(x @ torch.randn(3, 3, dtype=x.dtype), y)[0]
    torch.testing.assert_close(plain, turned, rtol=1e-8, atol=1e-10)


def test_scores_are_normal_quantiles_and_ties_share():
    scores = normal_scores(torch.tensor([[1.0], [2.0], [2.0], [7.0]]))[:, 0]
    assert scores[1] == scores[2] == 0.0
    assert math.isclose(scores[3], 0.8416212335729143)
    wide = normal_scores(torch.randn(5, 40, 3))
    torch.testing.assert_close(wide.mean(1), torch.zeros(5, 3, dtype=torch.float64), atol=1e-12, rtol=0)


def test_the_copula_sees_through_monotone_maps_and_the_plain_one_does_not():
    x, y = pair(3000, 1, 0.9)
    assert abs(mutual_information(x.sinh() ** 3, y.exp(), "gaussian-copula").value - truth(1, 0.9)) < 0.1
    assert mutual_information(x.sinh() ** 3, y.exp(), "gaussian").value < truth(1, 0.9) / 2


def test_what_they_cannot_see():
    x = pair(3000, 1, 0)[0]
    for name in ("gaussian", "gaussian-copula", "cca"):
        assert mutual_information(x, x**2, name).value < 0.05


def test_cca_keeps_only_pairs_that_carry_something():
    x, y = pair(300, 20, 0.0)
    y[:, 0] = x[:, 0] + 0.1 * y[:, 0]
    estimate = mutual_information(x, y, "cca")
    assert estimate.parameters["pairs"] == 1
    assert mutual_information(x, y, "gaussian", correct=False).value > estimate.value + 0.5


def test_labels_and_classes():
    """Two normal classes at +-2: I = 0.9 bit of the mixture; one shape for both classes is exact, here within the Gaussian bound."""
    y = torch.arange(2000) % 2
    x = 4.0 * y[:, None] + pair(2000, 1, 0)[0]
    value = mutual_information(x, y, "gaussian").value
    assert math.isclose(value, 0.5 * math.log2(1 + 4), abs_tol=0.05)  # log of (variance 1 + 4) over 1


def test_redundant_columns_do_not_count_twice():
    x, y = pair(500, 2, 0.6)
    twice = mutual_information(torch.cat([x, x @ torch.ones(2, 2, dtype=x.dtype)], 1), y, "gaussian")
    assert "degenerate" in twice.flags
    assert math.isclose(twice.value, mutual_information(x, y, "gaussian").value, rel_tol=1e-6)


def test_a_copy_reaches_the_ceiling():
    x = pair(100, 1, 0)[0]
    assert "saturated" in mutual_information(x, 3 * x, "gaussian").flags


def test_conditioning_on_the_common_cause():
    z, a = pair(5000, 1, 0)
    b = pair(5000, 1, 0, seed=1)[0]
    assert mutual_information(z + a, z + b, "gaussian").value > 0.15
    for name in ("gaussian", "gaussian-copula"):
        assert abs(conditional_mutual_information(z + a, z + b, z, name).value) < 0.02


def test_entropy_of_a_normal():
    estimate = entropy(3 * pair(5000, 2, 0)[0], "gaussian", unit="nats")
    assert abs(estimate.value - (math.log(2 * math.pi * math.e) + 2 * math.log(3))) < 0.05


def test_too_few_samples_are_named():
    with pytest.raises(EstimateError, match="reduce the columns"):
        mutual_information(*pair(20, 15, 0.5), "gaussian")


def test_kernel_density_of_a_correlated_pair():
    estimate = mutual_information(*pair(2000, 1, 0.8), "kernel-density")
    assert abs(estimate.value - truth(1, 0.8)) < 0.12
    assert "high-dimension" in mutual_information(*pair(100, 3, 0.8), "kernel-density").flags


def test_kernel_density_tiles_and_bad_width():
    x, y = pair(300, 1, 0.5)
    values = [mutual_information(x, y, "kernel-density", tile=t).value for t in (7, 300)]
    assert math.isclose(*values, rel_tol=1e-9)
    with pytest.raises(EstimateError, match="width"):
        mutual_information(x, y, "kernel-density", width="wide")
