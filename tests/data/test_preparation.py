"""Filter, subset, split, scale and PCA, on arrays small enough to check."""

from typing import Any

import numpy as np
import pytest
import torch

from prunescope.data import from_arrays, load
from prunescope.types import ConfigError, DataError, Dataset


def rows(n: int = 100, features: int = 3, classes: int = 4) -> tuple[Any, Any]:
    """Samples whose first feature is their row number and whose label is that number modulo `classes`."""
    x = np.random.default_rng(0).normal(5, 3, (n, features))
    x[:, 0] = np.arange(n)
    return x, np.arange(n) % classes


def numbers(data: Dataset, *parts: str) -> list[int]:
    return sorted(int(v) for part in parts for v in data.split(part).x[:, 0])


def test_parts_are_disjoint_and_lose_nothing() -> None:
    data = from_arrays(*rows(), validation=0.25, test=0.2)
    assert [len(data.train), len(data.validation), len(data.test)] == [60, 20, 20]
    assert numbers(data, "train", "validation", "test") == list(range(100))
    for part in ("train", "validation", "test"):
        assert torch.equal(data.split(part).y, data.split(part).x[:, 0].long() % 4)  # labels stay with their samples
        assert data.split(part).y.bincount().tolist() == [len(data.split(part)) // 4] * 4


def test_split_seed_alone_decides_the_split() -> None:
    one, same, other = (load("digits", seed=seed, split_seed=split) for seed, split in ((0, 3), (1, 3), (0, 4)))
    assert torch.equal(one.test.x, same.test.x)
    assert not torch.equal(one.test.x, other.test.x)


def test_class_filter_renumbers_in_the_order_given() -> None:
    data = from_arrays(*rows(), classes=[3, 1], validation=0)
    assert data.classes == 2
    everything = data.split("all")
    assert set(zip((everything.x[:, 0].long() % 4).tolist(), everything.y.tolist(), strict=True)) == {(3, 0), (1, 1)}
    assert len(everything) == 50
    assert any("classes 3, 1" in note for note in data.notes)


def test_train_size_is_taken_before_validation() -> None:
    data = from_arrays(*rows(), train_size=40, test_size=8, validation=0.1)
    assert [len(data.train), len(data.validation), len(data.test)] == [36, 4, 8]


def test_own_test_part_is_kept_whole() -> None:
    x, y = rows()
    data = from_arrays(x, y, x_test=x[:8] + 1000, y_test=y[:8])
    assert numbers(data, "test") == list(range(1000, 1008))
    with pytest.raises(ConfigError, match="test part of its own"):
        from_arrays(x, y, x_test=x, y_test=y, test=0.3)


def test_same_rows_for_testing_is_called_a_fault() -> None:
    data = load("noise", test="train", validation=0.2)
    assert [len(data.train), len(data.validation), len(data.test)] == [800, 200, 1000]
    seen = {tuple(r) for r in torch.cat([data.train.x, data.validation.x]).tolist()}
    assert {tuple(r) for r in data.test.x.tolist()} == seen
    assert any(note.startswith("FAULT") for note in data.notes)
    assert not any(note.startswith("FAULT") for note in load("noise").notes)


def test_standard_scale_is_fitted_on_train_only() -> None:
    data = from_arrays(*rows(), scale="standard", validation=0.25)
    train = data.train.x.double().numpy()
    assert np.allclose(train.mean(0), 0, atol=1e-6)
    assert np.allclose(train.std(0), 1, atol=1e-6)
    assert not np.allclose(data.test.x.numpy().mean(0), 0, atol=1e-3)
    raw = from_arrays(*rows(), scale="raw", validation=0.25)
    mean, deviation = raw.train.x.numpy().mean(0), raw.train.x.numpy().std(0)
    assert np.allclose(data.test.x, (raw.test.x.numpy() - mean) / deviation, atol=1e-4)


def test_standard_scale_survives_large_offsets_and_constants() -> None:
    x, y = rows()
    x[:, 1] += 1e9
    x[:, 2] = 7
    train = from_arrays(x, y, scale="standard", validation=0).train.x
    assert train[:, 1].std() == pytest.approx(1, abs=0.01)
    assert (train[:, 2] == 0).all()


def test_images_keep_their_shape_when_standardised() -> None:
    assert load("digits", scale="standard").train.x.shape[1:] == (1, 8, 8)


def test_pca_is_the_eigenbasis_of_the_training_rows() -> None:
    data = from_arrays(*rows(features=5), pca=2, scale="raw", validation=0.25)
    raw = from_arrays(*rows(features=5), scale="raw", validation=0.25)
    train = raw.train.x.double().numpy()
    centred = train - train.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    top = vectors[:, np.argsort(-values)[:2]]
    test = (raw.test.x.double().numpy() - train.mean(0)) @ top
    assert np.allclose(np.abs(data.test.x.numpy()), np.abs(test), atol=1e-4)
    assert f"{values[-2:].sum() / values.sum():.1%}" in data.notes[-1]


def test_pca_with_fewer_rows_than_features() -> None:
    x = np.random.default_rng(0).normal(size=(12, 30))
    data = from_arrays(x, np.arange(12) % 2, pca=5, validation=0, test=0.25)
    assert data.train.x.shape == (9, 5)
    assert data.validation.x.shape == (0, 5)


def test_scales_of_digits() -> None:
    assert load("digits", scale="raw").train.x.max() == 16
    assert load("digits", scale="unit").train.x.max() == 1
    assert torch.equal(load("digits", scale="raw").train.x / 16, load("digits").train.x)
    assert load("digits", flatten=True).train.x.shape[1:] == (64,)


def test_integers_booleans_and_tensors_are_accepted() -> None:
    y = np.arange(20) % 2
    for x in (np.arange(40).reshape(20, 2), np.ones((20, 2), bool), torch.ones(20, 2, requires_grad=True)):
        assert from_arrays(x, y).train.x.dtype == torch.float32


def test_bytes_of_images_become_unit() -> None:
    x = np.full((20, 1, 2, 2), 255, np.uint8)
    y = np.arange(20) % 2
    assert from_arrays(x, y).train.x.max() == 1
    assert from_arrays(x, y, full_scale=1).train.x.max() == 255
    assert from_arrays(x, y, scale="raw").train.x.max() == 255
    assert from_arrays(x.reshape(20, 4), y).train.x.max() == 255  # not an image: left as it is


def test_a_class_missing_from_training_is_noted() -> None:
    x, y = rows(12)
    y[:] = [0, 2] * 6
    assert any("no sample of class 1" in note for note in from_arrays(x, y).notes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation": 1.0}, "0 <= validation < 1"),
        ({"validation": -0.1}, "0 <= validation < 1"),
        ({"test": 0.0}, "0 < test < 1"),
        ({"test": 1.5}, "0 < test < 1"),
        ({"test": "validation"}, 'or "train"'),
        ({"scale": "unti"}, "did you mean 'unit'"),
        ({"pca": 0}, "at least 1"),
        ({"train_size": 0.5}, "whole number"),
        ({"pca": 4}, "only 3 features"),
        ({"pca": 3, "train_size": 3, "validation": 0.4}, "only 2 training samples"),
        ({"classes": []}, "leaves nothing to tell apart"),
        ({"classes": [1]}, "leaves nothing to tell apart"),
        ({"classes": [1, 1]}, "leaves nothing to tell apart"),
        ({"classes": [0, 9]}, "no class 9: expected class numbers from 0 to 3"),
        ({"no_such": 1}, "no_such"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_arrays(*rows(), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_size": 81}, "train_size = 81 but the train part has 80 rows"),
        ({"test_size": 21}, "test_size = 21 but the test part has 20 rows"),
        ({"validation": 0.001}, "the validation part is empty"),
        ({"validation": 0.999}, "the training part is empty"),
        ({"test": 0.001}, "the test part is empty"),
    ],
)
def test_parts_that_cannot_be_made(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_arrays(*rows(), **settings)


def _with(x: Any, index: tuple[int, ...], value: float) -> Any:
    x = x.copy()
    x[index] = value
    return x


X, Y = rows(20)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (_with(X, (3, 1), np.nan), Y, r"1 of 60 values are NaN or infinite, the first at index \(3, 1\)"),
        (_with(_with(X, (5, 2), np.inf), (4, 0), -np.inf), Y, r"2 of 60 .* \(4, 0\)"),
        (_with(X, (0, 0), 1e300), Y, "too large for float32"),
        (X, Y[:-1], "20 samples but 19 labels"),
        (X, Y + 0.5, "label 0 is 0.5"),
        (X, _with(Y.astype(float), (2,), np.nan), "labels.*NaN"),
        (X, Y - 1, "label 0 is -1"),
        (X, Y.astype(str), "labels are of type"),
        (X, np.eye(4)[Y], "one-hot"),
        (X[:, 0], Y, r"shape \(20,\)"),
        (X[:0], Y[:0], "n >= 1"),
        (X.astype(str), Y, "samples are of type"),
        (X.astype(object), Y, "samples are of type object"),
        (X.astype(complex), Y, "samples are of type complex"),
        (np.ones((20, 3)), Y, "all training samples are equal"),
    ],
)
def test_faulty_arrays_are_named(x: Any, y: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_arrays(x, y, pca=2)


def test_faulty_test_parts_are_named() -> None:
    with pytest.raises(DataError, match="y_test is missing"):
        from_arrays(X, Y, x_test=X)
    with pytest.raises(DataError, match=r"shape \(3,\) but test samples \(2,\)"):
        from_arrays(X, Y, x_test=X[:, :2], y_test=Y)
    with pytest.raises(DataError, match="no row of the test part"):
        from_arrays(X, Y, x_test=X[Y < 2], y_test=Y[Y < 2], classes=[2, 3])


@pytest.mark.parametrize(("view", "shape"), [("rows", (3, 8)), ("columns", (4, 6)), ("pixels", (12, 2))])
def test_images_are_read_as_sequences(view: Any, shape: tuple[int, int]) -> None:
    """Steps first: a row holds its pixels of both channels, a pixel its channels."""
    x = np.arange(40 * 24).reshape(40, 2, 3, 4).astype(np.float32)
    data = from_arrays(x, np.arange(40) % 2, view=view, test=0.25, validation=0.2)
    assert data.train.x.shape[1:] == data.validation.x.shape[1:] == data.test.x.shape[1:] == shape
    one = data.train.x[0]
    c, i, j = 1, 2, 3
    pixel = float(one.min()) + c * 12 + i * 4 + j  # each image counts up from its first value
    place = {"rows": (i, c * 4 + j), "columns": (j, c * 3 + i), "pixels": (i * 4 + j, c)}[view]
    assert float(one[place]) == pixel
    assert any(view in note for note in data.notes)


def test_views_that_fit_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs images"):
        from_arrays(*rows(), view="rows")
    with pytest.raises(ConfigError, match="are both set"):
        load("digits", view="rows", flatten=True)
    with pytest.raises(ConfigError, match="unknown view 'row': did you mean 'rows'"):
        load("digits", view="row")  # type: ignore[arg-type]
