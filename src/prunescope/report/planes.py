"""Information planes as dense arrays: I(X;T) and I(T;Y) of every trial, layer and recorded moment, thinned where there are too many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from prunescope.report.estimates import METRICS, describe, labels, parameters
from prunescope.results import stats
from prunescope.results.columns import each, plain
from prunescope.types import LN2

Floats = NDArray[np.float64]
Place = tuple[NDArray[np.int64], ...]

MOST_MOMENTS = 120
MOST_NUMBERS = 450_000  # numbers of one page: above this, moments are left out (never below FEWEST_MOMENTS)
FEWEST_MOMENTS = 12
ORDER = {"train": 0, "pruned": 1, "finetune": 2, "final": 3}


@dataclass(frozen=True)
class Planes:
    """Information in `unit` of every (estimate, trial, layer, moment), NaN where it was not recorded.

    trials      one row each: trial, group, variant, sparsity, seed
    estimates   one dict each, as `estimates.describe` gives it: label, resolution, n, ceilings {"H(X)", "H(Y)", "log2 N"}, ...
    moments     phase and epoch of each moment; `recorded` says how many there were before thinning
    x, y, h     I(X;T), I(T;Y), H(T), shape (estimates, trials, layers, moments); `saturated` marks x within 0.1 bit of its ceiling
    exceeds     which of x and y (first axis) lie above the value of an earlier layer, which the data-processing inequality forbids
    refused     values that could not be had: estimate (number), trial, layer, metric, phase, epoch, flags, why
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
    exceeds: NDArray[np.bool_]
    refused: pd.DataFrame

    def median(self, estimate: int, trials: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Medians of I(X;T) and I(T;Y) over the chosen trials, shape (layers, moments), in `unit`; NaN where no trial has a value."""
        return nan_median(self.x[estimate, trials]), nan_median(self.y[estimate, trials])


    def quartiles(self, estimate: int, trials: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """First and third quartile over the chosen trials of I(X;T) and of I(T;Y), each (2, layers, moments), in `unit`."""
        x, y = (nan_quantiles(v[estimate, trials], [0.25, 0.75]) for v in (self.x, self.y))
        return x, y


def nan_median(values: Floats) -> Floats:
    """Median over the first axis, without NaN and without a warning where everything is NaN."""
    middle: Floats = nan_quantiles(values, [0.5])[0]
    return middle


def nan_quantiles(values: Floats, which: list[float]) -> Floats:
    """Quantiles over the first axis, one row each, without NaN and without a warning where everything is NaN.

    NaN are sorted to the end and linear interpolation runs over the rest: np.nanquantile does the same column by column, far slower.
    """
    if not len(values):
        return np.full((len(which), *values.shape[1:]), np.nan)
    ordered, count = np.sort(np.where(np.isfinite(values), values, np.nan), axis=0), np.isfinite(values).sum(axis=0)
    found = []
    for share in which:
        place = share * np.maximum(count - 1, 0)
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, np.maximum(count - 1, 0))
        low, high = (np.take_along_axis(ordered, at[None], axis=0)[0] for at in (below, above))
        found.append(low + (high - low) * (place - below))
    return np.asarray(found)


def planes(records: pd.DataFrame) -> Planes | None:
    """All information planes of a run, or None where no information was measured."""
    few = records[records["metric"].isin(METRICS) & records["phase"].isin(["train", "finetune"])]
    of = {metric: (few["metric"] == metric).to_numpy() for metric in METRICS}
    if not of["mi_input"].any():
        return None
    rows = plain(few)
    rows = rows.assign(details=each(few["parameters"], parameters))
    estimate, names = pd.factorize(labels(rows))
    moments = _moments(rows)
    layers = _layers(rows)
    trial, _ = pd.factorize(rows["trial"])  # numbered as they come, so in the order of the next line
    trials = rows[["trial", *stats.CELL, "seed"]].drop_duplicates("trial").reset_index(drop=True)
    about = [describe(name, rows[estimate == i]) for i, name in enumerate(names)]
    shape = (len(names), len(trials), len(layers), len(moments))
    keep = thin(len(moments), len(names) * len(trials) * len(layers) * 2)
    layer = each(few["layer"], {name: i for i, name in enumerate(layers)}.__getitem__).astype(np.int64)
    place = (estimate, trial, layer, _moment_numbers(rows, moments))
    values, unit = _in_one_unit(rows)
    x, y, h = (_dense(shape, place, of[metric], values)[..., keep] for metric in METRICS)
    saturated = _dense(shape, place, of["mi_input"], _flagged(few, "saturated"))[..., keep]
    late = _flagged(few, "exceeds-earlier-layer")
    exceeds = np.stack([_dense(shape, place, of[metric], late)[..., keep] for metric in METRICS[:2]])
    kept = moments.iloc[keep].reset_index(drop=True)
    refused = _refused(rows.assign(estimate=estimate))
    return Planes(trials, about, layers, kept, len(moments), unit, x, y, h, saturated, exceeds, refused)


def _dense(shape: tuple[int, ...], place: Place, of: NDArray[np.bool_], values: NDArray[Any]) -> NDArray[Any]:
    """The values of the rows `of` at their places; NaN, or False of truth values, where none is."""
    array = np.zeros(shape, dtype=bool) if values.dtype == bool else np.full(shape, np.nan)
    array[tuple(p[of] for p in place)] = values[of]
    return array


def _flagged(rows: pd.DataFrame, flag: str) -> NDArray[np.bool_]:
    """Which values carry `flag`."""
    return each(rows["parameters"], lambda text: flag in (parameters(text).get("flags") or ())).astype(bool)


def _refused(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows[~np.isfinite(rows["value"].to_numpy(float))]
    why = rows["details"].map(lambda d: str(d.get("why") or "no reason was recorded"))
    flags = rows["details"].map(lambda d: ", ".join(map(str, d.get("flags") or ())))
    found = rows[["estimate", "trial", "layer", "metric", "phase", "epoch"]].assign(flags=flags, why=why)
    return found.reset_index(drop=True)


def thin(count: int, each: int) -> NDArray[np.int64]:
    """Which of `count` moments to keep when each costs `each` numbers: first, last and evenly between, so that spacing stays as recorded.

    >>> thin(5, 10).tolist(), len(thin(1000, 10)), len(thin(1000, 100_000))
    ([0, 1, 2, 3, 4], 120, 12)
    """
    most = min(MOST_MOMENTS, max(FEWEST_MOMENTS, MOST_NUMBERS // max(1, each)))
    if count <= most:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, most).round().astype(np.int64))


def _moments(rows: pd.DataFrame) -> pd.DataFrame:
    found = rows[["phase", "epoch"]].drop_duplicates()
    return found.sort_values(["phase", "epoch"], key=lambda c: c.map(ORDER) if c.name == "phase" else c).reset_index(drop=True)


def _moment_numbers(rows: pd.DataFrame, moments: pd.DataFrame) -> NDArray[np.int64]:
    index = pd.MultiIndex.from_frame(moments)
    return np.asarray(index.get_indexer(pd.MultiIndex.from_frame(rows[["phase", "epoch"]])), dtype=np.int64)


def _layers(rows: pd.DataFrame) -> list[str]:
    named = rows.drop_duplicates(["group", "layer"])
    order = [d.get("layer_order") for d in named["details"]]
    position = [(o if isinstance(o, int | float) else len(named), i) for i, o in enumerate(order)]
    return list(dict.fromkeys(named["layer"].iloc[i] for _, i in sorted(position)))


def _in_one_unit(rows: pd.DataFrame) -> tuple[Floats, str]:
    values = rows["value"].to_numpy(float)
    nats = (rows["unit"] == "nats").to_numpy()
    if nats.all():
        return values, "nats"
    return np.where(nats, values / LN2, values), "bits"

