"""Information planes as dense arrays: I(X;T) and I(T;Y) of every trial, layer and recorded moment, thinned where there are too many."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from prunescope.results import stats
from prunescope.types import LN2

Floats = NDArray[np.float64]

MOST_MOMENTS = 120
MOST_NUMBERS = 450_000  # numbers of one page: above this, moments are left out (never below FEWEST_MOMENTS)
FEWEST_MOMENTS = 12
ORDER = {"train": 0, "pruned": 1, "finetune": 2, "final": 3}
METRICS = ("mi_input", "mi_label", "entropy")


@dataclass(frozen=True)
class Planes:
    """Information in `unit` of every (estimate, trial, layer, moment), NaN where it was not recorded.

    trials      one row each: trial, group, variant, sparsity, seed
    estimates   one dict each: label, estimator, resolution, split, n, ceilings {"H(X)", "H(Y)", "log2 N"}
    moments     phase and epoch of each moment; `recorded` says how many there were before thinning
    x, y, h     I(X;T), I(T;Y), H(T), shape (estimates, trials, layers, moments); `saturated` marks x within 0.1 bit of its ceiling
    """

    trials: pd.DataFrame
    estimates: list[dict[str, Any]]
    layers: list[str]
    moments: pd.DataFrame
    recorded: int
    unit: str
    x: Floats
    y: Floats
    h: Floats
    saturated: NDArray[np.bool_]

    def median(self, estimate: int, trials: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Medians of I(X;T) and I(T;Y) over the chosen trials, shape (layers, moments), in `unit`; NaN where no trial has a value."""
        return nan_median(self.x[estimate, trials]), nan_median(self.y[estimate, trials])


def nan_median(values: Floats) -> Floats:
    """Median over the first axis, without NaN and without a warning where everything is NaN."""
    empty = ~np.isfinite(values).any(axis=0)
    return np.where(empty, np.nan, np.nanmedian(np.where(empty, 0.0, values), axis=0))


@lru_cache(maxsize=65536)
def parameters(text: str) -> dict[str, Any]:
    """The `parameters` of a record; what is no JSON object (damage, another program's file) gives none."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def planes(records: pd.DataFrame) -> Planes | None:
    """All information planes of a run, or None where no information was measured."""
    rows = records[records["metric"].isin(METRICS) & records["phase"].isin(["train", "finetune"])]
    if not (rows["metric"] == "mi_input").any():
        return None
    rows = rows.assign(estimate=_labels(rows), details=rows["parameters"].map(parameters))
    moments = _moments(rows)
    layers = _layers(rows)
    trials = rows[["trial", *stats.CELL, "seed"]].drop_duplicates("trial").reset_index(drop=True)
    labels = list(dict.fromkeys(rows["estimate"]))
    estimates = [_estimate(label, rows[rows["estimate"] == label]) for label in labels]
    shape = (len(labels), len(trials), len(layers), len(moments))
    keep = thin(len(moments), len(labels) * len(trials) * len(layers) * 2)
    place = (
        rows["estimate"].map({v: i for i, v in enumerate(labels)}).to_numpy(int),
        rows["trial"].map({v: i for i, v in enumerate(trials["trial"])}).to_numpy(int),
        rows["layer"].map({v: i for i, v in enumerate(layers)}).to_numpy(int),
        _moment_numbers(rows, moments),
    )
    values, unit = _in_one_unit(rows)
    flagged = rows["details"].map(lambda d: "saturated" in (d.get("flags") or ())).to_numpy(bool)
    flagged = flagged & (rows["metric"] == "mi_input").to_numpy()
    saturated = np.zeros(shape, dtype=bool)
    saturated[tuple(p[flagged] for p in place)] = True
    dense = []
    for metric in METRICS:
        array = np.full(shape, np.nan)
        of = (rows["metric"] == metric).to_numpy()
        array[tuple(p[of] for p in place)] = values[of]
        dense.append(array[..., keep])
    kept = moments.iloc[keep].reset_index(drop=True)
    x, y, h = dense
    return Planes(trials, estimates, layers, kept, len(moments), unit, x, y, h, saturated[..., keep])


def thin(count: int, each: int) -> NDArray[np.int64]:
    """Which of `count` moments to keep when each costs `each` numbers: first, last and evenly between, so that spacing stays as recorded.

    >>> thin(5, 10).tolist(), len(thin(1000, 10)), len(thin(1000, 100_000))
    ([0, 1, 2, 3, 4], 120, 12)
    """
    most = min(MOST_MOMENTS, max(FEWEST_MOMENTS, MOST_NUMBERS // max(1, each)))
    if count <= most:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, most).round().astype(np.int64))


def _labels(rows: pd.DataFrame) -> pd.Series:
    """The estimator's name, with the split or the resolution added only where the name alone would mix several estimates."""
    label = rows["estimator"].astype(str)
    for column in ("split", "resolution"):
        key = ["trial", "phase", "epoch", "layer", "metric"]
        if not rows.assign(label=label).duplicated([*key, "label"]).any():
            break
        if column == "split":
            label = label + " · " + rows["split"].astype(str)
        else:
            label = label + " · " + rows["parameters"].map(lambda text: str(parameters(text).get("resolution", "?")))
    return label


def _moments(rows: pd.DataFrame) -> pd.DataFrame:
    found = rows[["phase", "epoch"]].drop_duplicates()
    return found.sort_values(["phase", "epoch"], key=lambda c: c.map(ORDER) if c.name == "phase" else c).reset_index(drop=True)


def _moment_numbers(rows: pd.DataFrame, moments: pd.DataFrame) -> NDArray[np.int64]:
    index = pd.MultiIndex.from_frame(moments)
    return np.asarray(index.get_indexer(pd.MultiIndex.from_frame(rows[["phase", "epoch"]])), dtype=np.int64)


def _layers(rows: pd.DataFrame) -> list[str]:
    named = rows.drop_duplicates(["group", "layer"])
    order = [d.get("order") for d in named["details"]]
    position = [(o if isinstance(o, int | float) else len(named), i) for i, o in enumerate(order)]
    return list(dict.fromkeys(named["layer"].iloc[i] for _, i in sorted(position)))


def _in_one_unit(rows: pd.DataFrame) -> tuple[Floats, str]:
    values = rows["value"].to_numpy(float)
    nats = (rows["unit"] == "nats").to_numpy()
    if nats.all():
        return values, "nats"
    return np.where(nats, values / LN2, values), "bits"


def _estimate(label: str, rows: pd.DataFrame) -> dict[str, Any]:
    of_input = rows[rows["metric"] == "mi_input"].drop_duplicates("parameters")
    details = list(of_input["details"]) or [{}]
    ceilings = {"H(X)": _same(details, "h_x"), "H(Y)": _same(details, "h_y"), "log2 N": _same(details, "log2_n")}
    resolutions = list(dict.fromkeys(str(d["resolution"]) for d in details if d.get("resolution")))
    return {
        "label": label,
        "estimator": str(rows["estimator"].iloc[0]),
        "resolution": "; ".join(resolutions[:2]) + (" and others" if len(resolutions) > 2 else ""),
        "split": ", ".join(dict.fromkeys(map(str, rows["split"]))),
        "n": sorted({int(n) for n in rows["n"].dropna().unique()}),
        "ceilings": {name: value for name, value in ceilings.items() if value is not None},
    }


def _same(details: Iterable[dict[str, Any]], key: str) -> float | None:
    """The largest value under `key`: trials on other samples differ by little, and a ceiling must not be drawn too low."""
    found = [float(d[key]) for d in details if isinstance(d.get(key), int | float)]
    return max(found, default=None)
