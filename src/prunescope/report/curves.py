"""Accuracy, loss and size as curves: against epochs through all phases, and against the sparsity reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from prunescope.report import tables
from prunescope.report.planes import thin
from prunescope.results import stats
from prunescope.results.columns import plain

if TYPE_CHECKING:
    from prunescope.results.store import Run

Floats = NDArray[np.float64]

CURVE_RESAMPLES = 2000  # bands of hundreds of points: 2,000 resamples move an end by less than the line's width
AT_ONE_EPOCH = {"train": 0, "finetune": 1, "pruned": 2}  # what comes first where phases meet: pruning ends a round
QUALITY = ("accuracy", "loss")
LEVELS = (*QUALITY, "nonzero", "bytes", "latency_ms")


@dataclass(frozen=True)
class EpochCurve:
    """`metric` (its unit) of one cell on one split: mean over the seeds with its 95 % interval at each moment.

    `x` counts epochs of training from 0; the value right after pruning stands where it was pruned, fine-tuning goes on from the last
    training epoch. Of trials pruned at initialisation epoch 0 is the pruned network.
    """

    cell: int
    metric: str
    split: str
    x: Floats
    mean: Floats
    low: Floats
    high: Floats
    seeds: int


@dataclass(frozen=True)
class Timeline:
    """Where the phases lie on the axis of `EpochCurve.x`: the last epoch of training, and whether fine-tuning follows."""

    trained: float
    finetuned: bool
    recorded: int
    shown: int


def epoch_curves(run: Run) -> tuple[list[EpochCurve], Timeline]:
    """Accuracy and loss against epochs on train and validation, one curve a cell, metric and split."""
    rows = run.records
    rows = plain(rows[rows["metric"].isin(QUALITY) & rows["phase"].isin(AT_ONE_EPOCH) & (rows["layer"] == "") & rows["epoch"].notna()])
    if rows.empty:
        return [], Timeline(0.0, False, 0, 0)
    trained = float(rows.loc[rows["phase"] == "train", "epoch"].max())
    trained = 0.0 if np.isnan(trained) else trained
    x = np.where(rows["phase"] == "train", rows["epoch"], trained + rows["epoch"])
    rows = rows.assign(x=x, order=rows["phase"].map(AT_ONE_EPOCH), cell=tables.cell_numbers(rows, tables.cells(run)))
    again = (rows["phase"] == "finetune") & (rows["epoch"] == 0)  # epoch 0 of fine-tuning is the value right after pruning
    rows = rows[~again & ~((rows["phase"] == "pruned") & tables.at_initialisation(run.records).loc[rows.index])]
    moments = rows[["order", "x"]].drop_duplicates().sort_values(["x", "order"])
    parts = rows.groupby(["cell", "metric", "split"], sort=True)
    kept = moments.iloc[thin(len(moments), 4 * parts.ngroups)]
    shown = rows.merge(kept.assign(moment=np.arange(len(kept))), on=["order", "x"])
    shown = shown[shown["value"].notna()]
    curves = [_curve(key, part) for key, part in shown.groupby(["cell", "metric", "split"], sort=True)]
    return curves, Timeline(trained, bool((rows["phase"] == "finetune").any()), len(moments), len(kept))


def _curve(key: Any, part: pd.DataFrame) -> EpochCurve:
    seeds, row = np.unique(part["seed"], return_inverse=True)
    moments, first, column = np.unique(part["moment"], return_index=True, return_inverse=True)
    values = np.full((len(seeds), len(moments)), np.nan)  # filled in the order of the records: of a measure taken again the last counts
    values[row, column] = part["value"].to_numpy(float)
    values = np.where(np.isfinite(values), values, np.nan)
    low, high = stats.bootstrap_interval(values, resamples=CURVE_RESAMPLES)
    alive = np.isfinite(values)
    mean = np.where(alive.any(axis=0), np.nansum(values, axis=0) / np.maximum(1, alive.sum(axis=0)), np.nan)
    x = part["x"].to_numpy(float)[first]
    return EpochCurve(int(key[0]), key[1], key[2], x, mean, low, high, len(seeds))


def sparsity_points(run: Run) -> pd.DataFrame:
    """Each metric of each cell beside the sparsity reached: cell, metric, moment, split, x (fraction), mean, low, high, n, values by seed.

    moment "final" is the headline (test split); "pruned" is right after pruning, before any fine-tuning (validation split, else train).
    """
    known = tables.cells(run)
    whole = plain(run.records[run.records["layer"] == ""])
    frames = [_points(whole, metric, "final", split, known) for metric, split in _headline_splits()]
    pruned = whole[(whole["phase"] == "pruned") & ~tables.at_initialisation(run.records).loc[whole.index]]
    if (whole["phase"] == "finetune").any() and len(pruned):
        split = "test" if "test" in set(pruned["split"]) else "validation" if "validation" in set(pruned["split"]) else "train"
        frames += [_points(pruned, metric, "pruned", split, known) for metric in QUALITY]
    found = [frame for frame in frames if len(frame)]
    columns = ["cell", "metric", "moment", "split", "x", "mean", "low", "high", "n", "values"]
    return pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)


def _headline_splits() -> list[tuple[str, str]]:
    return [(metric, "test" if metric in QUALITY else "") for metric in LEVELS]


def _points(whole: pd.DataFrame, metric: str, moment: str, split: str, known: pd.DataFrame) -> pd.DataFrame:
    reached = tables.last_a_trial(stats.select(whole, "sparsity", phase=moment)).set_index("trial")["value"]
    rows = tables.last_a_trial(stats.select(whole, metric, phase=moment, split=split))
    rows = rows.assign(cell=tables.cell_numbers(rows, known), x=rows["trial"].map(reached).fillna(rows["sparsity"]))
    described = []
    for cell, part in rows.sort_values("seed").groupby("cell"):
        about = stats.describe(part["value"])
        values = part["value"].tolist()
        described.append({"cell": cell, "x": part["x"].mean(), **about, "values": values})
    return pd.DataFrame(described).assign(metric=metric, moment=moment, split=split)
