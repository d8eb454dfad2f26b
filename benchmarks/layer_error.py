"""Output error of one linear layer pruned by magnitude, Wanda and SparseGPT, on calibration inputs and on fresh ones of the same kind.

Run: python benchmarks/layer_error.py [--seeds 5]. Prints a Markdown table: squared error of the outputs over their variance, the median
over the seeds. Inputs (1,024 of 64 features) are a 12-dimensional Gaussian mixed at random, plus noise, with scales from 0.2 to 3.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

import prunescope as ps

CRITERIA = ("magnitude", "wanda", "sparsegpt")
WAYS: dict[str, dict[str, object]] = {
    "50 %": {"sparsity": 0.5}, "70 %": {"sparsity": 0.7}, "90 %": {"sparsity": 0.9}, "2:4": {"granularity": "2:4"},
}  # fmt: skip


def inputs(seed: int, samples: int = 1024, width: int = 64, rank: int = 12) -> tuple[Tensor, Tensor]:
    """Calibration inputs and fresh ones, both (samples, width), from one mixing matrix."""
    g = torch.Generator().manual_seed(seed)
    mixing = torch.randn(rank, width, generator=g)
    scales = torch.linspace(0.2, 3, width)
    first, second = (
        (torch.randn(samples, rank, generator=g) @ mixing + 0.3 * torch.randn(samples, width, generator=g)) * scales for _ in range(2)
    )
    return first, second


def error(criterion: str, way: dict[str, object], seed: int) -> tuple[float, float]:
    """Relative squared output error on the calibration inputs and on fresh ones."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(64, 64))
    x, fresh = inputs(seed)
    with torch.no_grad():
        before = net(x), net(fresh)
        ps.prune(net, criterion=criterion, data=x, output=True, **way)  # type: ignore[arg-type]
        after = net(x), net(fresh)
    a, b = (float((p - q).square().mean() / q.var()) for p, q in zip(after, before, strict=True))
    return a, b


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    seeds = range(parser.parse_args().seeds)
    print("| removed | inputs | " + " | ".join(CRITERIA) + " |\n| --- | --- |" + " ---: |" * len(CRITERIA))
    for name, way in WAYS.items():
        found = {c: torch.tensor([error(c, way, s) for s in seeds]).median(0).values for c in CRITERIA}
        for column, which in enumerate(("calibration", "fresh")):
            print(f"| {name} | {which} | " + " | ".join(f"{float(found[c][column]):.4f}" for c in CRITERIA) + " |")


if __name__ == "__main__":
    main()
