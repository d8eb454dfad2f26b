"""Gradients of each layer against the epochs of training: norm of the mean, norm of the standard deviation, and their ratio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from prunescope.report import tables
from prunescope.report.planes import nan_median, thin
from prunescope.results.columns import plain

if TYPE_CHECKING:
    from prunescope.results.store import Run

Floats = NDArray[np.float64]

METRICS = ("gradient_mean", "gradient_sd", "gradient_snr")
NAMES = {"gradient_mean": "norm of the mean gradient", "gradient_sd": "norm of its standard deviation", "gradient_snr": "SNR (mean / sd)"}


@dataclass(frozen=True)
class GradientCurve:
    """`metric` (no unit) of one layer of one cell at each epoch of `Gradients.epochs`: median, smallest and largest of the seeds.

    NaN where no seed has a finite value: the ratio has none where all batches gave the same gradient.
    """

    cell: int
    metric: str
    layer: str
    seeds: int
    median: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Gradients:
    """All curves, on the same epochs; `recorded` says how many epochs there were before thinning."""

    epochs: Floats
    recorded: int
    layers: list[str]
    curves: list[GradientCurve]


def gradient_curves(run: Run) -> Gradients | None:
    """The gradients of a run during training, or None where none were recorded.

    Source: Shwartz-Ziv and Tishby 2017 (arXiv:1703.00810), figure 4, where both norms are divided by that of the layer's weights.
    """
    rows = run.records
    rows = plain(rows[rows["metric"].isin(METRICS) & (rows["phase"] == "train") & rows["epoch"].notna() & np.isfinite(rows["value"])])
    if rows.empty:
        return None
    rows = rows.assign(cell=tables.cell_numbers(rows, tables.cells(run)))
    epochs = np.unique(rows["epoch"].to_numpy(float))
    key = ["cell", "metric", "layer"]
    kept = epochs[thin(len(epochs), 2 * 3 * len(rows[key].drop_duplicates()))]  # three numbers each, beside as many for the planes
    curves = [_curve(where, part, kept) for where, part in rows.groupby(key, sort=False)]
    return Gradients(kept, len(epochs), list(dict.fromkeys(rows["layer"])), sorted(curves, key=lambda c: c.cell))


def _curve(where: Any, part: pd.DataFrame, epochs: Floats) -> GradientCurve:
    seeds, row = np.unique(part["seed"], return_inverse=True)
    column = np.searchsorted(epochs, part["epoch"]).clip(max=len(epochs) - 1)
    kept = epochs[column] == part["epoch"].to_numpy()
    values = np.full((len(seeds), len(epochs)), np.nan)  # filled in the order of the records: of a measure taken again the last counts
    values[row[kept], column[kept]] = part["value"].to_numpy(float)[kept]
    known = np.isfinite(values)
    low, high = np.where(known, values, np.inf).min(axis=0), np.where(known, values, -np.inf).max(axis=0)
    alive = known.any(axis=0)
    ends = [np.where(alive, end, np.nan) for end in (low, high)]
    return GradientCurve(int(where[0]), where[1], where[2], len(values), nan_median(values), *ends)
