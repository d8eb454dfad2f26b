import math

import numpy as np
import pytest
import torch

from prunescope.information import conditional_mutual_information, entropy, mutual_information, plane_points
from prunescope.information.renyi import kernel_width
from prunescope.types import EstimateError


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gram(x, width):
    squares = ((x[:, None] - x[None]) ** 2).sum(-1).numpy()
    return np.exp(-squares / (2 * width**2)) / len(x)


def spectral(a, order):
    return math.log((np.linalg.eigvalsh(a).clip(0) ** order).sum()) / (1 - order)


@pytest.mark.parametrize("order", [0.5, 1.01, 2, 3])
def test_entropies_and_information_equal_the_definition(order):
    x, y = normal(60, 3), normal(60, 2, seed=1)
    a, b = gram(x, 1.5), gram(y, 1.5)
    assert math.isclose(entropy(x, "renyi", order=order, width=1.5, unit="nats").value, spectral(a, order), rel_tol=1e-9)
    direct = spectral(a, order) + spectral(b, order) - spectral(a * b * 60, order)
    assert math.isclose(mutual_information(x, y, "renyi", order=order, width=1.5, unit="nats").value, direct, rel_tol=1e-8)


def test_order_one_is_the_von_neumann_entropy_between_its_neighbours():
    x = normal(80, 2)
    below, at, above = (entropy(x, "renyi", order=o).value for o in (0.999, 1, 1.001))
    assert above < at < below


def test_labels_cut_the_matrix_into_blocks_with_the_same_spectrum():
    x, y = normal(90, 3), torch.arange(90) % 4
    a, b = gram(x, 1.0), (y[:, None] == y[None]).numpy() / 90
    direct = spectral(a, 1.01) + spectral(b, 1.01) - spectral(a * b * 90, 1.01)
    assert math.isclose(mutual_information(x, y, "renyi", width=1.0, unit="nats").value, direct, rel_tol=1e-8)


def test_extremes_by_hand():
    equal, far = torch.ones(8, 1), 100 * torch.arange(8.0)[:, None]
    assert math.isclose(entropy(far, "renyi", width=1.0).value, 3.0)
    points = plane_points({"a": equal, "b": far}, torch.arange(8) % 2, estimators=[{"name": "renyi", "width": 1.0}], chain=False)
    assert [round(p.estimate.value, 9) for p in points if p.quantity == "entropy"] == [0.0, 3.0]
    assert [round(p.estimate.value, 9) for p in points if p.quantity == "mi_label"] == [0.0, 1.0]


def test_widths():
    x = torch.tensor([[0.0], [1.0], [3.0]])
    assert kernel_width(x, "median") == 2.0
    assert math.isclose(kernel_width(x, "silverman"), 3 ** (-1 / 5) * math.sqrt(7 / 3))
    with pytest.raises(EstimateError, match="width"):
        kernel_width(x, "best")


def test_conditional_information_of_a_copy_given_itself_is_nothing():
    x = normal(50, 1)
    far = 1000 * torch.arange(50.0)[:, None]  # tells all samples apart: nothing is left for y to say
    assert abs(conditional_mutual_information(x, x, far, "renyi", width=1.0).value) < 1e-9


@pytest.mark.parametrize("order", [0, -1, math.nan])
def test_impossible_orders_are_named(order):
    with pytest.raises(EstimateError, match="order"):
        mutual_information(normal(20, 1), normal(20, 1), "renyi", order=order)


def test_too_many_samples_are_refused_with_the_way_out():
    with pytest.raises(EstimateError, match="order=2"):
        mutual_information(normal(6001, 1), torch.arange(6001) % 2, "renyi")


def test_the_input_is_decomposed_once_for_all_layers(monkeypatch):
    from prunescope.information import renyi

    calls = []
    kept = renyi._matrix_entropy
    monkeypatch.setattr(renyi, "_matrix_entropy", lambda *a: calls.append(1) or kept(*a))
    layers = {name: normal(40, 3, seed=s) for s, name in enumerate("abc")}
    plane_points(layers, torch.arange(40) % 2, x=normal(40, 5), estimators=["renyi"])
    assert len(calls) == 3 * 3 + 2  # each layer alone, with the labels, with the input; labels and input once
