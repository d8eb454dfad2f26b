"""Draws: exact counts, class shares, no row lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunescope.data.splitting import draw, shares, size_of
from prunescope.types import DataError


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=80), st.data(), st.booleans())
def test_a_draw_is_a_partition_of_the_rows(labels: list[int], data: st.DataObject, stratify: bool) -> None:
    y = np.array(labels)
    size = data.draw(st.integers(0, len(y)))
    chosen, rest = draw(y, size, np.random.default_rng(0), stratify=stratify)
    assert len(chosen) == size
    assert sorted([*chosen, *rest]) == list(range(len(y)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=6).filter(lambda c: sum(c) > 0), st.data())
def test_shares_are_within_one_row_of_proportional(counts: list[int], data: st.DataObject) -> None:
    size = data.draw(st.integers(0, sum(counts)))
    quota = shares(np.array(counts), size)
    assert quota.sum() == size
    assert (quota <= counts).all()
    assert np.abs(quota - np.array(counts) * size / sum(counts)).max() < 1


def test_stratified_counts_by_hand() -> None:
    y = np.repeat([0, 1, 2], [50, 30, 20])
    chosen, _ = draw(y, 10, np.random.default_rng(1), stratify=True)
    assert np.bincount(y[chosen]).tolist() == [5, 3, 2]


def test_both_parts_are_shuffled() -> None:
    chosen, rest = draw(np.zeros(1000, int), 500, np.random.default_rng(0), stratify=True)
    for rows in (chosen, rest):
        assert not np.array_equal(rows, np.sort(rows))
        assert abs(np.corrcoef(rows, np.arange(500))[0, 1]) < 0.2


@pytest.mark.parametrize(("fraction", "empty"), [(0.01, "validation"), (0.99, "training")])
def test_an_empty_part_is_refused(fraction: float, empty: str) -> None:
    with pytest.raises(DataError, match=f"the {empty} part is empty"):
        size_of("mine", "validation", fraction, 10)
