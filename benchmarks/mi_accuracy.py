"""Every estimator on every task of known mutual information that it applies to: error against truth and coverage of its intervals.

    python benchmarks/mi_accuracy.py [--seeds 3] [--n 10000] [--only NAME...] [--budget SECONDS] [--cache FILE] [--out FILE]

Slow estimators run at 2,000 samples and one seed. Finished measurements are kept in the cache (a line of JSON each), so that a run which
was stopped goes on; --budget stops measuring after so many seconds and writes the table with what there is, saying what is missing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from prunescope.data.synthetic import GROUPS, Task, tasks
from prunescope.information.validation import applies, measured
from prunescope.registry import Entry, estimators

SLOW = {"mine", "nwj", "infonce", "smile", "renyi", "sliced", "kernel-density"}
FEWER = 2_000
CODES_ONLY = {"quantised"}  # takes numbers for codes: right for quantised layers, meaningless on a density
WARNINGS = ("unreliable", "saturated", "high-dimension", "undersampled", "ties", "degenerate", "dropped")
DETAILED = ("auto", "elliptical-copula", "gaussian-copula", "ksg", "mine")


def jobs(options: argparse.Namespace) -> Iterator[tuple[str, Task, Entry, int, int]]:
    """Group, task, estimator, samples and seed of each measurement: all estimators at seed 0 first."""
    chosen = sorted((e for e in estimators if not options.only or e.name in options.only), key=lambda e: e.name in SLOW)
    for seed, group, entry in itertools.product(range(options.seeds), GROUPS, chosen):
        slow = entry.name in SLOW
        if (slow and seed > 0) or (entry.name in CODES_ONLY and group != "discrete"):
            continue
        for task in tasks(group).values():
            if applies(entry, task):
                yield group, task, entry, min(options.n, FEWER) if slow else options.n, seed


def key(task: Task, entry: Entry, n: int, seed: int) -> str:
    return f"{task.name}/{entry.name}/{n}/{seed}"


def measure(options: argparse.Namespace) -> tuple[list[dict[str, Any]], int]:
    """All rows, from the cache or measured now, and how many are missing because the budget ran out."""
    known = {row["key"]: row for row in map(json.loads, options.cache.read_text().splitlines())} if options.cache.exists() else {}
    started, rows, missing = time.perf_counter(), [], 0
    with options.cache.open("a") as cache:
        for group, task, entry, n, seed in jobs(options):
            name = key(task, entry, n, seed)
            if name not in known:
                if time.perf_counter() - started > options.budget:
                    missing += 1
                    continue
                x, y = task.sample(n, seed=seed)
                found = measured(entry, task, x, y, seed=seed)
                known[name] = {"key": name, "group": group, "task": task.name, "estimator": entry.name, "n": n, "seed": seed,
                               "truth": task.mi, **found}  # fmt: skip
                cache.write(json.dumps(known[name]) + "\n")
                cache.flush()
            rows.append(known[name])
    return rows, missing


def summary(frame: pd.DataFrame) -> list[str]:
    """One line of the table for each estimator and group."""
    lines = []
    for (group, name), part in frame.groupby(["group", "estimator"], sort=False):
        good = part[part["failure"] == ""]
        size = good["error"].abs()
        known = good["covered"].dropna()
        silent = good[~good["inside"].astype(bool) & ~good["flags"].map(lambda f: any(w in f.split() for w in WARNINGS))]
        per_seed = part["seed"].nunique()
        row = [
            group, name, "yes" if estimators.get(name).traits.get("consistent") else "no", f"{int(part['n'].iloc[0]):,}", str(per_seed),
            f"{part['inside'].sum() / per_seed:.1f} of {part['task'].nunique()}",
            f"{size.mean():.3f}", f"{size.median():.3f}", f"{good['error'].max():+.2f}", f"{good['error'].min():+.2f}",
            f"{known.mean():.0%}" if len(known) else "none", f"{len(silent) / per_seed:.1f}",
            str(int((part["failure"] != "").sum() / per_seed)), f"{part['seconds'].median():.2f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(row) + " |")
    return lines


def by_task(frame: pd.DataFrame) -> list[str]:
    """Mean signed error of some estimators on each continuous task."""
    part = frame[frame["group"].isin(["continuous", "mixtures"]) & frame["estimator"].isin(DETAILED)]
    table = part.pivot_table(index="task", columns="estimator", values="error", aggfunc="mean", sort=False)
    flagged = part[part["estimator"] == "auto"].groupby("task")["flags"].agg(lambda f: any("unreliable" in v for v in f))
    truth = part.groupby("task")["truth"].first()
    names = [n for n in DETAILED if n in table]
    lines = ["| task | truth | " + " | ".join(names) + " | auto says |", "| --- | " + "---: | " * (len(names) + 1) + "--- |"]
    for task, row in table.iterrows():
        cells = " | ".join("" if pd.isna(row[n]) else f"{row[n]:+.3f}" for n in names)
        lines.append(f"| {task} | {truth[task]:.3f} | {cells} | {'unreliable' if flagged.get(task) else ''} |")
    return lines


TEXT = """# How accurate the estimators are

