"""The user's own data: an npz file, or a function "module:function"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from prunescope.data.locate import directories
from prunescope.data.npz import read_npz
from prunescope.data.raw import RawData
from prunescope.registry import Entry, datasets
from prunescope.types import DataError, Dataset, PrunescopeError, Split

FORMS = "x and y, or x_train, y_train and optionally x_test, y_test"


@datasets("npz", source="numpy.savez", needs=("path",))
def npz(*, directory: Path | None, seed: int, path: str | Path, full_scale: float | None = None) -> RawData:
    """Arrays of an .npz file under the names x and y, or x_train, y_train, x_test, y_test (the test part is optional).

    path         as it stands, else searched for in the data folders
    full_scale   the value that scale="unit" maps to 1; by default 255 for images of bytes, else 1
    """
    file = _existing(Path(path).expanduser(), directory)
    return from_parts(file.name, read_npz(file), full_scale)


def from_parts(name: str, parts: dict[str, Any], full_scale: float | None) -> RawData:
    """The raw data of named arrays; DataError where the names are not one of the two forms."""
    names = set(parts)
    if names == {"x", "y"}:
        train = (parts["x"], parts["y"])
    elif {"x_train", "y_train"} <= names <= {"x_train", "y_train", "x_test", "y_test"}:
        train = (parts["x_train"], parts["y_train"])
    else:
        raise DataError(f"{name}: expected the arrays {FORMS}, found {', '.join(sorted(names)) or 'none'}: rename them")
    bytes_of_images = getattr(train[0], "dtype", None) == np.uint8 and train[0].ndim >= 3
    scale = full_scale if full_scale is not None else (255.0 if bytes_of_images else 1.0)
    if not scale > 0:
        raise DataError(f"{name}: full_scale is {scale}: expected the positive value that stands for 1")
    note = f"{name}: arrays of the user's own" + (f"; {scale:g} stands for 1." if scale != 1 else ".")
    return RawData(*train, parts.get("x_test"), parts.get("y_test"), full_scale=scale, notes=(note,))


def _existing(path: Path, directory: Path | None) -> Path:
    candidates = [path, *(place / path for place in directories(directory))]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise DataError(f"npz: no file {str(path)!r} here or in {', '.join(str(c.parent) for c in candidates[1:])}: check data.path")


def from_function(entry: Entry, *, directory: Path | None, seed: int, options: dict[str, Any]) -> RawData | Dataset:
    """What the user's own function returns, as raw data or as the finished Dataset that it already is.

    It may return (x, y), (x_train, y_train, x_test, y_test), RawData or Dataset, and may take `seed` and `directory`.
    """
    arguments = entry.arguments({"directory": directory, "seed": seed}, options)
    try:
        result = entry.function(**arguments)
    except PrunescopeError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise DataError(f"{entry.name} raised {type(error).__name__}: {error}: mend the function") from error
    if isinstance(result, Dataset):
        return _checked_dataset(entry.name, result)
    if isinstance(result, RawData):
        return result
    if isinstance(result, tuple) and len(result) in (2, 4):
        names = ("x_train", "y_train", "x_test", "y_test")[: len(result)]
        return from_parts(entry.name, dict(zip(names, result, strict=True)), None)
    form = f"a tuple of {len(result)}" if isinstance(result, tuple) else f"a {type(result).__name__}"
    raise DataError(f"{entry.name} returned {form}: expected (x, y), (x_train, y_train, x_test, y_test), RawData or Dataset")


def _checked_dataset(name: str, dataset: Dataset) -> Dataset:
    import torch

    for part in ("train", "validation", "test"):
        split: Split = getattr(dataset, part)
        if len(split) == 0 and part == "validation":
            continue
        RawData(np.asarray(split.x.detach()), np.asarray(split.y), classes=dataset.classes).checked(f"{name} ({part})")
        if split.x.dtype != torch.float32 or split.y.dtype != torch.int64:
            raise DataError(f"{name}: {part} is {split.x.dtype} with labels {split.y.dtype}: expected float32 with int64 labels")
    return dataset
