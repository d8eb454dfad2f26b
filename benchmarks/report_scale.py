"""A run folder of 10,000 trials, and what `prunescope report`, `ps.load`, `export` and `compare` take of it in seconds and memory.

Run: python benchmarks/report_scale.py [--trials 10000] [--folder DIR] [--out docs/science/report_scale.md]

The folder is made of a real, tiny run (digits, a perceptron, four ways of pruning, two sparsities): each of its trials is written again
under other hashes, seeds and sparsities, its values moved a little. Every command runs in a process of its own; memory is the largest
resident set that the kernel saw.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LEVELS = [round(0.5 + 0.05 * i, 2) for i in range(10)]
EXPERIMENT: dict[str, Any] = {
    "name": "many trials",
    "title": "Many trials",
    "question": "How does a report of many trials fare?",
    "baseline": "dense",
    "seeds": 1,
    "sparsity": [0.5],
    "data": {"name": "digits", "flatten": True},
    "model": {"name": "mlp", "widths": [16, 12], "activation": "tanh"},
    "training": {"epochs": 8, "lr": 0.05},
    "measure": {"histogram_bins": 30, "plane": {"estimators": [{"name": "binning", "bins": 30}]}},
    "variant": [
        {"name": "dense", "prune": {"when": "never"}},
        {"name": "at initialisation", "prune": {"when": "init"}},
        {"name": "magnitude", "prune": {"when": "trained"}, "finetune": {"epochs": 2}},
        {"name": "neurons", "prune": {"when": "trained", "granularity": "neuron"}, "finetune": {"epochs": 2}},
        {"name": "random", "prune": {"when": "trained", "criterion": "random"}, "finetune": {"epochs": 2}},
        {"name": "rounds", "prune": {"when": "iterative", "rounds": 3}, "finetune": {"epochs": 2}},
    ],
}


def main() -> None:
    options = arguments()
    place = Path(options.folder or tempfile.mkdtemp())
    run, half = place / "many", place / "half"
    if not (run / "experiment.json").exists():
        print(f"{make(run, options.trials, place / 'seed')} records in {options.trials:,} trials", flush=True)
    if not (half / "experiment.json").exists():
        make(half, options.trials // 2, place / "seed", shift=0.003)
    rows = [measured(*each) for each in commands(run, half, place)]
    text = table(rows)
    print(text)
    if options.out:
        options.out.write_text(page(text, options.trials, run), encoding="utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--folder", help="where the runs lie or are made; kept, and used again")
    parser.add_argument("--out", type=Path, help="a Markdown page for the table")
    return parser.parse_args()


def make(folder: Path, count: int, seed_run: Path, shift: float = 0.0) -> str:
    """A run folder with `count` trials, copied from a tiny run that is done first where it is not there. Returns how many records."""
    import duckdb

    import prunescope as ps

    if not (seed_run / "report.html").exists():
        ps.run(EXPERIMENT, out=seed_run, engine="serial")
        (seed_run / "report.html").touch()
    about = json.loads((seed_run / "experiment.json").read_text())
    found = {t["variant"]: t for t in about["trials"]}
    dense = found.pop("dense")
    kinds = [(dense, 0.0)] + [(t, level) for t in found.values() for level in LEVELS]
    seeds = -(-count // len(kinds))
    planned = [(t, level, seed) for seed in range(seeds) for t, level in kinds][:count]
    trials, records = [], 0
    with duckdb.connect() as database:
        for number, (template, level, seed) in enumerate(planned):
            name = f"{number:016x}"
            source, target = seed_run / "trials" / template["hash"], folder / "trials" / name
            target.mkdir(parents=True)
            factor = 1 - 0.02 * level + 0.01 * ((seed * 7919) % 13) / 13 + shift
            database.execute(
                f"COPY (SELECT * REPLACE ('{name}' AS trial, CAST({level} AS DOUBLE) AS sparsity, {seed} AS seed, CASE WHEN metric IN "
                f"('accuracy', 'loss', 'mi_input', 'mi_label', 'entropy') THEN value * {factor} ELSE value END AS value, "
                # no two histograms are the same text, as no two of real trials are
                f"CASE WHEN metric IN ('weight_histogram', 'mask') THEN '{{\"copy\":{number},' || substr(parameters, 2) "
                f"ELSE parameters END AS parameters) "
                f"FROM '{source / 'records.parquet'}') TO '{target / 'records.parquet'}' (FORMAT parquet, COMPRESSION zstd)"
            )
            status = json.loads((source / "trial.json").read_text())
            status["values"] |= {"sparsity": level, "seed": seed}
            status.pop("files", None)  # other bytes than the original's
            (target / "trial.json").write_text(json.dumps(status, indent=1))
            trials.append({**template, "hash": name, "sparsity": level, "seed": seed})
        (records,) = database.execute(f"SELECT count(*) FROM '{folder}/trials/*/records.parquet'").fetchone() or (0,)
    (folder / "experiment.json").write_text(json.dumps(about | {"trials": trials}, indent=1))
    return f"{records:,}"


def commands(run: Path, half: Path, place: Path) -> list[tuple[str, list[str]]]:
    """What is measured, each as a command."""
    python, tool = [sys.executable, "-c"], [sys.executable, "-m", "prunescope.cli"]
    load = "import sys, prunescope as ps; run = ps.load(sys.argv[1]); "
    return [
        ("ps.load, trials alone", [*python, f"{load} print(run.trials.status.value_counts())", str(run)]),
        ("ps.load and all records", [*python, f"{load} print(len(run.records))", str(run)]),
        ("prunescope report", [*tool, "report", str(run), "--out", str(place / "report.html")]),
        ("prunescope export --format parquet", [*tool, "export", str(run), "--format", "parquet", "--out", str(place / "all.parquet")]),
        ("prunescope export --format csv", [*tool, "export", str(run), "--format", "csv", "--out", str(place / "all.csv")]),
        ("prunescope compare", [*tool, "compare", str(run), str(half), "--out", str(place / "comparison.html")]),
    ]


def measured(what: str, command: list[str]) -> dict[str, Any]:
    """Seconds on the clock and of the processor, and the largest resident set in MB, of a command."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None, "asked for"
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{what}: {said}")
    row = {"what": what, "seconds": time.perf_counter() - began, "processor": usage.ru_utime + usage.ru_stime, "mb": usage.ru_maxrss / 1e3}
    print(row, flush=True)
    return row


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| what | s on the clock | s of the processor | largest resident set MB |", "| --- | ---: | ---: | ---: |"]
    lines += [f"| {r['what']} | {r['seconds']:.1f} | {r['processor']:.1f} | {r['mb']:,.0f} |" for r in rows]
    return "\n".join(lines)


def page(text: str, count: int, run: Path) -> str:
    """The page of the documentation."""
    sizes = [p.stat().st_size for p in run.glob("trials/*/records.parquet")]
    about = f"{count:,} trials in one run folder, {sum(sizes) / 1e6:.0f} MB of records. Made by"
    command = "`python benchmarks/report_scale.py --out docs/science/report_scale.md`; every command in a process of its own."
    goal = "The aim for the report is 60 s on the clock and 2 GB, of two cores. It reads all records, and writes the page and its figures."
    return f"# A report of many trials\n\n{about}\n{command}\n\n{text}\n\n{goal}\n"


if __name__ == "__main__":
    main()
