"""Data: named sets, the user's own arrays and functions, and their preparation into train, validation and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from prunescope.data import arrays, digits, idx, noise, tishby  # noqa: F401 (importing them registers their datasets)
from prunescope.data.fetch import Availability, available, get
from prunescope.data.preparation import Preparation, prepare
from prunescope.data.raw import RawData
from prunescope.registry import datasets
from prunescope.types import ConfigError, Dataset

__all__ = ["Availability", "Preparation", "RawData", "available", "from_arrays", "get", "load"]


def load(
    name: str,
    *,
    seed: int = 0,
    directory: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
    classes: Sequence[int] | None = None,
    train_size: int | None = None,
    test_size: int | None = None,
    validation: float = 0.1,
    test: float | Literal["train"] | None = None,
    scale: Literal["unit", "raw", "standard"] = "unit",
    pca: int | None = None,
    flatten: bool = False,
    view: Literal["rows", "columns", "pixels"] | None = None,
    stratify: bool = True,
    split_seed: int | None = None,
) -> Dataset:
    """The dataset called `name` (or "module:function"), ready for training: x float32, y int64.

    seed, split_seed   decide generated data and the draws; `split_seed` follows `seed` unless set, so that replicates may share a split
    directory          searched before $PRUNESCOPE_DATA and the cache
    options            the dataset's own (`prunescope list datasets`)
    classes            only these, renumbered 0 to k - 1 in this order
    train_size         rows kept of the training part, BEFORE `validation` (a fraction of it) is taken out
    test               fraction of the rows (0.2) for sets without a test part of their own; "train" tests on the training rows (a fault
                       of published studies, and noted as one)
    scale              "unit": pixels in [0, 1]; "raw": as stored; "standard": mean 0, sd 1 per feature
    pca                number of components; both are fitted on train only
    flatten            (n, features) instead of (n, channels, height, width)
    view               images as sequences (n, steps, features): a step for each of the "rows", "columns" or "pixels"
    stratify           all draws keep the class shares
    """
    place = None if directory is None else Path(directory)
    how = Preparation(
        classes, test, train_size, test_size, validation, scale, pca, flatten, view, stratify, seed if split_seed is None else split_seed
    )
    entry = datasets.get(name)
    if entry.traits.get("own"):
        raw = arrays.from_function(entry, directory=place, seed=seed, options=dict(options or {}))
        return _finished(raw, how) if isinstance(raw, Dataset) else prepare(name, raw, how)
    return prepare(name, entry.function(**entry.arguments({"directory": place, "seed": seed}, options or {})), how)


def from_arrays(
    x: Any, y: Any, *, x_test: Any = None, y_test: Any = None, name: str = "arrays", full_scale: float | None = None, **how: Any
) -> Dataset:
    """A Dataset made of arrays or tensors: x of shape (n, ...), y of shape (n,) class numbers; `how` as in `load`.

    >>> import numpy as np
    >>> dataset = from_arrays(np.eye(10), np.arange(10) % 2, validation=0.25, test=0.2)
    >>> len(dataset.train), len(dataset.validation), len(dataset.test)
    (6, 2, 2)
    """
    given = {"x_train": x, "y_train": y, "x_test": x_test, "y_test": y_test}
    raw = arrays.from_parts(name, {key: value for key, value in given.items() if value is not None}, full_scale)
    try:
        preparation = Preparation(**how)
    except TypeError as error:
        raise ConfigError(f"from_arrays: {error}: expected keywords of prunescope.data.load") from error
    return prepare(name, raw, preparation)


def _finished(dataset: Dataset, how: Preparation) -> Dataset:
    """The user's finished Dataset as it is; settings that would change it are refused rather than ignored."""
    plain = Preparation(validation=how.validation, split_seed=how.split_seed)
    changed = [key for key in vars(plain) if getattr(how, key) != getattr(plain, key)]
    if changed:
        raise ConfigError(
            f"{dataset.name}: the function returned a finished Dataset, so {', '.join(changed)} cannot be applied: "
            "return (x, y) or RawData instead, or leave the setting out"
        )
    return dataset
