"""From raw data to a Dataset: filter, subset, split, scale, PCA. Everything that is fitted is fitted on the training part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from prunescope.data.raw import Array, RawData
from prunescope.data.splitting import draw, size_of
from prunescope.registry import unknown
from prunescope.rng import numpy_generator
from prunescope.types import ConfigError, DataError, Dataset, Split

TEST_FRACTION = 0.2
VIEWS = {"rows": (0, 2, 1, 3), "columns": (0, 3, 1, 2), "pixels": (0, 2, 3, 1)}  # axes of (n, c, h, w): steps first, then features
SAME_ROWS = "FAULT, kept on purpose: the test part is the training rows, so test figures say nothing about unseen data."


@dataclass(frozen=True)
class Preparation:
    """What is done to raw data, in the order of the fields; see `prunescope.data.load`."""

    classes: Sequence[int] | None = None
    test: float | Literal["train"] | None = None
    train_size: int | None = None
    test_size: int | None = None
    validation: float = 0.1
    scale: Literal["unit", "raw", "standard"] = "unit"
    pca: int | None = None
    flatten: bool = False
    view: Literal["rows", "columns", "pixels"] | None = None
    stratify: bool = True
    split_seed: int = 0

    def __post_init__(self) -> None:
        if self.scale not in ("unit", "raw", "standard"):
            raise ConfigError(unknown("scale", str(self.scale), ["unit", "raw", "standard"]))
        if self.view not in (None, *VIEWS):
            raise ConfigError(unknown("view", str(self.view), list(VIEWS)))
        if self.view is not None and (self.flatten or self.pca is not None):
            other = "flatten" if self.flatten else "pca"
            raise ConfigError(f'view = "{self.view}" and {other} are both set, and leave different shapes: set one of them')
        if not 0 <= self.validation < 1:
            raise ConfigError(f"validation = {self.validation}: expected a fraction of the training rows, 0 <= validation < 1")
        if isinstance(self.test, str) and self.test != "train":
            raise ConfigError(f'test = {self.test!r}: expected a fraction between 0 and 1, or "train"')
        if not isinstance(self.test, str | None) and not 0 < self.test < 1:
            raise ConfigError(f"test = {self.test}: expected a fraction of the rows, 0 < test < 1")
        for key in ("train_size", "test_size", "pca"):
            value = getattr(self, key)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ConfigError(f"{key} = {value}: expected a whole number of at least 1, or leave it out")


@dataclass(frozen=True)
class _Part:
    x: Array
    y: Array

    def rows(self, index: Array) -> _Part:
        return _Part(self.x[index], self.y[index])


def prepare(name: str, raw: RawData, how: Preparation) -> Dataset:
    """The Dataset made of `raw`; x float32, y int64, every draw decided by `how.split_seed`."""
    raw = raw.checked(name)
    notes = list(raw.notes)
    if how.classes is not None:
        raw = _only(name, raw, how.classes)
        notes.append(_class_note(raw, how.classes))
    train, test = _parted(name, raw, how)
    train = _subset(name, "train", train, how.train_size, how)
    test = train if how.test == "train" else _subset(name, "test", test, how.test_size, how)
    if how.test == "train":
        notes.append(SAME_ROWS)
    train, validation = _validation(name, train, how)
    notes += _size_notes(how, train)
    arrays, more = _transformed(name, [train.x, validation.x, test.x], raw.full_scale, how)
    splits = [Split(torch.from_numpy(x), torch.from_numpy(p.y)) for x, p in zip(arrays, (train, validation, test), strict=True)]
    return Dataset(name, splits[0], splits[1], splits[2], classes=raw.classes or 0, notes=tuple(notes + more))


def _only(name: str, raw: RawData, classes: Sequence[int]) -> RawData:
    """The rows of `classes`, relabelled 0 to k - 1 in the order given."""
    wanted, total = list(classes), raw.classes or 0
    if len(set(wanted)) < 2 or len(set(wanted)) != len(wanted):
        raise ConfigError(f"{name}: classes = {wanted} leaves nothing to tell apart: name at least two different classes")
    if wrong := [c for c in wanted if c not in range(total)]:
        raise ConfigError(f"{name}: no class {wrong[0]}: expected class numbers from 0 to {total - 1}")
    number = np.full(total, -1)
    number[wanted] = np.arange(len(wanted))
    parts: dict[str, Any] = {}
    for part in ("train", "test") if raw.own_test else ("train",):
        x, y = getattr(raw, f"x_{part}"), number[getattr(raw, f"y_{part}")]
        kept = y >= 0
        if not kept.any():
            raise DataError(f"{name}: no row of the {part} part is of classes {wanted}: choose classes that the data hold")
        parts |= {f"x_{part}": x[kept], f"y_{part}": y[kept]}
    return replace(raw, classes=len(wanted), **parts)


def _class_note(raw: RawData, classes: Sequence[int]) -> str:
    names = [raw.class_names[c] if raw.class_names else str(c) for c in classes]
    return f"Only the classes {', '.join(names)} are used, numbered from 0 in this order."


def _parted(name: str, raw: RawData, how: Preparation) -> tuple[_Part, _Part]:
    """Training rows and test rows: the set's own parts, or drawn where it has none."""
    everything = _Part(raw.x_train, raw.y_train)
    if how.test == "train":
        return everything, everything
    if raw.x_test is not None and raw.y_test is not None:
        if how.test is not None:
            raise ConfigError(f"{name} has a test part of its own, so test = {how.test} cannot be set: leave it out, or set test_size")
        return everything, _Part(raw.x_test, raw.y_test)
    size = size_of(name, "test", how.test if how.test is not None else TEST_FRACTION, len(everything.y))
    chosen, rest = _drawn(everything, size, "test", how)
    return everything.rows(rest), everything.rows(chosen)


