"""Neighbour, copula and neural estimators beside the programs that people use for them, one thread, each case in a process of its own.

    python benchmarks/mi_speed_knn.py [--peers peers/bin/python bmi/bin/python] [--large] [--only WORD] [--out docs/science/mi_speed_knn.md]

mi_peers.py says which programs these are and how to install them; what is not installed is named so. Times are the least of several calls
after a warm-up (one call for the neural estimators and for N = 100,000), in CPU seconds of the process, so that a busy machine counts as
little as possible; it still counts, through the caches that others empty. Memory is what the call adds to the process at its peak.
A program that needs more than 300 seconds is ended. Ours is timed without an interval, since the others give none; what the default
interval costs (bias by extrapolation, a test whether the copula fits) is a row of its own. The line below the title says how busy the
machine was.

Limits, at 113 GFLOP/s of float32 products, 41 GB/s of reading and 64 G operations/s on 16-bit numbers on one core. In few columns a k-d
tree answers a question in 0.3 us. Elsewhere all distances are formed in both spaces: Euclidean 4 N^2 (d + 2) operations, maximum norm
6 N^2 d on 16-bit numbers, and N^2 numbers of each are read four times to find neighbours and count. The copula sorts 2d columns and
multiplies the scores, N (2d)^2 operations in float64, the neural critics pass 3 x 800 batches through two networks.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mi_peers

N = 10_000
GEMM, READ, SHORT = 113e9, 41e9, 64e9
PATIENCE = 300  # seconds
ADD_NOISE = ("scikit-learn", "ennemi")  # to the samples, against ties: their values differ from everyone's in the fifth place


@dataclass(frozen=True)
class Row:
    """One comparison. The first peer is the commonly used one; `goal` and `limit` in seconds, `differ` the largest difference in nats."""

    work: str
    shape: dict[str, Any]
    ours: str
    peers: tuple[str, ...] = ()
    goal: float | None = None
    limit: float = math.nan
    differ: float = math.inf


def tree_limit(n: int) -> float:
    return n * 0.3e-6


def tile_limit(n: int, d: int, metric: str) -> float:
    formed = 4 * n * n * (d + 2) / GEMM if metric == "Euclidean" else 6 * n * n * d / SHORT
    return formed + 4 * n * n * (4 if metric == "Euclidean" else 2) / READ


def neighbour_rows(n: int) -> list[Row]:
    near = {1: ("npeet_plus", "scikit-learn", "ennemi", "infomeasure"), 10: ("npeet_plus", "infomeasure"), 100: ("npeet_plus",)}
    goals = {(1, "maximum"): 0.012, (10, "Euclidean"): 0.55, (100, "Euclidean"): 1.0, (100, "maximum"): 9.0}
    rows = []
    for d in (1, 10, 100):
        for metric in ("maximum", "Euclidean")[: 1 if d == 1 else 2]:
            limit = tree_limit(n) if d == 1 else tile_limit(n, d, metric)
            peers = near[d] if metric == "maximum" else ("benchmark-mi, KSG",)
            rows.append(
                Row(f"KSG, k = 3, {metric}, d = {d} + {d}", {"d": d, "n": n}, f"ours, {metric}", peers, goals.get((d, metric)), limit, 1e-6)
            )
    interval = "ours, maximum, with an interval"
    return [*rows, *(Row(f"KSG with its interval, maximum, d = {d} + {d}", {"d": d, "n": n}, interval) for d in (1, 10))]


def copula_limit(n: int, d: int) -> float:
    return 2 * d * n * math.log2(n) * 0.75e-9 + n * (2 * d) ** 2 / (GEMM / 2)


def copula_rows(n: int, d: int = 100) -> list[Row]:
    shape = {"d": d, "n": n, "correlation": 0.7}
    # without ties all three take the same ranks and determinants; ours and frites also take off the same bias
    return [
        Row(f"Gaussian copula, d = {d} + {d}", shape, "ours, copula", ("frites", "scipy's ranks"), 0.1, copula_limit(n, d)),
        Row(f"Gaussian copula with its interval, d = {d} + {d}", shape, "ours, copula, with an interval"),
    ]


def neural_rows() -> list[Row]:
    shape, flops = {"d": 5, "n": N, "correlation": 0.7}, 800 * 6 * 256 * (2 * (5 * 64 + 64 * 64 + 64 * 17) + 256 * 17)
    mine = ("torch-mist, MINE", "benchmark-mi, MINE")
    return [
        Row("MINE from zero, five pairs of 0.7", shape, "ours, mine from zero", mine, 3.5, flops / GEMM),
        Row("InfoNCE from zero, five pairs of 0.7", shape, "ours, infonce from zero", ("benchmark-mi, InfoNCE",), None, flops / GEMM),
    ]


def large_rows(n: int = 100_000) -> list[Row]:
    def row(work: str, d: int, who: str, limit: float) -> Row:
        return Row(f"{work}, d = {d} + {d}, N = {n:,}", {"d": d, "n": n}, who, (), None, limit)

    return [
        row("KSG, maximum", 1, "ours, maximum", tree_limit(n)),
        row("Gaussian copula", 100, "ours, copula", copula_limit(n, 100)),
        row("KSG, Euclidean", 10, "ours, Euclidean", tile_limit(n, 10, "Euclidean")),
        row("KSG, maximum", 10, "ours, maximum", tile_limit(n, 10, "maximum")),
        row("KSG, Euclidean", 100, "ours, Euclidean", tile_limit(n, 100, "Euclidean")),
    ]


# --- measuring ----------------------------------------------------------------------------------------------------------


def in_own_process(interpreter: str, *arguments: str, patience: int | None = None) -> Any:
    one = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    xla = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    command = [interpreter, "-W", "ignore", mi_peers.__file__, *arguments]
    environment = {**os.environ, **one, "XLA_FLAGS": xla}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=patience)
    return json.loads(done.stdout.splitlines()[-1])


class Peers:
    """Which interpreter has which program, in what version."""

    def __init__(self, interpreters: list[str]) -> None:
        self.home: dict[str, str] = {}
        self.version: dict[str, str] = {}
        for interpreter in interpreters:
            for who, version in in_own_process(interpreter, "--installed").items():
                if who not in self.home:
                    self.home[who], self.version[who] = interpreter, version

    def measure(self, who: str, shape: dict[str, Any], repeats: int) -> dict[str, Any] | str:
        """What `mi_peers.run` found, or in words why nothing was."""
        interpreter = sys.executable if who.startswith("ours") else self.home.get(who)
        if interpreter is None:
            return "not installed"
        try:
            return dict(in_own_process(interpreter, json.dumps([who, shape, repeats]), patience=PATIENCE if who in self.home else None))
        except subprocess.TimeoutExpired:
            return f"more than {PATIENCE} s"


def line(row: Row, peers: Peers, repeats: int) -> str:
    mine = peers.measure(row.ours, row.shape, repeats)
    assert isinstance(mine, dict)
    cells, times = [], []
    for who in row.peers:
        found = peers.measure(who, row.shape, repeats)
        if isinstance(found, str):
            cells.append(f"{who}: {found}")
            times.append(math.inf if found.startswith("not") else float(PATIENCE))
            continue
        if who not in ADD_NOISE and abs(found["value"] - mine["value"]) > row.differ:
            raise SystemExit(f"{row.work}: {who} finds {found['value']:.9g} nats, ours {mine['value']:.9g}, more than {row.differ:g} apart")
        cells.append(f"{who} {clock(found['seconds'])}, {found['megabytes']:.0f} MB, {found['value']:.4f}")
        times.append(found["seconds"])
    known = [t for t in times if math.isfinite(t)]
    common = f"{times[0] / mine['seconds']:.1f}x" if known and math.isfinite(times[0]) else ""
    fastest = f"{min(known) / mine['seconds']:.1f}x" if known else ""
    goal = clock(row.goal) if row.goal else ""
    limit = f"{clock(row.limit)} ({mine['seconds'] / row.limit:.1f}x)" if math.isfinite(row.limit) else ""
    value = f"{mine['value']:.4f}"
    own = [row.work, clock(mine["seconds"]), f"{mine['megabytes']:.0f} MB", value, "; ".join(cells), common, fastest, goal, limit]
    return "| " + " | ".join(own) + " |"


def clock(value: float) -> str:
    return f"{value * 1e3:.1f} ms" if value < 0.1 else f"{value:.2f} s"


def held_out(peers: Peers, seeds: int) -> list[str]:
    """How near the truth the critics come that start from zero, and what they find where there is nothing."""
    truth = -2.5 * math.log(1 - 0.49)
    lines = ["| estimator | samples | seed | nats | error | CPU |", "| --- " * 6 + "|"]
    for who in ("ours, mine from zero", "ours, infonce from zero", "ours, mine from a normal fit"):
        for seed in range(seeds):
            for shuffled in (False, True):
                found = peers.measure(who, {"d": 5, "n": N, "correlation": 0.7, "seed": seed, "shuffled": shuffled}, 1)
                assert isinstance(found, dict)
                value = found["value"]
                error = f"{value:+.4f} nat" if shuffled else f"{100 * (value / truth - 1):+.1f} %"
                name = "independent" if shuffled else f"five pairs of 0.7, {truth:.4f} nats"
                cells = [who[6:], name, str(seed), f"{value:.4f}", error, clock(found["seconds"])]
                lines.append(f"| {' | '.join(cells)} |")
                print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peers", nargs="*", default=[], help="interpreters of environments that hold other programs")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--large", action="store_true", help="also N = 100,000")
    parser.add_argument("--only", default="", help="rows whose work holds this word")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    peers, load = Peers([*options.peers, sys.executable]), os.getloadavg()[0]
    head = (
        "| work, N = 10,000 | ours | memory | nats | peers: the commonly used one first | to that | to the fastest | goal "
        "| limit (ours / limit) |"
    )
    lines = [head, "| --- " * 9 + "|"]
    print("\n".join(lines), flush=True)
    for row in [*neighbour_rows(N), *copula_rows(N), *neural_rows(), *(large_rows() if options.large else [])]:
        if options.only.lower() in row.work.lower():
            lines.append(line(row, peers, options.repeats))
            print(lines[-1], flush=True)
    neural = held_out(peers, options.seeds) if options.only.lower() in "mine held out" else []
    if options.out:
        versions = ", ".join(f"{name} {v}" for name, v in sorted({mi_peers.NEEDS[w][1]: v for w, v in peers.version.items()}.items()))
        busy = f"{load:.1f} processes wanted the {os.cpu_count()} cores when it began and {os.getloadavg()[0]:.1f} when it ended"
        text = [f"# Speed of neighbour, copula and neural estimators\n\n{busy}. Peers: {versions}.\n", __doc__, *lines]
        text += ["\n## The neural bounds, held out\n", *neural] if neural else []
        options.out.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
