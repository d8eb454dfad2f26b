"""Records: one fact a row. The columns, their types, and how rows become a frame."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

VERSION = 1


class Record(NamedTuple):
    """One measured fact of one trial; `parameters` is JSON text, missing numbers are None."""

    metric: str
    value: float
    unit: str
    phase: str
    step: int = 0
    epoch: float = 0.0
    split: str = ""
    layer: str = ""
    n: int | None = None
    stderr: float | None = None
    estimator: str = ""
    parameters: str = "{}"


def parameters_text(parameters: Mapping[str, Any]) -> str:
    """Parameters as compact JSON with sorted keys, so that equal parameters are equal text."""
    return json.dumps(dict(parameters), sort_keys=True, separators=(",", ":"), default=str)


TRIAL_COLUMNS = ("experiment", "trial", "group", "variant", "criterion", "granularity", "allocation", "sparsity", "seed")
FACT_COLUMNS = Record._fields
COLUMNS = (*TRIAL_COLUMNS, *FACT_COLUMNS)
TYPES: dict[str, Any] = {
    **dict.fromkeys(("sparsity", "value", "stderr", "epoch"), "float64"),
    **dict.fromkeys(("seed", "step"), "int64"),
    "n": "Int64",
}


def frame(records: Sequence[Record], trial: Mapping[str, Any]) -> pd.DataFrame:
    """The records of one trial as a frame with all columns; `trial` gives the columns that name it."""
    if not records:
        return empty()
    names = {c: [trial[c]] * len(records) for c in TRIAL_COLUMNS}
    columns = {**names, **dict(zip(FACT_COLUMNS, zip(*records, strict=True), strict=True))}
    # each column is made of its type at once: `typed`, which takes tables from anywhere, takes longer than to write the file
    return pd.DataFrame({c: _column(values, TYPES.get(c)) for c, values in columns.items()})


def _column(values: Sequence[Any], kind: str | None) -> Any:
    if kind == "Int64":
        return pd.array(list(values), dtype="Int64")
    return np.array(values, dtype=kind) if kind else pd.Series(list(values), dtype=object)  # pandas makes strings of object arrays


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with every column of its type; text columns hold str."""
    for column in COLUMNS:
        kind = TYPES.get(column)
        table[column] = table[column].astype(kind) if kind else table[column].fillna("").astype(str).astype(object)
    return table


def empty() -> pd.DataFrame:
    """No records, with all columns."""
    return typed(pd.DataFrame({c: [] for c in COLUMNS}))
