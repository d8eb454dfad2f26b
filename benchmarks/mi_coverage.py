"""How often the nominal 95 % intervals hold the truth: many seeds of tasks of few columns, labels and counts, small samples too.

    python benchmarks/mi_coverage.py [--seeds 40] [--sizes 200 2000] [--only NAME...] [--cache FILE] [--out FILE]

Takes the interval that each estimate reports. Seeds start at 1,000, so that no sample is one of `mi_accuracy.py`. Finished measurements are
kept in the cache (a line of JSON each).
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from prunescope.data.synthetic import Task, tasks
from prunescope.information.validation import applies, measured
from prunescope.registry import Entry, estimators

NEIGHBOURS = ("ksg", "ross", "gao-mixed")
COUNTS = ("plugin", "miller-madow", "shrinkage", "chao-shen", "nsb")
NAMES = (*NEIGHBOURS, "ksg-lnc", "kernel-density", *COUNTS, "auto")
FEW = 4  # columns of x and y together; `auto` takes 3, beyond which it trains a network
CAPPED = {"kernel-density": 4, "ksg-lnc": 10}  # seeds of those that take seconds, or claim nothing
LEAST = 10  # unflagged intervals of a task from which its own coverage is told
SEEN, HELD_OUT = "seen", "held-out"


def jobs(options: argparse.Namespace) -> Iterator[tuple[str, Task, Entry, int, int]]:
    """Kind of task, task, estimator, samples, seed: all tasks at one seed before the next."""
    groups = [(SEEN, t) for t in tasks().values() if t.name not in tasks("held-out")] + [(HELD_OUT, t) for t in tasks("held-out").values()]
    chosen = [estimators.get(name) for name in options.only or NAMES]
    for seed, n, (group, task), entry in itertools.product(range(options.seeds), options.sizes, groups, chosen):
        if seed >= CAPPED.get(entry.name, options.seeds):
            continue
        if applies(entry, task) and task.dx + task.dy <= (FEW - 1 if entry.name == "auto" else FEW):
            yield group, task, entry, n, 1000 + seed


def measure(options: argparse.Namespace) -> pd.DataFrame:
    """All rows, from the cache or measured now."""
    known = {row["key"]: row for row in map(json.loads, options.cache.read_text().splitlines())} if options.cache.exists() else {}
    rows: list[dict[str, Any]] = []
    with options.cache.open("a") as cache:
        for group, task, entry, n, seed in jobs(options):
            key = f"{task.name}/{entry.name}/{n}/{seed}"
            if key not in known:
                x, y = task.sample(n, seed=seed)
                about = {"key": key, "group": group, "task": task.name, "estimator": entry.name, "n": n, "seed": seed, "truth": task.mi}
                known[key] = about | measured(entry, task, x, y, seed=seed)
                cache.write(json.dumps(known[key]) + "\n")
                cache.flush()
            rows.append(known[key])
    return pd.DataFrame(rows)


def summary(frame: pd.DataFrame) -> list[str]:
    """Coverage over all intervals and over those of estimates without a flag, and how wide they are."""
    lines = []
    frame = frame[frame["failure"] == ""].assign(plain=lambda f: f["flags"] == "", width=lambda f: f["high"] - f["low"])
    for (name, n, group), part in frame.groupby(["estimator", "n", "group"], sort=False):
        plain = part[part["plain"]]
        own = (part["error"].abs() <= 1.96 * part["stderr"]).mean()
        often = plain[plain.groupby("task")["covered"].transform("size") >= LEAST]
        worst = often.groupby("task")["covered"].mean().sort_values()
        row = [
            name, f"{n:,}", group, str(part["task"].nunique()), f"{len(part):,}", f"{own:.1%}", f"{part['covered'].mean():.1%}",
            f"{len(plain) / len(part):.0%}", f"{plain['covered'].mean():.1%}" if len(plain) else "none",
            f"{part['width'].median():.3f}", f"{worst.index[0]} {worst.iloc[0]:.0%}" if len(worst) else "",
        ]  # fmt: skip
        lines.append("| " + " | ".join(map(str, row)) + " |")
    return lines


TEXT = """# How often the intervals hold the truth

Written by `python benchmarks/mi_coverage.py`: {seeds} seeds ({fewer} of kernel-density), {rows:,} measurements, torch {torch}.
Tasks of at most four columns (`auto`: three, beyond which it trains a network and is measured in mi_accuracy.md), labels and counts.
The intervals are those that the estimates report by default (`uncertainty="auto"`), nominally 95 %. **Symmetric** is what the value
+- 1.96 reported standard errors would cover. **Unflagged** is the share of estimates without any flag, **cover, unflagged** the
coverage among them: the others say that they cannot be relied on. **Width** is the median of high - low, nats. **Least** is the task
that is covered least often among those with at least 10 unflagged estimates.

`held-out` are tasks that were written down before any estimator was run on them (`prunescope.data.synthetic.heldout`), `seen` the others.

| estimator | n | tasks | of them | intervals | symmetric | cover | unflagged | cover, unflagged | width | least |
| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |
{summary}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--sizes", type=int, nargs="*", default=[200, 2000])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "prunescope-mi-coverage.jsonl")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "science" / "mi_coverage.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    frame = measure(options)
    seeds, version = frame["seed"].nunique(), torch.__version__.split("+")[0]
    table = "\n".join(summary(frame))
    options.out.write_text(TEXT.format(seeds=seeds, fewer=CAPPED["kernel-density"], rows=len(frame), torch=version, summary=table))
    print(f"{len(frame):,} measurements: {options.out}")


if __name__ == "__main__":
    main()
