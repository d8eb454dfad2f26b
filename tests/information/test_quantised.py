import math

import numpy as np
import pytest
import torch

from prunescope.information import mutual_information, plane_points
from prunescope.types import EstimateError


def enumerated(codes, y):
    """H(T) and I(T; Y) in bits by counting tuples in Python."""
    n, rows = len(y), [tuple(r) for r in codes.tolist()]

    def h(values):
        return -sum(c / n * math.log2(c / n) for c in (values.count(v) for v in set(values)))

    labels = y.tolist()
    return h(rows), h(rows) + h(labels) - h(list(zip(rows, labels, strict=True)))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.int64])
def test_true_codes_equal_enumeration(dtype):
    g = torch.Generator().manual_seed(0)
    codes, y = torch.randint(0, 3, (200, 4), generator=g).to(dtype), torch.randint(0, 3, (200,), generator=g)
    points = {p.quantity: p for p in plane_points({"q": codes}, y, estimators=[{"name": "quantised", "bits": 2}])}
    h, i = enumerated(codes, y)
    assert math.isclose(points["entropy"].estimate.value, h, rel_tol=1e-12)
    assert math.isclose(points["mi_input"].estimate.value, h, rel_tol=1e-12)
    assert math.isclose(points["mi_label"].estimate.value, i, rel_tol=1e-12)
    assert points["entropy"].estimate.ceiling == pytest.approx(min(8, math.log2(200)))
    assert points["entropy"].resolution == "true codes of 2 bits"


def test_fake_quantised_activations_give_the_same_by_their_step():
    codes = torch.randint(-8, 8, (300, 2), generator=torch.Generator().manual_seed(1))
    y = torch.arange(300) % 3
    exact = plane_points({"q": codes}, y, estimators=["quantised"])
    fake = plane_points({"q": codes * 0.037}, y, estimators=[{"name": "quantised", "scale": 0.037}])
    assert [p.estimate.value for p in exact] == [p.estimate.value for p in fake]


def test_large_and_wide_codes_stay_exact():
    codes = torch.randint(-(2**31), 2**31 - 1, (100, 300), generator=torch.Generator().manual_seed(2))
    codes = torch.cat([codes, codes[:25]])
    value = {p.quantity: p.estimate.value for p in plane_points({"q": codes}, torch.arange(125) % 5, estimators=["quantised"])}
    assert math.isclose(value["entropy"], math.log2(125) - 25 * 2 / 125)


def test_as_a_plain_estimator():
    rng = np.random.default_rng(0)
    codes, y = rng.integers(0, 3, (100, 2)), rng.integers(0, 2, 100)
    assert math.isclose(mutual_information(codes, y, "quantised").value, enumerated(codes, y)[1], rel_tol=1e-9)


def test_bad_scale_is_named():
    with pytest.raises(EstimateError, match="scale"):
        mutual_information([0.1, 0.2], [0, 1], "quantised", scale=0.0)
