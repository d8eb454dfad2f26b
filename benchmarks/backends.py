"""What pruning gains on this machine: zeros in dense tensors, CSR and smaller layers on every back-end, and where CSR begins to pay.

    python benchmarks/backends.py [--seconds 0.5] [--batch-sizes 1,64] [--out DIR]

An MLP 784-1000-1000-10 dense, with 90 and 95 % of its weights at zero, and with half its hidden units. One thread, processor time, all
networks and back-ends in turns; speed-ups are over the dense network's best dense back-end, so that 1.0 is what one has without pruning.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from prunescope.measures.breakeven import sparsified
from prunescope.measures.comparison import Bench, bench

BACKENDS = ("eager", "compile", "torch-int8", "torchao-int8", "onnxruntime", "onnxruntime-int8", "openvino", "openvino-sparse", "csr")


def mlp(width: int) -> nn.Module:
    """784-width-width-10, untrained: time does not depend on the values of weights, only on which are zero."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))


def networks() -> dict[str, nn.Module]:
    """Dense, with zeros at random, and smaller."""
    dense = mlp(1000)
    return {"dense": dense, "90 % zeros": sparsified(dense, 0.9), "95 % zeros": sparsified(dense, 0.95), "half the units": mlp(500)}


def table(found: Bench) -> list[str]:
    """Markdown: speed-ups of each network (columns) on each back-end (rows) at each batch size."""
    names = list(found.sizes)
    lines = ["| batch | back-end | " + " | ".join(names) + " |", "| ---: | --- |" + " ---: |" * len(names)]
    rows = found.to_frame()
    for (size, backend), part in rows.groupby(["batch_size", "backend"], sort=False):
        by_name = {r.model: r for r in part.itertuples()}
        cells = [f"{by_name[n].speedup:.2f}" if n in by_name and by_name[n].reason == "" else "-" for n in names]
        lines.append(f"| {size} | {backend} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--batch-sizes", default="1,64")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    sizes = [int(n) for n in given.batch_sizes.split(",")]
    torch.set_num_threads(1)
    found = bench(
        networks(), torch.randn(64, 784), backends=BACKENDS, batch_sizes=sizes, break_even=True, seconds=given.seconds, clock="processor"
    )
    print(f"torch {torch.__version__}, one thread, processor time, load {found.setting['load']}")
    print("\n".join(table(found)))
    print(found.reference)
    for name, size in found.sizes.items():
        print(name, {k: int(v) for k, v in size.items()})
    for row in found.rows:
        if row.reason:
            print(f"{row.model} on {row.backend}, batch {row.batch_size}: {row.reason}")
    for one in found.break_evens:
        said = "never" if one.sparsity is None else f"{one.sparsity:.3f}"
        ends = ", ".join("beyond" if e is None else f"{e:.3f}" for e in one.interval)
        print(f"batch {one.batch_size}: {one.what}, {one.backend} against {one.dense}: {said} ({ends}) {one.reason}")
    if given.out is not None:
        found.save(given.out)


if __name__ == "__main__":
    main()
