"""Normal scores by packed sorting: against ranks taken one by one, with every kind of tie."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import ndtri

from prunescope.information import ranks
from prunescope.information.ranks import normal_scores, score_rows


def by_groups(column):
    """Scores of one column: the table in sorted order, averaged over equal values."""
    n = len(column)
    table = np.empty(n)
    table[np.argsort(column, kind="stable")] = ndtri(np.arange(1, n + 1) / (n + 1))
    groups = np.unique(column, return_inverse=True)[1]
    return (np.bincount(groups, table) / np.bincount(groups))[groups]


def columns(n, dtype):
    x = torch.randn(2, n, 8, dtype=dtype, generator=torch.Generator().manual_seed(n))
    x[..., 1] = (3 * x[..., 1]).round()
    x[..., 2] = 0
    x[..., 3] *= 1e-30
    x[..., 4] = torch.where(x[..., 4] > 0, 0.0, -0.0)
    x[..., 5] = 1 + x[..., 5] * (2e-15 if dtype == torch.float64 else 1e-7)  # differ in the last bits, which make room for the number
    x[..., 6] = x[..., 6].abs() * 1e30
    return x


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 2, 3, 50, 3000])
def test_scores_equal_ranks_taken_one_by_one(n, dtype):
    x = columns(n, dtype)
    found = normal_scores(x).numpy()
    for batch in range(2):
        for column in range(8):
            assert np.allclose(found[batch, :, column], by_groups(x[batch, :, column].numpy()), atol=1e-11), column


def test_the_number_of_columns_at_a_time_changes_nothing(monkeypatch):
    x = columns(200, torch.float32)
    whole = normal_scores(x)
    monkeypatch.setattr(ranks, "TOGETHER", 400)
    assert torch.equal(normal_scores(x), whole)


def test_variables_stand_below_each_other_and_half_precision_is_read():
    x, y = columns(40, torch.float32)[..., :3], columns(40, torch.float64)[..., 3:]
    rows = score_rows([x, y])
    assert rows.shape == (2, 8, 40)
    assert np.array_equal(rows[:, 3:].swapaxes(1, 2), normal_scores(y).numpy())
    half = torch.tensor([[1.0], [2.0], [2.0], [7.0]], dtype=torch.float16)
    assert math.isclose(float(normal_scores(half)[3]), 0.8416212335729143)
