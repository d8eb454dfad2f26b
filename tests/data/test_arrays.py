"""The user's own data: npz files and functions."""

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prunescope.data import RawData, from_arrays, load
from prunescope.types import ConfigError, DataError, Dataset, Split

X, Y = np.random.default_rng(0).random((40, 3)), np.arange(40) % 2


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("own_data")
    monkeypatch.setitem(sys.modules, "own_data", module)
    return module


def saved(folder: Path, **arrays: Any) -> dict[str, str]:
    np.savez(folder / "own.npz", **arrays)
    return {"path": str(folder / "own.npz")}


def test_npz_with_and_without_a_test_part(tmp_path: Path) -> None:
    plain = load("npz", options=saved(tmp_path, x=X, y=Y))
    assert [len(plain.train), len(plain.validation), len(plain.test)] == [29, 3, 8]
    parted = load("npz", options=saved(tmp_path, x_train=X, y_train=Y, x_test=X[:5], y_test=Y[:5]), validation=0)
    assert np.allclose(parted.test.x, X[:5], atol=1e-6)
    assert len(parted.train) == 40
    assert len(load("npz", options=saved(tmp_path, x_train=X, y_train=Y), test=0.5).test) == 20


def test_npz_is_also_searched_for_in_the_data_folders(tmp_path: Path) -> None:
    saved(tmp_path, x=X, y=Y)
    assert len(load("npz", directory=str(tmp_path), options={"path": "own.npz"}).test) == 8
    with pytest.raises(DataError, match=r"no file 'other\.npz' here or in .*check data\.path"):
        load("npz", directory=tmp_path, options={"path": "other.npz"})


def test_npz_needs_its_path_and_a_sensible_scale(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'npz' needs the option 'path'"):
        load("npz")
    with pytest.raises(ConfigError, match="option 'full_scale' of dataset 'npz': expected float"):
        load("npz", options={**saved(tmp_path, x=X, y=Y), "full_scale": "255"})
    with pytest.raises(DataError, match="full_scale is 0"):
        load("npz", options={**saved(tmp_path, x=X, y=Y), "full_scale": 0})


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "expected the arrays x and y, .* found x: rename"),
        ({"inputs": X, "labels": Y}, "found inputs, labels"),
        ({"x_train": X, "y_train": Y, "x_test": X}, "y_test is missing"),
        ({"x_train": X, "y_train": Y, "y": Y}, "found x_train, y, y_train"),
        ({"x": X, "y": Y.astype(object)}, "holds Python objects, which are never unpickled"),
        ({}, "found none"),
    ],
)
def test_npz_with_other_contents(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load("npz", options=saved(tmp_path, **arrays))


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 cut off"])
def test_npz_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "own.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"own\.npz: (not a readable npz file|holds Python objects)"):
        load("npz", options={"path": str(tmp_path / "own.npz")})


def test_npz_cut_off(tmp_path: Path) -> None:
    options = saved(tmp_path, x=X, y=Y)
    Path(options["path"]).write_bytes(Path(options["path"]).read_bytes()[:-200])
    with pytest.raises(DataError, match="not a readable npz file"):
        load("npz", options=options)


def test_a_single_array_is_no_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(DataError, match="holds a single array"):
        load("npz", options={"path": str(tmp_path / "x.npy")})


def test_own_function_may_return_four_forms(own: types.ModuleType) -> None:
    forms: list[Any] = [(X, Y), (X, Y, X[:4], Y[:4]), RawData(X, Y, notes=("mine",)), (torch.tensor(X), torch.tensor(Y))]
    for form in forms:
        own.make = lambda form=form: form
        data = load("own_data:make")
        assert data.train.x.shape[1:] == (3,)
        assert data.name == "own_data:make"
    own.make = lambda: from_arrays(X, Y, name="finished")
    assert load("own_data:make").name == "finished"


def test_own_function_gets_what_its_signature_names(own: types.ModuleType) -> None:
    seen: list[Any] = []

    def make(rows: int, *, seed: int) -> tuple[Any, Any]:
        seen.append((rows, seed))
        return X[:rows], Y[:rows]

    own.make = make
    assert len(load("own_data:make", seed=9, options={"rows": 20}).split("all")) == 20
    assert seen == [(20, 9)]
    with pytest.raises(ConfigError, match="needs the option 'rows'"):
        load("own_data:make")
    with pytest.raises(ConfigError, match="'row': did you mean 'rows'"):
        load("own_data:make", options={"row": 20})


def test_a_finished_dataset_cannot_be_prepared_again(own: types.ModuleType) -> None:
    own.make = lambda: from_arrays(X, Y)
    with pytest.raises(ConfigError, match="classes, pca cannot be applied"):
        load("own_data:make", pca=2, classes=[0, 1])


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ((X, Y, X), "returned a tuple of 3: expected"),
        (X, "returned a ndarray"),
        (None, "returned a NoneType"),
        ((X, Y[:3]), "40 samples but 3 labels"),
        ((X * np.nan, Y), "NaN"),
    ],
)
def test_own_function_that_returns_something_else(own: types.ModuleType, result: Any, message: str) -> None:
    own.make = lambda: result
    with pytest.raises(DataError, match=message):
        load("own_data:make")


def test_own_function_that_raises(own: types.ModuleType) -> None:
    own.make = lambda: {}["absent"]
    with pytest.raises(DataError, match="own_data:make raised KeyError: 'absent'"):
        load("own_data:make")


def test_a_finished_dataset_is_checked(own: types.ModuleType) -> None:
    good = Split(torch.rand(6, 2), torch.arange(6) % 2)
    for bad, message in (
        (Split(good.x.double(), good.y), "expected float32 with int64"),
        (Split(good.x, good.y + 1), "label 1 is 2"),
        (Split(good.x / 0, good.y), "infinite"),
        (Split(good.x, good.y[:-1]), "6 samples but 5 labels"),
        (Split(good.x[:0], good.y[:0]), "n >= 1"),
    ):
        own.make = lambda bad=bad: Dataset("d", good, good, bad, 2)
        with pytest.raises(DataError, match=message):
            load("own_data:make")


def test_unknown_datasets_and_modules_are_named() -> None:
    with pytest.raises(ConfigError, match="unknown dataset 'mnits': did you mean 'mnist'"):
        load("mnits")
    with pytest.raises(ConfigError, match="no module named 'no_such_module'"):
        load("no_such_module:make")


def test_noise_of_other_sizes() -> None:
    data = load("noise", options={"samples": 50, "features": 3, "label_seed": 1})
    assert len(data.split("all")) == 50
    assert data.train.x.shape[1:] == (3,)
    one, two = (load("noise", options={"label_seed": s}).split("all") for s in (1, 2))
    assert not torch.equal(one.x, two.x)
    labels = load("noise", options={"samples": 20000}).split("all").y.double()
    assert abs(labels.mean() - 0.5) < 4 * 0.5 / 20000**0.5
    with pytest.raises(ConfigError, match="samples >= 4"):
        load("noise", options={"samples": 1})
