"""Selection by rank: equal to a stable sort whatever the scores look like, in several streams, and without copies."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunescope.pruning import select
from prunescope.pruning.select import best_of_each, highest, smallest
from prunescope.pruning.streams import Elementwise, Whole
from prunescope.types import PruningError


def by_sorting(values: np.ndarray, removed: int) -> np.ndarray:
    kept = np.ones(len(values), dtype=bool)
    kept[np.argsort(values, kind="stable")[:removed]] = False
    return kept


def made(kind: str, n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(n, generator=generator)
    if kind == "few values":
        return (x * 3).round()
    if kind == "mostly zero":
        return x.abs() * (torch.rand(n, generator=generator) < 0.4)
    if kind == "already removed":
        return x.masked_fill(torch.rand(n, generator=generator) < 0.3, -torch.inf)
    if kind == "sorted":
        return x.sort().values
    if kind == "falling":
        return x.sort(descending=True).values
    if kind == "clumps":
        return torch.where(torch.rand(n, generator=generator) < 0.5, x * 1e-7, 1 + x * 1e-7)
    return x


KINDS = ("normal", "few values", "mostly zero", "already removed", "sorted", "falling", "clumps")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 10, 70_000, 600_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_a_stable_sort(kind, n, dtype):
    x = made(kind, n).to(dtype)
    k = n // 3
    for share in (0.0, 0.01, 0.3, 0.5, 0.9, 0.999, 1.0):
        removed = round(share * n)
        kept = highest({"a": Whole(x[:k]), "b": Whole(x[k:])}, removed)
        assert np.array_equal(torch.cat([kept["a"], kept["b"]]).numpy(), by_sorting(x.numpy(), removed)), share


def test_a_misleading_sample_changes_nothing(monkeypatch):
    x = made("normal", 300_000)
    for low, high in ((5.0, 6.0), (-6.0, -5.0), (0.2, 0.2), (-9.0, 9.0)):
        monkeypatch.setattr(select, "_bracket", lambda *_, low=low, high=high: (low, high))
        assert np.array_equal(highest({"": Whole(x)}, 200_000)[""].numpy(), by_sorting(x.numpy(), 200_000))


def test_clumps_that_no_bracket_divides_are_ranked_all_the_same(monkeypatch):
    monkeypatch.setattr(select, "ROUNDS", 1)
    x = made("few values", 400_000)
    monkeypatch.setattr(select, "_bracket", lambda *_: (-1.0, 1.0))
    assert np.array_equal(highest({"": Whole(x)}, 150_000)[""].numpy(), by_sorting(x.numpy(), 150_000))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0, 1.5, -2.0, float("inf"), float("-inf")]), min_size=1, max_size=40), st.data())
def test_few_values(values, data):
    removed = data.draw(st.integers(0, len(values)))
    kept = ~smallest(torch.tensor(values), removed)
    assert np.array_equal(kept.numpy(), by_sorting(np.array(values), removed))


def test_computed_scores_equal_stored_ones():
    weight, gradient = made("normal", 500_000).view(500, 1000), made("clumps", 500_000).view(500, 1000)
    earlier = torch.rand(500, 1000) < 0.8
    stored = (weight * gradient).abs().masked_fill(~earlier, -torch.inf).flatten()

    def criterion(weight, gradient):
        return (weight * gradient).abs()

    computed = Elementwise(criterion, weight, {"gradient": gradient}, kept=earlier)
    for removed in (1000, 250_000, 450_000):
        assert torch.equal(highest({"": computed}, removed)[""], highest({"": Whole(stored)}, removed)[""])


def test_refusals():
    with pytest.raises(PruningError, match="4 of 3 scores were asked for"):
        smallest(torch.zeros(3), 4)
    with pytest.raises(PruningError, match="1 of 2 scores are NaN"):
        smallest(torch.tensor([0.0, float("nan")]), 1)
    broken = torch.zeros(300_000)
    broken[7] = float("nan")
    with pytest.raises(PruningError, match=r"1 of 300000 scores of fc\.weight are NaN"):
        highest({"": Elementwise(torch.abs, broken, name="fc.weight")}, 10)
    with pytest.raises(PruningError, match="do not divide into groups of 4"):
        best_of_each(torch.zeros(6), 2, 4)


@pytest.mark.parametrize("pattern", [(2, 4), (1, 4), (4, 8), (0, 2)])
def test_n_of_m(pattern):
    scores = made("few values", 64)
    kept = best_of_each(scores, *pattern).view(-1, pattern[1])
    assert (kept.sum(1) == pattern[0]).all()
    groups = scores.view(-1, pattern[1])
    if pattern[0]:
        assert (groups.masked_fill(~kept, torch.inf).amin(1) >= groups.masked_fill(kept, -torch.inf).amax(1)).all()


@pytest.mark.parametrize("place", [0, 123_457, 299_999])
@pytest.mark.parametrize("removed", [10, 150_000, 299_990])
def test_a_single_nan_among_many_scores_is_found(place, removed):
    x = made("normal", 300_000)
    x[place] = float("nan")
    with pytest.raises(PruningError, match="1 of 300000 scores are NaN"):
        highest({"": Whole(x)}, removed)


def test_weights_in_another_memory_order_are_ranked_in_index_order():
    x = made("few values", 96_000).view(16, 60, 10, 10)
    swapped = x.contiguous(memory_format=torch.channels_last)
    plain, other = (highest({"": Elementwise(torch.abs, v)}, 40_000)[""] for v in (x, swapped))
    assert torch.equal(plain, other)
