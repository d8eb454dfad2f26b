"""Processor seconds that one call of `prune` takes with each criterion, on LeNet-300-100 (266,200 weights) and 512 samples.

Run: OMP_NUM_THREADS=1 python benchmarks/criteria_cost.py. Criteria of units prune neurons, others weights; the faster of two calls counts.
`obd` has ten probes; `synflow` its 100 rounds. Prints a Markdown table.
"""

from __future__ import annotations

import copy
import time
from typing import Any

import torch
from torch import nn

import prunescope as ps
import prunescope.pruning  # fills the registry
from prunescope.registry import criteria

OPTIONS: dict[str, dict[str, Any]] = {"obd": {"probes": 10}}


def network() -> nn.Sequential:
    """LeNet-300-100 with BatchNorm after the hidden layers, so that every criterion applies."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(784, 300), nn.BatchNorm1d(300), nn.ReLU(), nn.Linear(300, 100), nn.BatchNorm1d(100), nn.ReLU(), nn.Linear(100, 10)
    )


def seconds(criterion: str, net: nn.Module, data: tuple[torch.Tensor, torch.Tensor], initial: dict[str, torch.Tensor]) -> float:
    """The faster of two calls, processor time in seconds."""
    granularity = "neuron" if criteria.get(criterion).traits.get("level") == "unit" else "weight"
    found = []
    for _ in range(2):
        own = copy.deepcopy(net)
        start = time.process_time()
        ps.prune(
            own, sparsity=0.5, criterion=criterion, granularity=granularity, data=data, initial=initial, options=OPTIONS.get(criterion)
        )
        found.append(time.process_time() - start)
    return min(found)


def main() -> None:
    """Print the table."""
    net = network()
    g = torch.Generator().manual_seed(0)
    data = (torch.randn(512, 784, generator=g), torch.randint(0, 10, (512,), generator=g))
    initial = {n: torch.randn(p.shape, generator=g) for n, p in net.named_parameters()}
    print("| criterion | seconds |\n| --- | ---: |")
    for name in criteria.names():
        print(f"| {name} | {seconds(name, net, data, initial):.2f} |", flush=True)


if __name__ == "__main__":
    main()
