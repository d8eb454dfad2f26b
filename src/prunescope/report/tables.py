"""The tables of a report, as data frames: cells (what was compared), the summary, sparsity per layer, trials that did not finish."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from prunescope.results import stats
from prunescope.results.columns import plain

if TYPE_CHECKING:
    from prunescope.results.store import Run

CELL = list(stats.CELL)
SIZES = ("parameters", "nonzero", "bytes", "flops", "latency_ms")
PHASES = {"train": "after training", "pruned": "after pruning", "finetune": "after fine-tuning", "final": "at the end"}


def cells(run: Run) -> pd.DataFrame:
    """What the run compares, one (group, variant, sparsity) a row, in the order of the experiment and by rising sparsity.

    `label` is the variant alone where it has one sparsity, else the variant and the sparsity in per cent.
    """
    told = [plain(frame[CELL].drop_duplicates()).astype({"sparsity": float}) for frame in (run.trials, run.records)]
    found = pd.concat(told).drop_duplicates()
    variants = [run.experiment.get("baseline"), *found["variant"]]
    order = {name: i for i, name in reversed(list(enumerate(variants)))}
    groups = {name: i for i, name in enumerate(dict.fromkeys(found["group"]))}
    found = found.assign(g=found["group"].map(groups), v=found["variant"].map(order))
    found = found.sort_values(["g", "v", "sparsity"], na_position="last").drop(columns=["g", "v"]).reset_index(drop=True)
    several = several_levels(found) & found["sparsity"].notna()
    found["label"] = [f"{v} {percent(s)}" if many else v for v, s, many in zip(found["variant"], found["sparsity"], several, strict=True)]
    return found


def one_level(known: pd.DataFrame) -> list[int]:
    """One cell of each group and variant, for figures without room for all: the middle of the levels there are, or the nearest to it."""
    levels = np.unique(known.loc[(known["sparsity"] > 0) & several_levels(known), "sparsity"])
    level = float(levels[len(levels) // 2]) if len(levels) else 0.0
    away = (known["sparsity"].fillna(2.0) - level).abs()
    nearest = known.assign(away=away).sort_values("away", kind="stable").drop_duplicates(["group", "variant"])
    return sorted(nearest.index)


def several_levels(known: pd.DataFrame) -> pd.Series:
    """Whether each cell's variant was run at more than one sparsity."""
    return known.groupby("variant")["sparsity"].transform(lambda s: s.nunique(dropna=False)) > 1


def percent(fraction: float) -> str:
    """A fraction as per cent, without needless digits.

    >>> percent(0.9), percent(0.975)
    ('90 %', '97.5 %')
    """
    return f"{100 * fraction:.4g} %"


def cell_numbers(frame: pd.DataFrame, known: pd.DataFrame) -> pd.Series:
    """The row of `known` (from `cells`) that each row of `frame` belongs to; an unasked (NaN) sparsity is a level like any other."""
    numbered = known[CELL].assign(cell=np.arange(len(known)))
    joined = frame[CELL].merge(numbered, on=CELL, how="left")["cell"].astype(int)
    return joined.set_axis(frame.index)


def summary_table(run: Run) -> pd.DataFrame:
    """One row a cell: sparsity reached, test accuracy and loss with 95 % intervals over the seeds, paired differences, size, collapsed.

    Columns: group, variant, sparsity, label, seeds (finished trials), failed, reached, accuracy, accuracy_low, accuracy_high, difference,
    difference_low, difference_high, pairs, loss, loss_low, loss_high, loss_difference, parameters, nonzero, bytes, flops, latency_ms
    (means), collapsed, judged, seconds (median). Accuracy, sparsity and differences are fractions; what was not recorded is NaN.
    """
    table = cells(run)
    final = plain(run.records[run.records["phase"] == "final"])
    whole = final[final["layer"] == ""]
    parts = [
        _means(whole, "sparsity", {"mean": "reached"}),
        _means(whole, "accuracy", {"mean": "accuracy", "low": "accuracy_low", "high": "accuracy_high"}, split="test"),
        _means(whole, "loss", {"mean": "loss", "low": "loss_low", "high": "loss_high"}, split="test"),
        *(_means(whole, metric, {"mean": metric}) for metric in SIZES),
        _differences(run, whole, "accuracy", "difference"),
        _differences(run, whole, "loss", "loss_difference").drop(columns="pairs"),
        stats.collapsed_counts(run.records),
        _status(run),
    ]
    for part in parts:
        table = table.merge(part.astype({"sparsity": float}), on=CELL, how="left")  # an empty part has no types
    return table.drop(columns="loss_difference_low").drop(columns="loss_difference_high")


