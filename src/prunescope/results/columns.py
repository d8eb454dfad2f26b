"""Records of many files as one table: text columns hold each different text once and small numbers that say where it stands.

A run of 10,000 trials has some 2,000,000 records of 14 text columns. As a Python string for every cell they take gigabytes, as
categories a fiftieth of that; `plain` makes the columns of strings that everybody can work with, equal ones being one object.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from prunescope import limits
from prunescope.results import schema
from prunescope.types import StoreError

VECTORS = 250  # of at most 2,048 rows each and of one file: what is held as strings at a time
_REQUIRED = ", ".join(f"'{c}'" for c in schema.COLUMNS)
TEXTS = tuple(c for c in schema.COLUMNS if c not in schema.TYPES)
NUMBERS = tuple(c for c in schema.COLUMNS if c in schema.TYPES)


def quoted(path: Path | str) -> str:
    """A path as it stands between the quotes of SQL."""
    return str(path).replace("'", "''")


_SUSPICIOUS = """
SELECT file_name, max(rows), sum(rows * bytes), list(path_in_schema)
FROM (SELECT file_name, path_in_schema, sum(num_values) AS rows, sum(total_uncompressed_size) AS bytes FROM parquet_metadata([{names}])
      GROUP BY file_name, path_in_schema)
GROUP BY file_name
HAVING max(rows) > {rows} OR sum(rows * bytes) > {text} OR count(*) FILTER (WHERE path_in_schema IN ({required})) < {columns}
"""
_LENGTHS = " + ".join(f'coalesce(strlen("{c}"::VARCHAR), 0)' for c in schema.COLUMNS if c not in schema.TYPES)
_TEXT = f"SELECT sum({_LENGTHS}) FROM "


def _check(connection: duckdb.DuckDBPyConnection, names: str) -> None:
    """Refuse a file without our columns (read with others, it would pass with nulls), or that few bytes on the disk make huge.

    Rows are counted by the metadata, which all files are asked for once; text, where they leave it possible, by adding it up.
    """
    most, text = limits.limit("rows"), limits.limit("text")
    query = _SUSPICIOUS.format(names=names, rows=most, text=text, required=_REQUIRED, columns=len(schema.COLUMNS))
    for name, rows, _, held in connection.execute(query).fetchall():
        if missing := [c for c in schema.COLUMNS if c not in held]:
            lacks = ", ".join(missing)
            raise StoreError(f"{name}: records without the columns {lacks}: written by something else or another version")
        if rows > most:
            raise limits.beyond("rows", f"{name}: {rows:,} records")
        found = (connection.execute(f"{_TEXT} read_parquet('{quoted(name)}')").fetchone() or (0,))[0] or 0
        if found > text:
            raise limits.beyond("text", f"{name}: {found:,} bytes of text")


def read_columns(paths: Sequence[Path], connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """The records in Parquet files, in order, text columns as categories in alphabetical order; checked for their columns.

    Raises StoreError that names the file, or the first of several of which one cannot be read.
    """
    if not paths:
        return packed(schema.empty())
    names = ", ".join(f"'{quoted(p)}'" for p in paths)
    texts = [f"coalesce(CAST(\"{c}\" AS VARCHAR), '') AS \"{c}\"" if c in TEXTS else f'"{c}" AS "{c}"' for c in schema.COLUMNS]
    place = paths[0] if len(paths) == 1 else f"{paths[0]} or one of {len(paths) - 1} more"
    try:
        _check(connection, names)
        connection.execute(f"SELECT {', '.join(texts)} FROM read_parquet([{names}])")
        columns = _Columns()
        while len(part := connection.fetch_df_chunk(VECTORS)):
            columns.add(part)
    except StoreError:
        raise
    except (duckdb.Error, OSError, ValueError) as error:  # ValueError: text that is no UTF-8
        raise StoreError(f"{place}: cannot be read as records: {str(error).splitlines()[0]}") from error
    try:
        return columns.table()
    except (ValueError, TypeError, OverflowError) as error:
        raise StoreError(f"{place}: a column of the records has the wrong type: {error}") from error


class _Columns:
    """Columns that grow part by part."""

    def __init__(self) -> None:
        self._texts: dict[str, dict[str, int]] = {c: {} for c in TEXTS}
        self._codes: dict[str, list[Any]] = {c: [] for c in TEXTS}
        self._numbers: dict[str, list[pd.Series]] = {c: [] for c in NUMBERS}

    def add(self, part: pd.DataFrame) -> None:
        """Some rows more."""
        for column, known in self._texts.items():
            # a damaged file may deny in its metadata that it holds nulls: the query then does not look for them
            codes, found = pd.factorize(part[column].to_numpy(dtype=object), use_na_sentinel=False)
            numbers = [known.setdefault(text if isinstance(text, str) else "", len(known)) for text in found]
            self._codes[column].append(np.array(numbers, dtype=np.int32)[codes])
        for column, parts in self._numbers.items():
            parts.append(part[column])

    def table(self) -> pd.DataFrame:
        """All rows, columns of the types that they should have."""
        if not self._codes[TEXTS[0]]:
            return packed(schema.empty())
        made: dict[str, Any] = {}
        for column in schema.COLUMNS:
            if column in self._numbers:
                made[column] = pd.concat(self._numbers.pop(column), ignore_index=True).astype(schema.TYPES[column])
                continue
            texts = np.array(list(self._texts[column]), dtype=object)
            order = np.argsort(texts)
            rank = np.empty(len(order), dtype=np.int32)
            rank[order] = np.arange(len(order), dtype=np.int32)
            made[column] = pd.Categorical.from_codes(rank[np.concatenate(self._codes.pop(column))], _index(texts[order]))
        return pd.DataFrame(made)


def _index(texts: Any) -> pd.Index:
    found: pd.Index = pd.Index(texts, dtype=object)
    return found


def packed(table: pd.DataFrame) -> pd.DataFrame:
    """The same records with text columns as categories in alphabetical order; those that are so already stay."""
    texts = [c for c in TEXTS if c in table and not isinstance(table[c].dtype, pd.CategoricalDtype)]
    return table.assign(**{c: _categories(table[c]) for c in texts}) if texts else table


def _categories(column: pd.Series) -> pd.Categorical:
    codes, texts = pd.factorize(column.to_numpy(dtype=object), sort=True)
    return pd.Categorical.from_codes(codes, _index(texts))


def table_of(run: Any) -> pd.DataFrame:
    """The records of a run with text columns as categories: compared, grouped and copied as small numbers."""
    return run.table if hasattr(run, "table") else packed(run.records)  # else something that was put together by hand


def each(column: pd.Series, function: Callable[[str], Any]) -> NDArray[Any]:
    """`function` of every text of a column, called once for each different one; what it returns is one object in all places."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, texts = column.cat.codes.to_numpy(), column.cat.categories.to_numpy(dtype=object)
    else:
        codes, texts = pd.factorize(column.to_numpy(dtype=object), use_na_sentinel=False)
    found = np.empty(len(texts), dtype=object)
    for place in np.unique(codes):  # of all the categories, some may be in no row
        found[place] = function(texts[place])
    return found[codes]


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """The same records with text columns of Python strings, equal ones one object; `table` itself where it has no categories."""
    if not any(isinstance(kind, pd.CategoricalDtype) for kind in table.dtypes):
        return table
    columns: dict[str, Any] = {}
    for name in table.columns:
        column = table[name]
        if isinstance(column.dtype, pd.CategoricalDtype):
            texts = column.cat.categories.to_numpy(dtype=object)
            columns[name] = pd.Series(texts[column.cat.codes.to_numpy()], index=table.index, dtype=object)
        else:
            columns[name] = column
    return pd.DataFrame(columns, index=table.index)
