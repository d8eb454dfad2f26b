"""What a dataset function returns, and the one place where data from outside are checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunescope import limits
from prunescope.types import DataError

Array = NDArray[Any]


@dataclass(frozen=True)
class RawData:
    """Samples as they came: `x_*` of shape (n, ...), `y_*` of shape (n,) with class numbers from 0.

    classes      number of labels; None = highest label + 1
    full_scale   the value of `x` that scale="unit" maps to 1 (255 for bytes)
    own_test     True where `x_test`, `y_test` are the set's own test part
    """

    x_train: Array
    y_train: Array
    x_test: Array | None = None
    y_test: Array | None = None
    classes: int | None = None
    class_names: tuple[str, ...] | None = None
    full_scale: float = 1.0
    notes: tuple[str, ...] = ()

    @property
    def own_test(self) -> bool:
        return self.x_test is not None

    def checked(self, name: str) -> RawData:
        """The same data with numeric samples and int64 labels, or a DataError that says what is wrong with them."""
        if (self.x_test is None) != (self.y_test is None):
            missing = "x_test" if self.x_test is None else "y_test"
            raise DataError(f"{name}: the test part needs both x_test and y_test, but {missing} is missing: give both or neither")
        train = _checked_pair(f"{name} (train)", self.x_train, self.y_train)
        if self.x_test is None or self.y_test is None:
            test: tuple[Array | None, Array | None] = (None, None)
        else:
            test = _checked_pair(f"{name} (test)", self.x_test, self.y_test)
            if test[0].shape[1:] != train[0].shape[1:]:
                raise DataError(
                    f"{name}: training samples have shape {train[0].shape[1:]} but test samples {test[0].shape[1:]}: "
                    "they must be equal"
                )
        labels = [y for y in (train[1], test[1]) if y is not None]
        classes = self.classes if self.classes is not None else int(max(y.max() for y in labels)) + 1
        if classes > limits.limit("classes"):
            raise limits.beyond("classes", f"{name}: a label is {classes - 1:,}, so that there would be as many classes", DataError)
        for y in labels:
            _check_range(name, y, classes)
        return replace(self, x_train=train[0], y_train=train[1], x_test=test[0], y_test=test[1], classes=classes)


def _checked_pair(name: str, x: Any, y: Any) -> tuple[Array, Array]:
    x, y = _samples(name, x), _labels(name, y)
    if len(x) != len(y):
        raise DataError(f"{name}: {len(x):,} samples but {len(y):,} labels: each sample needs exactly one label")
    return x, y


def _samples(name: str, values: Any) -> Array:
    x = _array(values)
    if x.dtype == object or x.dtype.kind not in "buif":
        raise DataError(f"{name}: samples are of type {x.dtype}: expected real numbers (integers, floats or booleans)")
    if x.ndim < 2 or x.size == 0:
        raise DataError(f"{name}: samples have shape {x.shape}: expected (n, features) or (n, channels, height, width), n >= 1")
    if x.dtype.kind == "f":
        _check_finite(name, x)
        if (largest := float(np.abs(x).max())) > float(np.finfo(np.float32).max):
            raise DataError(f"{name}: the largest value is {largest:.3g}, too large for float32: rescale the data")
    return x


def _labels(name: str, values: Any) -> Array:
    y = _array(values)
    if y.ndim != 1:
        raise DataError(
            f"{name}: labels have shape {y.shape}: expected (n,) class numbers; for one-hot rows pass y.argmax(1), for columns y[:, 0]"
        )
    if y.dtype.kind == "f":
        _check_finite(f"{name}, labels", y)
        odd = np.flatnonzero(y != np.round(y))
        if len(odd):
            raise DataError(f"{name}: labels must be whole class numbers, but label {odd[0]} is {y[odd[0]]:g}: number the classes from 0")
    elif y.dtype.kind not in "bui":
        raise DataError(f"{name}: labels are of type {y.dtype}: expected whole class numbers from 0 (np.unique(..., return_inverse=True))")
    return y.astype(np.int64)


def _array(values: Any) -> Array:
    """Arrays, nested lists and torch tensors (of any device, with or without gradient) as numpy arrays."""
    return np.asarray(values.detach().cpu()) if hasattr(values, "detach") else np.asarray(values)


def _check_finite(name: str, x: Array) -> None:
    wrong = ~np.isfinite(x)
    count = int(wrong.sum())
    if count:
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise DataError(
            f"{name}: {count:,} of {x.size:,} values are NaN or infinite, the first at index {where} ({x[where]}): "
            "mend or leave out these samples"
        )


def _check_range(name: str, y: Array, classes: int) -> None:
    wrong = np.flatnonzero((y < 0) | (y >= classes))
    if len(wrong):
        first = int(wrong[0])
        raise DataError(f"{name}: label {first} is {y[first]}: expected class numbers from 0 to {classes - 1}")
