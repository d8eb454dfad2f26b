import math

import numpy as np
import pytest
import torch

from prunescope.information import mutual_information
from prunescope.information.binning import binning
from prunescope.information.grid import cells, grid
from prunescope.types import EstimateError


def codes(x, **options):
    g = grid(x, **options)
    out = torch.empty(x.shape, dtype=torch.float32)
    g.codes(x, out)
    return out


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_saturated_values_open_no_bin_of_their_own():
    """float32 tanh is exactly +-1 from about 9 on, and rounding may step over: the last bins are closed."""
    x = torch.tanh(torch.tensor([[-50.0], [-9.1], [0.99], [9.1], [50.0]]))
    over = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0)).reshape(1, 1)
    assert codes(torch.cat([x, over, -over]), bins=30, range=(-1.0, 1.0)).flatten().tolist() == [0, 0, 26, 29, 29, 29, 0]


def test_fixed_range_agrees_with_digitize():
    x = torch.tanh(normal(500, 7))
    edges = np.linspace(-1, 1, 26)[1:-1]
    assert (codes(x, bins=25, range=(-1.0, 1.0)).numpy() == np.digitize(x.numpy().astype(float), edges)).mean() > 0.9999


def test_data_range_puts_the_extremes_into_the_first_and_last_bin():
    x = torch.tensor([[3.0, 5.0], [4.0, 7.0]])
    assert codes(x, bins=4).tolist() == [[0.0, 2.0], [1.0, 3.0]]
    assert codes(x, bins=2, per="column").tolist() == [[0.0, 0.0], [1.0, 1.0]]


def test_width_is_the_floor_of_the_quotient():
    x = normal(400, 3) * 5
    assert (codes(x, width=0.5).numpy() == np.floor(x.numpy() / 0.5)).all()


def test_quantile_bins_hold_equal_numbers_and_keep_ties_together():
    x = normal(400, 2)
    for j in range(2):
        counts = np.unique(codes(x, bins=8, range="quantile", per="column")[:, j], return_counts=True)[1]
        assert counts.tolist() == [50] * 8
    pooled = np.unique(codes(x, bins=8, range="quantile"), return_counts=True)[1]
    assert pooled.tolist() == [100] * 8
    zeros = torch.relu(normal(300, 1))
    assert len(np.unique(codes(zeros, bins=10, range="quantile")[zeros[:, 0] == 0])) == 1


def test_an_offset_of_10000_in_float32_loses_nothing():
    grain = (normal(1000, 3) * 64).round() / 64
    near, far = cells(grain[None])[0], cells((grain + 10_000)[None])[0]
    assert (near.ids == far.ids).all()


def test_value_equals_the_exact_enumeration_of_cells():
    x, y = normal(300, 2), torch.arange(300) % 3
    table = np.zeros((16, 3))
    for row, label in zip(codes(x, bins=4).numpy().astype(int), y, strict=True):
        table[row[0] * 4 + row[1], label] += 1 / 300
    ratio = table / table.sum(1, keepdims=True).clip(1e-300) / table.sum(0)
    exact = (table[table > 0] * np.log(ratio[table > 0])).sum()
    assert math.isclose(float(binning(x, y, bins=4).value), exact, rel_tol=1e-12)


def test_ceiling_and_saturation():
    x, y = normal(500, 30), torch.arange(500) % 2
    full = mutual_information(x, y, "binning")
    assert "saturated" in full.flags  # every sample has a cell of its own
    assert math.isclose(full.value, 1.0)
    assert math.isclose(full.ceiling, 1.0)
    one = mutual_information(x[:, :1], normal(500, 1), "binning", bins=2)
    assert one.ceiling == 1.0
    assert one.flags == ()


def test_corrections_lower_the_plugin_bias():
    x, y = normal(400, 1), torch.randint(0, 4, (400,), generator=torch.Generator().manual_seed(3))
    plain, corrected = (float(binning(x, y, correction=c).value) for c in ("none", "miller-madow"))
    assert corrected < plain


@pytest.mark.parametrize(
    "options", [{"bins": 0}, {"range": (1.0, 1.0)}, {"range": "best"}, {"width": 0.0}, {"range": (0.0, math.inf)}, {"correction": "x"}]
)
def test_impossible_grids_are_named(options):
    with pytest.raises(EstimateError, match="expected"):
        binning(normal(20, 1), torch.arange(20) % 2, **options)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("options", [{"range": (-1.0, 1.0)}, {}, {"width": 0.1}, {"range": "quantile"}])
def test_numbers_that_are_not_finite_are_refused(bad, options):
    x = normal(20, 2)
    x[3, 1] = bad
    with pytest.raises(EstimateError, match="finite"):
        binning(x, torch.arange(20) % 2, **options)
