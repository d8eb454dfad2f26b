"""Neighbour and neural estimators beside the peers that are installed, one thread, each case in a process of its own.

    python benchmarks/mi_speed_knn.py [--repeats 5] [--large]

Prints seconds (best of the repeats after one warm-up: the machines are shared), memory above the process's state before the call, and the
value in nats. Peers: scikit-learn (one column), npeet_plus and infomeasure where they can be imported. --large adds n = 100,000.
Limits: KSG in tiles forms n^2 distances twice, 4 n^2 d float32 operations (d = 100, n = 10,000: 40 GFLOP, 0.35 s at 113 GFLOP/s), and
searches 100 million numbers for the k smallest of each row (0.15 s); in one column a k-d tree answers 10,000 questions in 7-8 ms.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

N = 10_000


def sample(d: int, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """d correlated normal pairs: correlation 0.6 up to 10 columns, 0.2 beyond."""
    random, c = np.random.default_rng(0), 0.6 if d <= 10 else 0.2
    x = random.standard_normal((n, d))
    return x, c * x + math.sqrt(1 - c * c) * random.standard_normal((n, d))


def ours(name: str, **options: Any) -> Callable[[np.ndarray, np.ndarray], float]:
    import prunescope.information  # noqa: F401  (registers the estimators)
    from prunescope.registry import estimators

    function = estimators.get(name).function
    return lambda x, y: float(function(torch.from_numpy(x), torch.from_numpy(y), **options).value)


def scikit_learn() -> Callable[[np.ndarray, np.ndarray], float]:
    from sklearn.feature_selection import mutual_info_regression

    return lambda x, y: float(mutual_info_regression(x, y[:, 0], n_neighbors=3, random_state=0)[0])


def npeet() -> Callable[[np.ndarray, np.ndarray], float]:
    import npeet_plus

    return lambda x, y: float(npeet_plus.mi(x, y, k=3, base=math.e))


def infomeasure() -> Callable[[np.ndarray, np.ndarray], float]:
    import infomeasure as im

    return lambda x, y: float(im.mutual_information(x, y, approach="ksg", k=3, base="e"))


MAKERS: dict[str, Callable[[], Callable[[np.ndarray, np.ndarray], float]]] = {
    "ours, maximum": lambda: ours("ksg", metric="max"),
    "ours, Euclidean": lambda: ours("ksg", metric="euclidean"),
    "scikit-learn": scikit_learn,
    "npeet_plus": npeet,
    "infomeasure": infomeasure,
    "ours, mine": lambda: ours("mine"),
    "ours, mine from zero": lambda: ours("mine", start="zero"),
    "ours, infonce": lambda: ours("infonce"),
    "ours, auto": lambda: ours("auto"),
}
NEEDS = {"npeet_plus": ("npeet_plus",), "infomeasure": ("infomeasure", "sparse", "numba")}


def knn_cases(large: bool) -> list[tuple[str, int, int]]:
    cases = [(who, d, N) for d in (1, 10, 100) for who in ("ours, maximum", "ours, Euclidean", "npeet_plus", "infomeasure")]
    cases.insert(2, ("scikit-learn", 1, N))
    if large:
        cases += [("ours, maximum", 1, 100_000), ("ours, Euclidean", 10, 100_000), ("ours, maximum", 10, 100_000)]
    return cases


def neural_cases() -> list[tuple[str, int, int]]:
    """Five pairs of correlation 0.6: 1.116 nats."""
    return [(who, 5, N) for who in ("ours, mine", "ours, mine from zero", "ours, infonce", "ours, auto")]


def run(who: str, d: int, n: int, repeats: int) -> dict[str, float]:
    """Measured in this process: seconds, megabytes above the state after a small warm-up, value."""
    torch.set_num_threads(1)
    call, (x, y) = MAKERS[who](), sample(d, n)
    call(x[:500], y[:500])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times, value, budget = [], math.nan, time.perf_counter() + 30
    for _ in range(repeats):
        started = time.perf_counter()
        value = call(x, y)
        times.append(time.perf_counter() - started)
        if time.perf_counter() > budget:
            break
    return {"seconds": min(times), "megabytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, "value": value}


def in_own_process(case: tuple[str, int, int], repeats: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--case", json.dumps(case), "--repeats", str(repeats)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def report(title: str, cases: list[tuple[str, int, int]], repeats: int) -> None:
    print(f"\n{title}\n| d | n | who | seconds | MB | nats |\n| ---: | ---: | --- | ---: | ---: | ---: |")
    for who, d, n in cases:
        if any(importlib.util.find_spec(module) is None for module in NEEDS.get(who, ())):
            print(f"| {d} | {n:,} | {who} | not installed | | |")
            continue
        got = in_own_process((who, d, n), repeats)
        print(f"| {d} | {n:,} | {who} | {got['seconds']:.4f} | {got['megabytes']:.0f} | {got['value']:.4f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--case")
    options = parser.parse_args()
    if options.case:
        print(json.dumps(run(*json.loads(options.case), options.repeats)))
        return
    report("Kraskov, k = 3", knn_cases(options.large), options.repeats)
    report("Neural bounds and auto, held out: five pairs of correlation 0.6, 1.116 nats", neural_cases(), options.repeats)


if __name__ == "__main__":
    main()