def _subset(name: str, part: str, rows: _Part, size: int | None, how: Preparation) -> _Part:
    if size is None or size == len(rows.y):
        return rows
    if size > len(rows.y):
        raise DataError(f"{name}: {part}_size = {size:,} but the {part} part has {len(rows.y):,} rows: ask for at most that many")
    return rows.rows(_drawn(rows, size, f"{part} subset", how)[0])


def _validation(name: str, train: _Part, how: Preparation) -> tuple[_Part, _Part]:
    if how.validation == 0:
        return train, train.rows(np.arange(0))
    size = size_of(name, "validation", how.validation, len(train.y))
    chosen, rest = _drawn(train, size, "validation", how)
    return train.rows(rest), train.rows(chosen)


def _drawn(rows: _Part, size: int, purpose: str, how: Preparation) -> tuple[Array, Array]:
    return draw(rows.y, size, numpy_generator(how.split_seed, "split", purpose), stratify=how.stratify)


def _size_notes(how: Preparation, train: _Part) -> list[str]:
    missing = sorted(set(range(int(train.y.max()) + 1)) - set(train.y.tolist()))
    return [f"The training part has no sample of class {', '.join(map(str, missing))}."] if missing else []


def _transformed(name: str, arrays: list[Array], full_scale: float, how: Preparation) -> tuple[list[Array], list[str]]:
    """The arrays as float32 in the scale asked for, after PCA if any; the first one is what is fitted on."""
    fitted = how.scale == "standard" or how.pca is not None
    precision = np.float64 if fitted else np.float32
    unit = precision(1 if how.scale == "raw" else full_scale)
    results, notes = [np.divide(x, unit, dtype=precision) for x in arrays], []
    shapes = [x.shape for x in results]
    if fitted or how.flatten:
        results = [x.reshape(len(x), math.prod(x.shape[1:])) for x in results]
    if how.scale == "standard":
        results = _standardised(results)
        notes.append("Features are standardised (mean 0, standard deviation 1) by the training part.")
    if how.pca is not None:
        results, variance = _components(name, results, how.pca)
        notes.append(f"PCA to {how.pca} components, fitted on the training part, keeps {variance:.1%} of its variance.")
    elif not how.flatten:
        results = [x.reshape(shape) for x, shape in zip(results, shapes, strict=True)]
    if how.view is not None:
        results = [_sequences(name, x, how.view) for x in results]
        notes.append(f"Images are read as sequences: a step for each of the {results[0].shape[1]} {how.view}.")
    return [x.astype(np.float32, copy=False) for x in results], notes


def _sequences(name: str, x: Array, view: str) -> Array:
    """Images (n, c, h, w) as (n, steps, features); pixels count row by row.

    >>> _sequences("", np.arange(12).reshape(1, 1, 3, 4), "columns")[0].tolist()
    [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]
    """
    if x.ndim != 4:
        raise ConfigError(f'{name}: view = "{view}" needs images (channels, height, width), and samples have shape {x.shape[1:]}')
    moved = x.transpose(VIEWS[view])
    steps = moved.shape[1] * moved.shape[2] if view == "pixels" else moved.shape[1]
    return np.ascontiguousarray(moved.reshape(len(x), steps, math.prod(x.shape[1:]) // steps))


def _standardised(arrays: list[Array]) -> list[Array]:
    """Mean 0 and standard deviation 1 per feature, shape (n, features); a constant feature becomes 0."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(arrays[0])
    return [scaler.transform(x) if len(x) else x for x in arrays]


def _components(name: str, arrays: list[Array], count: int) -> tuple[list[Array], float]:
    """The leading principal components and the fraction of variance kept, by a solver that draws nothing."""
    from sklearn.decomposition import PCA

    samples, features = arrays[0].shape
    if count > min(samples, features):
        limit = f"{features} features" if features <= samples else f"{samples} training samples"
        raise ConfigError(f"{name}: pca = {count} but there are only {limit}: ask for at most {min(samples, features)}")
    if not np.ptp(arrays[0], axis=0).any():
        raise DataError(f"{name}: all training samples are equal, so PCA has no direction to find: leave pca out or mend the data")
    model = PCA(count, svd_solver="covariance_eigh" if samples >= features else "full").fit(arrays[0])
    results = [model.transform(x) if len(x) else np.empty((0, count)) for x in arrays]
    return results, float(model.explained_variance_ratio_.sum())
