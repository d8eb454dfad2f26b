"""What an information plane costs: milliseconds an epoch for whole networks, one thread, by estimator.

    python benchmarks/plane.py [--repeats 5]

Activations are recorded once; what is timed is `plane_points` with the reference (labels, input) made once, as a recorder does. The
last lines give replicates of one network in one call beside a loop over them. CPU milliseconds, the least of the repeats.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable
from functools import partial

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from prunescope.information import plane_points, reference

NETS = {
    "tanh net 12-10-7-5-4-3-2, 4,096 patterns": ([12, 10, 7, 5, 4, 3, 2], 4096),
    "MLP 784-1024-20-20-20-20-10, 10,000 samples": ([784, 1024, 20, 20, 20, 20, 10], 10_000),
    "large MLP 784-1000-1000-500-200-10, 10,000 samples": ([784, 1000, 1000, 500, 200, 10], 10_000),
}
SPECS = {
    "binning": {"name": "binning"},
    "binning, own range": {"name": "binning", "range": "data"},
    "KDE, variance 0.001": {"name": "kde", "noise": 1e-3},
    "KDE, variance 0.1": {"name": "kde", "noise": 0.1},
    "Gaussian copula": {"name": "gaussian-copula"},
}


def record(widths: list[int], n: int, *lead: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Input and activations of a random tanh network (of several, for `lead` replicates)."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, widths[0], generator=g)
    t, layers = x, {}
    for i, (fan_in, width) in enumerate(itertools.pairwise(widths), 1):
        t = torch.tanh(t @ torch.randn(*lead, fan_in, width, generator=g) / fan_in**0.5)
        layers[f"layer {i}"] = t
    return x, layers


def milliseconds(work: Callable[[], object], repeats: int) -> float:
    """Least CPU milliseconds of a call after a warm-up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print("| network | " + " | ".join(SPECS) + " |\n" + "| --- " * (len(SPECS) + 1) + "|")
    for title, (widths, n) in NETS.items():
        x, layers = record(widths, n)
        ref = reference(torch.arange(n) % 10, x)
        ranges = dict.fromkeys(layers, (-1.0, 1.0))
        calls = [partial(plane_points, layers, ref, estimators=[spec], ranges=ranges) for spec in SPECS.values()]
        costs = [milliseconds(call, repeats) for call in calls]
        print(f"| {title} | " + " | ".join(f"{c:.1f} ms" for c in costs) + " |", flush=True)
    x, layers = record([12, 10, 7, 5, 4, 3, 2], 4096, 20)
    ref = reference(torch.arange(4096) % 2, x)
    together = milliseconds(lambda: plane_points(layers, ref, replicates=True), repeats)
    alone = milliseconds(lambda: [plane_points({k: v[r] for k, v in layers.items()}, ref) for r in range(20)], repeats)
    print(f"\n20 replicates of the tanh net, binning: {together:.1f} ms in one call, {alone:.1f} ms one by one")


if __name__ == "__main__":
    main()
