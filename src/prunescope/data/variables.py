"""Variables from a file: named arrays of an npz, or named columns of a csv, for estimators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from prunescope.data.npz import array_names, read_npz
from prunescope.registry import unknown
from prunescope.types import DataError


def read_variables(path: str | Path, *names: str) -> list[Any]:
    """The variables called `names` in an npz (arrays by key) or csv (columns; "a,b" takes several together), each with n rows.

    Raises DataError for a file or name that is not there, a damaged file, object arrays (nothing is unpickled) and variables of
    different length.
    """
    place = Path(path)
    if not place.is_file():
        raise DataError(f"{place}: no such file; give an .npz with arrays or a .csv with columns")
    if place.suffix not in (".npz", ".csv"):
        raise DataError(f"{place}: expected a file ending in .npz or .csv")
    found = _from_npz(place, names) if place.suffix == ".npz" else _from_csv(place, names)
    lengths = {name: len(values) for name, values in zip(names, found, strict=True)}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{place}: {' and '.join(f'{name} has {n} rows' for name, n in lengths.items())}: expected as many of each")
    return found


def _from_npz(path: Path, names: tuple[str, ...]) -> list[Any]:
    arrays = read_npz(path, list(names))
    if missing := [n for n in names if n not in arrays]:
        raise DataError(f"{path}: " + unknown("array", missing[0], array_names(path)))
    if flat := [n for n in names if arrays[n].ndim == 0]:
        raise DataError(f"{path}: array {flat[0]!r} is a single value: expected one a row")
    return [arrays[name] for name in names]


def _from_csv(path: Path, names: tuple[str, ...]) -> list[Any]:
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{path}: cannot be read as a csv table: {error}") from error
    wanted = [[part.strip() for part in name.split(",")] for name in names]
    for column in (c for columns in wanted for c in columns):
        if column not in table.columns:
            raise DataError(f"{path}: " + unknown("column", column, [str(c) for c in table.columns]))
    return [table[columns] if len(columns) > 1 else table[columns[0]] for columns in wanted]
