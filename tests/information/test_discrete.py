import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import gammaln, polygamma, psi

from prunescope.information import conditional_mutual_information, entropy, mutual_information
from prunescope.information.discrete import chao_shen_entropy, miller_madow_entropy, nsb_entropy, plugin_entropy, shrinkage_entropy

NAMES = ["plugin", "miller-madow", "shrinkage", "chao-shen", "nsb"]


def draws(p, n, seed=0):
    return np.random.default_rng(seed).choice(len(p), n, p=p)


def test_plugin_equals_exact_enumeration():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, 300), rng.integers(0, 3, 300)
    table = np.zeros((5, 3))
    np.add.at(table, (x, y), 1 / 300)
    exact = (table * np.log2(table / table.sum(1, keepdims=True) / table.sum(0))).sum()
    assert math.isclose(mutual_information(x, y, "plugin").value, exact, rel_tol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_binary_symmetric_channel(name):
    """I = 1 - H(0.1) = 0.531 bit; 20,000 uses show it to a hundredth."""
    rng = np.random.default_rng(1)
    x = rng.integers(0, 2, 20_000)
    estimate = mutual_information(x, x ^ (rng.random(20_000) < 0.1), name)
    truth = 1 + 0.1 * math.log2(0.1) + 0.9 * math.log2(0.9)
    assert abs(estimate.value - truth) < 0.012
    assert abs(estimate.value - truth) < 3 * estimate.stderr


def test_intervals_cover_as_often_as_they_say():
    """95 % intervals of the plug-in value, 200 tables: at least 90 % contain the truth, at dependence and at independence."""
    rng = np.random.default_rng(2)
    for flip in (0.2, 0.5):
        truth = 1 + sum(p * math.log2(p) for p in (flip, 1 - flip))
        hits = 0
        for _ in range(200):
            x = rng.integers(0, 2, 1000)
            low, high = mutual_information(x, x ^ (rng.random(1000) < flip), "plugin").interval
            hits += low <= truth <= high
        assert hits >= 180


@pytest.mark.parametrize("function", [miller_madow_entropy, chao_shen_entropy, lambda c: nsb_entropy(c, 100)])
def test_corrections_beat_the_plugin_where_cells_are_rare(function):
    p = np.full(100, 0.01)
    counts = [np.unique(draws(p, 80, s), return_counts=True)[1] for s in range(20)]
    plain = np.mean([plugin_entropy(c) for c in counts]) - math.log(100)
    better = np.mean([function(c) for c in counts]) - math.log(100)
    assert abs(better) < 0.6 * abs(plain)


def test_shrinkage_by_hand():
    """Counts 3, 1, two cells: lambda = (1 - 10/16) / (3 * (10/16 - 1/2)) = 1, so the target, uniform, wins outright."""
    assert math.isclose(shrinkage_entropy(np.array([3, 1]), 2), math.log(2))
    p = 0.5 * 0.5 + 0.5 * 0.75
    assert math.isclose(shrinkage_entropy(np.array([3, 1]), 2, 0.5), -p * math.log(p) - (1 - p) * math.log(1 - p))


def test_chao_shen_by_hand():
    """Counts 2, 1, 1: coverage 1/2, p = 1/4, 1/8, 1/8, each term divided by 1 - (1 - p)^4."""
    terms = [p * math.log(p) / (1 - (1 - p) ** 4) for p in (0.25, 0.125, 0.125)]
    assert math.isclose(chao_shen_entropy(np.array([2, 1, 1])), -sum(terms), rel_tol=1e-12)


def test_nsb_agrees_with_adaptive_quadrature():
    counts, support = np.array([5, 3, 1]), 6
    all_counts = np.array([5, 3, 1, 0, 0, 0])

    def weight(b):
        evidence = gammaln(support * b) - gammaln(9 + support * b) + (gammaln(all_counts + b) - gammaln(b)).sum()
        return math.exp(evidence + 10) * (support * polygamma(1, support * b + 1) - polygamma(1, b + 1))

    def mean(b):
        total = 9 + support * b
        return psi(total + 1) - ((all_counts + b) * psi(all_counts + b + 1)).sum() / total

    pieces = [(1e-9, 0.1), (0.1, 1), (1, 10), (10, 1e3), (1e3, 1e5)]
    top = sum(quad(lambda b: weight(b) * mean(b), *p)[0] for p in pieces)
    bottom = sum(quad(weight, *p)[0] for p in pieces)
    assert math.isclose(nsb_entropy(counts, support), top / bottom, rel_tol=2e-3)


def test_shrinkage_is_never_negative():
    rng = np.random.default_rng(3)
    assert all(mutual_information(rng.integers(0, 9, 30), rng.integers(0, 9, 30), "shrinkage").value >= 0 for _ in range(30))


@pytest.mark.parametrize("name", ["plugin", "miller-madow", "nsb"])
def test_conditional_information_of_an_exclusive_or(name):
    """z = x xor y: I(X; Y) = 0 and I(X; Y | Z) = 1 bit."""
    x, y = np.random.default_rng(4).integers(0, 2, (2, 5000))
    assert abs(mutual_information(x, y, name).value) < 0.003
    assert abs(conditional_mutual_information(x, y, x ^ y, name).value - 1) < 0.003


def test_entropy_of_a_biased_coin():
    estimate = entropy(draws([0.25, 0.75], 40_000))
    assert abs(estimate.value - (0.25 * 2 + 0.75 * math.log2(4 / 3))) < 0.01
    assert estimate.unit == "bits"


def test_labels_may_be_strings_booleans_or_tensors():
    for x in (["a", "b"] * 6, [False, True] * 6, torch.tensor([4, 9] * 6)):
        assert round(mutual_information(x, [0, 1] * 6, "plugin").value, 12) == 1.0