Written by `python benchmarks/mi_accuracy.py`: up to {seeds} seeds, one thread, {rows:,} measurements, torch {torch}. Errors are in nats
against exact values ({tasks} tasks of `prunescope.data.synthetic`). **Inside** means an error of at most max(0.07 bit, 5 %), tasks a seed.
**Silent** counts tasks outside with none of the flags {flags}.
**Cover** is the share of nominal 95 % intervals (value +- 1.96 standard errors of the estimator itself) that contain the truth: bias is
not in those errors, so an estimator that is consistent but biased at this n covers far less than 95 %.
**Consistent** is what the estimator claims: with ever more samples it reaches
the truth for any distribution of its kind; the others estimate a bound, a family's value or another quantity, and their intervals are about
that. {missing}

`auto` was designed with all groups in view, `mixtures` too, and its copulas are of the families from which many of the tasks are made: its
figures here are not those of unseen data. "sliced" is another, lower quantity; "renyi" is matrix-based entropy,
not Shannon's; "binning" on several columns saturates at ln n. Slow estimators ran at 2,000 samples and one seed.

| group | estimator | consistent | n | seeds | inside | mean error | median | highest | lowest | cover | silent | refused | seconds |
| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
{summary}

## Mean signed error on each continuous task

{by_task}
"""


def whole_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """Only those seeds of an estimator for which all tasks of the group that it takes were measured: shares would be skewed else."""
    fits = {(g, e.name): sum(applies(e, t) for t in tasks(g).values()) for g in GROUPS for e in estimators}
    size = frame.groupby(["group", "estimator", "seed"])["task"].transform("size")
    return frame[[n == fits[g, e] for n, g, e in zip(size, frame["group"], frame["estimator"], strict=True)]]


def page(rows: list[dict[str, Any]], missing: int, seeds: int) -> str:
    measured_rows = pd.DataFrame(rows)
    frame = whole_seeds(measured_rows)
    left = "Nothing is missing."
    if missing:
        left = (
            f"INCOMPLETE: {missing:,} measurements are missing because the run was stopped; {len(measured_rows) - len(frame)} of seeds "
            "begun but not finished are left out. The column `seeds` says how many were finished."
        )
    return TEXT.format(
        seeds=seeds, rows=len(frame), torch=torch.__version__.split("+")[0], tasks=len(tasks()), flags=", ".join(WARNINGS), missing=left,
        summary="\n".join(summary(frame)), by_task="\n".join(by_task(frame)),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--budget", type=float, default=float("inf"))
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "prunescope-mi-accuracy.jsonl")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "science" / "mi_accuracy.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, missing = measure(options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(page(rows, missing, options.seeds))
    print(f"{len(rows)} measurements, {missing} missing: {options.out}")


if __name__ == "__main__":
    main()
