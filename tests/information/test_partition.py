import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunescope.information import partition
from prunescope.information.partition import float_rows, group, group_keys, integer_rows, joint, joint_entropy, row_symbols, symbols
from prunescope.types import EstimateError


def same_groups(ids, rows):
    """Whether ids are equal exactly where the rows are."""
    reference = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
    pairs = np.unique(np.stack([ids, reference]), axis=1).shape[1]
    return pairs == len(np.unique(ids)) == len(np.unique(reference))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 40), st.sampled_from([1, 2, 30, 1000, 70_000, 2**27]), st.integers(0, 2**31))
def test_integer_rows_agree_with_comparing_rows(n, d, high, seed):
    rng = np.random.default_rng(seed)
    rows = rng.integers(-high, high + 1, (n, d))
    rows = rows[rng.integers(0, n, n)]  # repeats
    rows[:, -1] = np.where(rng.random(n) < 0.2, rows[:, -1] + 1, rows[:, -1])  # and rows that differ in one number
    assert same_groups(group_keys([integer_rows(torch.from_numpy(rows))]).ids[0], rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_float_rows_tell_one_last_bit_apart_and_join_the_zeros(dtype):
    x = torch.randn(200, 300, generator=torch.Generator().manual_seed(0), dtype=dtype)
    x = torch.cat([x, x[:50], x[:3]])
    x[-1, 7] = torch.nextafter(x[-1, 7], torch.tensor(9.0, dtype=dtype))
    x[0, 0], x[200, 0], x[250, 0] = 0.0, -0.0, 0.0
    assert int(group_keys([float_rows(x)]).sizes[0]) == 201


def test_random_rows_of_few_values_never_collide():
    """Binary rows that differ in a single place are the hardest for sums: all 2,000 neighbours of one row stay apart."""
    base = torch.randint(0, 2, (1, 2000), generator=torch.Generator().manual_seed(0))
    rows = base.repeat(2001, 1)
    rows[torch.arange(2000), torch.arange(2000)] ^= 1
    assert int(group_keys([integer_rows(rows)]).sizes[0]) == 2001


def test_a_collision_of_the_first_key_is_settled_by_the_others():
    keys = np.array([[[5, 1], [5, 2], [5, 1], [6, 1]]])
    groups = group(keys)
    assert groups.counts.tolist() == [2, 1, 1]
    assert groups.ids[0, 0] == groups.ids[0, 2] != groups.ids[0, 1]


def test_values_beyond_28_bits_are_split():
    rows = torch.tensor([[2**40, 1], [2**40, 1], [2**40 + 1, 1], [-(2**40), 1]])
    assert int(group_keys([integer_rows(rows)]).sizes[0]) == 3


def test_tile_size_and_reduced_matrix_precision_change_nothing(monkeypatch):
    rows = torch.randint(0, 30, (500, 64), generator=torch.Generator().manual_seed(0))
    whole = group_keys([integer_rows(rows)]).ids
    monkeypatch.setattr(partition, "TILE", 640)
    assert (group_keys([integer_rows(rows)]).ids == whole).all()
    torch.set_float32_matmul_precision("medium")
    try:
        assert int(group_keys([integer_rows(rows)]).sizes[0]) == int(whole.max()) + 1
    finally:
        torch.set_float32_matmul_precision("highest")


def test_batches_are_grouped_apart():
    groups = symbols(torch.tensor([[3, 3, 1], [2, 5, 9]]))
    assert groups.sizes.tolist() == [2, 3]
    np.testing.assert_allclose(groups.entropy(), [np.log(3) - 2 / 3 * np.log(2), np.log(3)])


def test_joint_entropy_is_that_of_the_joint_groups():
    rng = np.random.default_rng(0)
    a, b = symbols(torch.from_numpy(rng.integers(0, 9, (4, 100)))), symbols(torch.from_numpy(rng.integers(0, 5, (1, 100))))
    np.testing.assert_allclose(joint_entropy(a, b), joint(a, b).entropy())


def test_lengths_must_agree():
    with pytest.raises(EstimateError, match="got 3 and 2"):
        joint_entropy(symbols(torch.tensor([1, 2, 3])), symbols(torch.tensor([1, 2])))


def test_row_symbols_of_numbers():
    labels = row_symbols(torch.tensor([[0.5, 1.0], [2.0, 1.0], [0.5, 1.0]]))
    assert labels[0] == labels[2] != labels[1]
