"""What every registered dataset promises, whoever wrote it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prunescope.data import available, load
from prunescope.registry import datasets
from prunescope.types import ConfigError, Dataset

NAMES = datasets.names()
assert NAMES  # an empty registry would pass every test below


@pytest.fixture
def options(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """What the set cannot do without: a file for npz."""
    if "path" not in datasets.get(request.getfixturevalue("name")).needs:
        return {}
    x = np.random.default_rng(0).random((50, 4))
    np.savez(tmp_path / "own.npz", x=x, y=np.arange(50) % 2)
    return {"path": str(tmp_path / "own.npz")}


def loaded(name: str, options: dict[str, Any], **how: Any) -> Dataset:
    there = {row.name: row for row in available()}[name]
    if not there.found:
        pytest.skip(f"{name} is not on this machine: {there.where}")
    return load(name, options=options, **how)


@pytest.mark.parametrize("name", NAMES)
def test_says_what_it_is_and_where_from(name: str) -> None:
    entry = datasets.get(name)
    assert entry.summary
    assert entry.source
    assert {"directory", "seed"} <= set(entry.options)


@pytest.mark.parametrize("name", NAMES)
def test_parts_are_typed_in_range_and_cover_the_classes(name: str, options: dict[str, Any]) -> None:
    data = loaded(name, options)
    for part in (data.train, data.validation, data.test):
        assert len(part) == len(part.y) > 0
        assert part.x.dtype == torch.float32
        assert part.y.dtype == torch.int64
        assert torch.isfinite(part.x).all()
        assert part.x.shape[1:] == data.train.x.shape[1:]
        assert part.y.unique().tolist() == list(range(data.classes))
    assert data.train.x.min() >= 0
    assert data.train.x.max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_a_function_of_the_seed_alone(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(1)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 (to see that nobody uses it)
    first, again, other = (loaded(name, options, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first.train.x, again.train.x)
    assert torch.equal(first.validation.y, again.validation.y)
    assert not torch.equal(first.validation.x, other.validation.x)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


@pytest.mark.parametrize("name", NAMES)
def test_unknown_options_are_named(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"unknown option of dataset .*'no_such'"):
        load(name, options={**options, "no_such": 1})
