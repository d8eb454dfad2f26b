"""What recording costs beside training: the preset `tishby`, shortened, with its recorder and without.

    python benchmarks/recorder.py [--networks 50] [--epochs 400] [--points 20] [--repeats 3] [--data-dir DIR]

Seconds of processor time of the training alone (data, networks and stores are made outside the clock), medians of rounds in which the
contestants take turns. "whole": curves, plane and gradients; the lines below it leave one of them out. The share is what the recorder
adds, in per cent of training without it. The preset itself records 277 of 8,000 epochs: 3.5 %, where the defaults here record 5 %.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from prunescope.experiments.planning import plan
from prunescope.experiments.together import together
from prunescope.experiments.trial import Execution

CONTESTANTS: dict[str, dict[str, object]] = {
    "no recorder": {"measure.epochs": "none", "measure.gradients": False, "measure.plane.estimators": []},
    "whole": {},
    "no gradients": {"measure.gradients": False},
    "no plane, no gradients": {"measure.gradients": False, "measure.plane.estimators": []},
}


def timed(changes: dict[str, object], shared: dict[str, object], data_dir: Path | None) -> tuple[float, int]:
    """Seconds of processor time of one training of all networks, and the number of records made."""
    trials = plan("tishby", {**shared, **changes}).trials
    works: list[Execution] = []
    for trial in trials:
        works.append(Execution(trial, data_dir=data_dir, device="cpu", twin=works[0] if works else None))
    start = time.process_time()
    for result in together([work.train() for work in works]):
        if isinstance(result, Exception):
            raise result
    return time.process_time() - start, sum(len(w.recorder.records) for w in works)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    shared = {"seeds": options.networks, "training.epochs": options.epochs, "measure.points": options.points}
    found: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    records: dict[str, int] = {}
    for _ in range(options.repeats):
        for name, changes in CONTESTANTS.items():
            seconds, records[name] = timed(changes, shared, options.data_dir)
            found[name].append(seconds)
    first = statistics.median(found["no recorder"])
    what = f"{options.networks} networks, {options.epochs} epochs, {options.points} points"
    print(f"torch {torch.__version__}, {what}, load {os.getloadavg()[0]:.1f}")
    for name, times in found.items():
        seconds = statistics.median(times)
        print(f"  {name:24s} {seconds:8.2f} s   {100 * (seconds / first - 1):6.1f} %   {records[name]:8,} records")


if __name__ == "__main__":
    main()
