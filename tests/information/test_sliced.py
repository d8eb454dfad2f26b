"""Sliced information: the average over directions, against that average of the closed form."""

from __future__ import annotations

import math

import pytest
import torch

from prunescope.data.synthetic import tasks
from prunescope.information.knn import ksg
from prunescope.information.sliced import sliced
from prunescope.types import EstimateError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_average_over_directions_of_a_normal():
    """x, y in the plane with y = 0.9 x + noise: a direction pair at angle t has correlation 0.9 cos t."""
    g = generator(1)
    x = torch.randn(1500, 2, dtype=torch.float64, generator=g)
    y = 0.9 * x + math.sqrt(1 - 0.81) * torch.randn(1500, 2, dtype=torch.float64, generator=g)
    angles = (torch.arange(1000) + 0.5) * math.pi / 1000
    exact = float((-0.5 * torch.log1p(-((0.9 * angles.cos()) ** 2))).mean())
    found = sliced(x, y, slices=80, generator=generator())
    assert float(found.value) == pytest.approx(exact, abs=3.5 * float(found.stderr))
    assert float(found.stderr) < 0.06


def test_one_column_each_is_plain_information():
    x, y = tasks()["normal-1x1"].sample(500)
    assert float(sliced(x, y, slices=4).value) == pytest.approx(float(ksg(x, y).value), abs=1e-6)


def test_labels_independence_seeds_and_batches():
    x, y = tasks()["two-normals-1.0"].sample(800)
    assert float(sliced(x, y, slices=3).value) == pytest.approx(0.337, abs=0.08)
    a, b = tasks()["independent-5x5"].sample(600)
    one, same, other = (float(sliced(a, b, slices=10, generator=generator(s)).value) for s in (0, 0, 1))
    assert abs(one) < 0.05
    assert one == same != other
    assert sliced(torch.stack([a, a]), torch.stack([b, b]), slices=3).value.shape == (2,)
    with pytest.raises(EstimateError, match="at least 2 slices, 1 came"):
        sliced(a, b, slices=1)