def _means(records: pd.DataFrame, metric: str, names: dict[str, str], split: str | None = None) -> pd.DataFrame:
    found = last_a_trial(stats.select(records, metric, split=split))
    return stats.summarise(found, metric)[CELL + list(names)].rename(columns=names)


def last_a_trial(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a trial: of a measure taken over again (a phase with several rounds) the last counts."""
    return rows.drop_duplicates("trial", keep="last")


def at_initialisation(records: pd.DataFrame) -> pd.Series:
    """Whether each row belongs to a trial that was pruned before it was trained: its losses were recorded "pruned" first, then "train"."""
    losses = records.loc[records["metric"].isin(["loss", "accuracy"]), ["trial", "phase"]]
    place = pd.Series(np.arange(len(losses)), index=losses.index)
    first_pruned = place[losses["phase"] == "pruned"].groupby(losses["trial"], observed=True).min()
    last_trained = place[losses["phase"] == "train"].groupby(losses["trial"], observed=True).max()
    before = first_pruned.reindex(last_trained.index) < last_trained
    return records["trial"].isin(before.index[before])


def _differences(run: Run, whole: pd.DataFrame, metric: str, name: str) -> pd.DataFrame:
    rows = last_a_trial(stats.select(whole, metric, split="test"))
    found = stats.paired_differences(rows, metric, baseline=baseline(run))
    columns = {"mean": name, "low": f"{name}_low", "high": f"{name}_high", "n": "pairs"}
    return found[CELL + list(columns)].rename(columns=columns)


def baseline(run: Run) -> str | None:
    """The name of the variant that others are compared with, if the experiment names one that was recorded."""
    name = run.experiment.get("baseline")
    return name if name in set(run.records["variant"].unique()) else None


def _status(run: Run) -> pd.DataFrame:
    trials = run.trials
    done = trials["status"] == "finished"
    spent = trials["seconds"].astype(float).where(done)
    counted = trials.assign(seeds=done, failed=~done, seconds=spent, sparsity=trials["sparsity"].astype(float))
    grouped = counted.groupby(CELL, dropna=False)
    return grouped.agg(seeds=("seeds", "sum"), failed=("failed", "sum"), seconds=("seconds", "median")).reset_index()


def unfinished(run: Run) -> pd.DataFrame:
    """Trials without results: group, variant, sparsity, seed, status (failed, running, missing) and the reason given."""
    lost = run.trials[run.trials["status"] != "finished"]
    return lost[[*CELL, "seed", "status", "reason"]].astype({"sparsity": float}).reset_index(drop=True)


def layer_sparsity(run: Run) -> pd.DataFrame:
    """Sparsity reached in each prunable tensor, mean over the seeds (fraction): columns group, variant, sparsity, phase, layer, value, n.

    Of a phase recorded at several epochs the last counts; n is the tensor's size.
    """
    rows = stats.select(run.records, "sparsity")
    rows = rows[rows["layer"] != ""].sort_values("epoch", na_position="first", kind="stable")
    rows = rows.drop_duplicates(["trial", "phase", "layer"], keep="last").sort_index()
    grouped = rows.groupby([*CELL, "phase", "layer"], dropna=False, sort=False)
    return grouped.agg(value=("value", "mean"), n=("n", "first")).reset_index()


def seconds(run: Run) -> float:
    """Training time of all finished trials, in seconds (the sum over trials; shorter on the clock where they ran side by side)."""
    spent = run.trials.loc[run.trials["status"] == "finished", "seconds"].astype(float).sum()
    return float(spent)
