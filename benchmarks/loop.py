"""Our training loop (masks on, nothing measured) beside a bare PyTorch loop on the same tensors in memory.

    python benchmarks/loop.py [--repeats 7]

Prints milliseconds a step (medians) and the ratio ours / bare, taken pair by pair because machines drift; the goal is at most 1.1.
Then the binned plane's own cost: 10,000 samples x 1,024 units.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import nn

import prunescope.models
from prunescope.config import TrainingConfig
from prunescope.information import plane_points, reference
from prunescope.pruning import prune
from prunescope.training import train
from prunescope.types import Split

CASES = {
    "tanh net 12-10-7-5-4-3-2, SGD, batch 512": (12, 2, [10, 7, 5, 4, 3], "tanh", 11_881, 512, "sgd", 10),
    "tanh net 12-10-7-5-4-3-2, Adam, batch 512": (12, 2, [10, 7, 5, 4, 3], "tanh", 11_881, 512, "adam", 10),
    "large MLP 784-1000-1000-500-200-10, Adam, batch 64": (784, 10, [1000, 1000, 500, 200], "relu", 6_400, 64, "adam", 1),
    "large MLP 784-1000-1000-500-200-10, SGD, batch 64": (784, 10, [1000, 1000, 500, 200], "relu", 6_400, 64, "sgd", 1),
}


def bare(model: nn.Module, data: Split, optimizer: str, lr: float, batch: int, epochs: int) -> int:
    """The loop anyone would write, with torch's default optimiser: no masks, no events, no seeds."""
    step = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer](model.parameters(), lr=lr)
    count = 0
    for _ in range(epochs):
        for rows in torch.randperm(len(data)).split(batch):
            step.zero_grad()
            nn.functional.cross_entropy(model(data.x[rows]), data.y[rows]).backward()
            step.step()
            count += 1
    return count


def compare(case: tuple, repeats: int) -> tuple[float, float, float]:
    """Median milliseconds a step of ours and of the bare loop, and the median ratio of neighbouring pairs."""
    features, classes, widths, activation, n, batch, optimizer, epochs = case
    generator = torch.Generator().manual_seed(0)
    data = Split(torch.randn(n, features, generator=generator), torch.randint(0, classes, (n,), generator=generator))
    settings = TrainingConfig(epochs=epochs, batch_size=batch, optimizer=optimizer, lr=1e-3)
    options = {"widths": widths, "activation": activation}
    model = prunescope.models.build("mlp", input_shape=(features,), classes=classes, seed=0, options=options)
    masks = prune(model, sparsity=0.5)
    ours, theirs = [], []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        steps = train(model, data, settings, seed=0, masks=masks).steps
        middle = time.perf_counter()
        bare(model, data, optimizer, 1e-3, batch, epochs)
        ours.append((middle - start) / steps * 1e3)
        theirs.append((time.perf_counter() - middle) / steps * 1e3)
    pairs = list(zip(ours, theirs, strict=True))[1:]
    return statistics.median(ours[1:]), statistics.median(theirs[1:]), statistics.median(a / b for a, b in pairs)


def plane_seconds(repeats: int, samples: int = 10_000, units: int = 1024) -> float:
    """Median seconds of I(X;T), I(T;Y) and H(T) of one layer by 30 bins: rows are hashed and sorted, never compared in Python."""
    generator = torch.Generator().manual_seed(0)
    layer = {"act": torch.randn(samples, units, generator=generator).tanh()}
    labels = reference(torch.randint(0, 10, (samples,), generator=generator))
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        plane_points(layer, labels, estimators=[{"name": "binning", "bins": 30, "range": (-1.0, 1.0)}])
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, medians of {repeats}")
    for name, case in CASES.items():
        ours, theirs, ratio = compare(case, repeats)
        print(f"{name:54s} ours {ours:7.3f} ms  bare {theirs:7.3f} ms  ours/bare {ratio:5.2f}")
    print(f"{'binned plane of 10,000 samples x 1,024 units':54s} {plane_seconds(repeats):.4f} s (goal: below 0.2)")


if __name__ == "__main__":
    main()
