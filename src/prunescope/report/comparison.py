"""Runs beside each other: the difference of each setting that they share, paired by seed where the seeds match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prunescope.registry import unknown
from prunescope.report import tables
from prunescope.report.estimates import labels
from prunescope.results import load, stats
from prunescope.results.columns import plain, table_of
from prunescope.results.store import Run
from prunescope.types import ConfigError, DataError

SPLITS = {"accuracy": "test", "loss": "test"}  # the others are not of a split
FINAL = ("accuracy", "loss", "sparsity", "nonzero", "bytes", "flops", "latency_ms")
INFORMATION = ("mi_input", "mi_label", "entropy")
METRICS = (*FINAL, *INFORMATION)
PHASES = {"train": 0, "pruned": 1, "finetune": 2}
PLACE = [*tables.CELL, "estimator", "layer"]
COLUMNS = [
    "metric", "unit", *PLACE, "reference", "run", "paired", "n", "of_reference", "of_run", "difference", "low", "high", "median",
    "n_reference", "n_run",
]  # fmt: skip
MOST_DIFFERENCES = 12


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    table   one row a metric, setting and run: of_reference and of_run (means over the seeds compared), difference (run minus reference),
            low, high (95 % interval), median (of the paired differences), n pairs, paired, n_reference and n_run (seeds of either)
    runs    names of the runs, the reference first
    notes   sentences: what is not in all runs, which settings differ, what the intervals mean
    """

    table: pd.DataFrame
    runs: list[str]
    notes: list[str]

    def __repr__(self) -> str:
        return f"Comparison of {', '.join(self.runs[1:])} with {self.runs[0]}: {len(self.table)} differences"


def compare(*runs: Run | str | Path, metrics: Sequence[str] | None = None, seed: int = 0) -> Comparison:
    """Differences of each run to the first, in each metric's unit, for every (group, variant, sparsity) that both finished.

    Trials of the same setting and seed are pairs: their differences' mean with its bootstrap interval (`stats.bootstrap_interval`, seeded
    by `seed`), and their median. Where no seed is in both runs the difference of the means is unpaired, and `paired` says so. `metrics`:
    any of accuracy and loss (test), sparsity, nonzero, bytes, flops, latency_ms at the end, and mi_input, mi_label, entropy of each layer
    at the last recorded moment (bits or as recorded); default: those at the end that differ between the runs, accuracy always.
    Raises ConfigError for fewer than two runs or an unknown metric, DataError where the runs share no setting.
    """
    opened = [run if not isinstance(run, str | Path) else load(run) for run in runs]
    if len(opened) < 2:
        raise ConfigError(f"compare needs two runs or more, got {len(opened)}: name another run folder")
    if len({r.folder.resolve() for r in opened}) < len(opened):
        raise ConfigError("compare was given the same run folder twice: name each once")
    for metric in metrics or ():
        if metric not in METRICS:
            raise ConfigError(unknown("metric", metric, list(METRICS)))
    names = _names(opened)
    asked = list(metrics) if metrics else list(FINAL)
    parts = []
    for metric in asked:
        reference = values(opened[0], metric)
        for run, name in zip(opened[1:], names[1:], strict=True):
            found = _differences(values(run, metric), reference, seed)
            parts.append(found.assign(metric=metric, run=name, reference=names[0]))
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)
    if table.empty:
        what = f"no (group, variant, sparsity) with {', '.join(asked)} is in both"
        raise DataError(f"{' and '.join(names)}: {what}; {_settings(opened, names)}")
    if not metrics:
        moved = table.groupby("metric", sort=False)["difference"].transform(lambda d: d.fillna(0).abs().max() > 0)
        table = table[moved | (table["metric"] == "accuracy")].reset_index(drop=True)
    counts = ["n", "n_reference", "n_run"]
    table = table[COLUMNS].astype(dict.fromkeys(counts, int) | {"paired": bool})
    return Comparison(table, names, _notes(opened, names, table))


def values(run: Run, metric: str) -> pd.DataFrame:
    """One value a trial and place: group, variant, sparsity, estimator, layer, seed, unit, value; finite ones only."""
    rows = table_of(run)
    if metric in INFORMATION:
        rows = plain(rows[rows["phase"].isin(list(PHASES)) & rows["metric"].isin(INFORMATION)])
        if rows.empty:
            return rows.assign(estimator="")[[*PLACE, "seed", "unit", "value"]]
        rows = rows.assign(estimator=labels(rows), order=rows["phase"].map(PHASES))
        rows = stats.select(rows, metric).sort_values(["order", "epoch"], kind="stable")
    else:
        rows = stats.select(rows, metric, phase="final", split=SPLITS.get(metric, ""), layer="").assign(estimator="")
    rows = rows[np.isfinite(rows["value"])].drop_duplicates(["trial", *PLACE], keep="last")
    found: pd.DataFrame = rows.assign(sparsity=rows["sparsity"].round(9))[[*PLACE, "seed", "unit", "value"]].sort_index()
    return found


def _differences(mine: pd.DataFrame, reference: pd.DataFrame, seed: int) -> pd.DataFrame:
    theirs = dict(list(reference.groupby(PLACE, dropna=False, sort=False)))
    theirs = {_key(place): part for place, part in theirs.items()}
    found = []
    for place, part in mine.groupby(PLACE, dropna=False, sort=False):
        other = theirs.get(_key(place))
        if other is None:
            continue
        row = dict(zip(PLACE, place, strict=True)) | {"unit": part["unit"].iloc[0]}
        found.append(row | _difference(part.set_index("seed")["value"], other.set_index("seed")["value"], seed))
    return pd.DataFrame(found)


def _key(place: Any) -> tuple[Any, ...]:
    return tuple(None if isinstance(v, float) and np.isnan(v) else v for v in place)  # NaN, no sparsity asked for, equals itself here


def _difference(mine: pd.Series, other: pd.Series, seed: int) -> dict[str, Any]:
    both = pd.concat([other, mine], axis=1, keys=["of_reference", "of_run"])
    pairs = both.dropna()
    found: dict[str, Any] = {str(k): v for k, v in (pairs if len(pairs) else both).mean().items()}
    found |= {"n_reference": len(other), "n_run": len(mine), "paired": len(pairs) > 0, "n": len(pairs), "median": np.nan}
    if len(pairs):
        about = stats.describe(pairs["of_run"] - pairs["of_reference"], seed=seed)
        return found | {"difference": about["mean"]} | {k: about[k] for k in ("low", "high", "median")}
    about = stats.unpaired_difference(mine, other, seed=seed)
    return found | {"difference": about["mean"], "low": about["low"], "high": about["high"]}


def _names(runs: list[Run]) -> list[str]:
    """Folder names, with the folder above them where two are alike."""
    names = [r.folder.resolve().name for r in runs]
    if len(set(names)) < len(names):
        names = ["/".join(r.folder.resolve().parts[-2:]) for r in runs]
    if len(set(names)) < len(names):
        names = [str(r.folder) for r in runs]
    return names


def _settings(runs: list[Run], names: list[str]) -> str:
    told = []
    for run, name in zip(runs, names, strict=True):
        variants = [str(v) for v in dict.fromkeys(run.trials["variant"])]
        told.append(f"{name} has {', '.join(variants[:6]) or 'no trials'}{' and others' if len(variants) > 6 else ''}")
    return "; ".join(told)


def _notes(runs: list[Run], names: list[str], table: pd.DataFrame) -> list[str]:
    notes = []
    for run, name in zip(runs, names, strict=True):
        notes += [f"{name}: {problem}" for problem in run.problems]
        if lost := int((run.trials["status"] != "finished").sum()):
            notes.append(f"{name}: {lost} of {len(run.trials)} trials have no results.")
    known = [_cells(run) for run in runs]
    for cells, run_name in zip(known[1:], names[1:], strict=True):
        for only, where in ((known[0] - cells, names[0]), (cells - known[0], run_name)):
            if only:
                some = ", ".join(sorted(only)[:4])
                notes.append(f"Only in {where}: {some}{f' and {len(only) - 4} more settings' if len(only) > 4 else ''}.")
    notes += [_changed(runs[0], run, names[0], name) for run, name in zip(runs[1:], names[1:], strict=True)]
    alone = table[~table["paired"]]
    if len(alone):
        notes.append(f"{len(alone)} of {len(table)} differences are UNPAIRED: no seed of the setting is in both runs. They are marked.")
    left = table[table["paired"] & (table["n"] < table[["n_reference", "n_run"]].max(axis=1))]
    if len(left):
        notes.append(f"In {len(left)} of {len(table)} some seeds have no partner in the other run: they are left out.")
    fewest = int(table["n"].max())
    if 1 < fewest < 5:
        notes.append(f"With {fewest} pairs an interval holds the truth at most {100 * (1 - 2.0 ** (1 - fewest)):.0f} % of the time.")
    notes.append("Intervals are 95 % bootstrap intervals of the mean; many are looked at at once, so about one in twenty misses by chance.")
    return notes


def _cells(run: Run) -> set[str]:
    done = run.trials[run.trials["status"] == "finished"].astype({"sparsity": float})
    named = done[tables.CELL].drop_duplicates().itertuples(index=False)
    return {" ".join(str(v) for v in (g, v, "" if np.isnan(s) else tables.percent(s)) if v) for g, v, s in named}


def _changed(first: Run, second: Run, name: str, other: str) -> str:
    """Which settings of the two configs differ; a pair of trials means something where their data and model do not."""
    mine, theirs = (flat(r.experiment.get("config")) for r in (first, second))
    told = ("name", "title", "question", "notes", "faults")
    keys = [k for k in dict.fromkeys([*mine, *theirs]) if mine.get(k) != theirs.get(k) and k.split(".")[0] not in told]
    if not keys:
        return f"{other} has the settings of {name}: what differs is the code, the machine or chance."
    shown = [f"{k} ({_short(mine.get(k))} → {_short(theirs.get(k))})" for k in keys[:MOST_DIFFERENCES]]
    more = f" and {len(keys) - MOST_DIFFERENCES} more" if len(keys) > MOST_DIFFERENCES else ""
    other_draw = any(k.split(".")[0] in ("data", "model") for k in keys)
    doubt = " Data or model differ: a seed is then no common start, and pairing neither helps nor harms." if other_draw else ""
    return f"{other} differs from {name} in {', '.join(shown)}{more}.{doubt}"


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Settings by dotted names; entries of lists of tables by their name or number.

    >>> flat({"data": {"name": "digits"}, "seeds": 3})
    {'data.name': 'digits', 'seeds': 3}
    """
    if isinstance(config, dict):
        found: dict[str, Any] = {}
        for key, value in config.items():
            found |= flat(value, f"{prefix}{key}.")
        return found
    if isinstance(config, list) and config and all(isinstance(v, dict) for v in config):
        found = {}
        for number, value in enumerate(config):
            found |= flat(value, f"{prefix}{value.get('name', number)}.")
        return found
    return {prefix.removesuffix("."): config} if prefix else {}


def _short(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) < 30 else text[:29] + "…"
