"""What masks cost: a training step with masks held by the optimiser's hook beside the same step without, in one bare PyTorch loop.

    python benchmarks/masked_step.py [--repeats 15]

Milliseconds of processor time a step (medians) and the median ratio masked / dense of neighbouring pairs, because machines drift; the goal
is at most 1.05. The hook is one product with float masks: weights and masks read, weights written, 12 bytes a weight at any sparsity.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import torch
from torch import Tensor, nn

import prunescope as ps

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, fused=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
}


class Block(nn.Module):
    """Two 3 x 3 convolutions and what goes past them (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.body = nn.Sequential(first, nn.BatchNorm2d(outputs), nn.ReLU(), second, nn.BatchNorm2d(outputs))
        even = inputs == outputs and stride == 1
        self.past = nn.Identity() if even else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.past(x))


def resnet18() -> nn.Module:
    """ResNet-18 for images of 32 x 32: 11.2 M weights."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    for inputs, outputs, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)):
        layers += [Block(inputs, outputs, stride), Block(outputs, outputs, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def large_mlp() -> nn.Module:
    """784-1000-1000-500-200-10: 2.4 M weights."""
    widths = [784, 1000, 1000, 500, 200, 10]
    layers = [m for a, b in zip(widths, widths[1:], strict=False) for m in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


CASES = {
    "large MLP, batch 64": (large_mlp, (64, 784), 20),
    "large MLP, batch 256": (large_mlp, (256, 784), 6),
    "ResNet-18, 32 x 32, batch 16": (resnet18, (16, 3, 32, 32), 1),
    "ResNet-18, 32 x 32, batch 64": (resnet18, (64, 3, 32, 32), 1),
}


def compare(make, shape: tuple[int, ...], steps: int, optimizer: str, repeats: int) -> tuple[float, float, float]:
    """Median milliseconds of a dense and of a masked step, and the median ratio of neighbouring pairs."""
    torch.manual_seed(0)
    model = make()
    x, y = torch.randn(shape), torch.randint(0, 10, shape[:1])
    step = OPTIMIZERS[optimizer](model.parameters())
    masks = ps.prune(model, sparsity=0.9)

    def train(count: int) -> None:
        for _ in range(count):
            step.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            step.step()

    seconds: dict[bool, list[float]] = {True: [], False: []}
    for repeat in range(repeats + 1):
        for masked in (False, True) if repeat % 2 else (True, False):
            held = masks.attach(step) if masked else None
            train(1)
            start = time.process_time()
            train(steps)
            seconds[masked].append((time.process_time() - start) / steps * 1e3)
            if held is not None:
                held.remove()
    dense, with_masks = seconds[False][1:], seconds[True][1:]
    ratios = [a / b for a, b in zip(with_masks, dense, strict=True)]
    return statistics.median(dense), statistics.median(with_masks), statistics.median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, 90 % sparsity, medians of {repeats}, load {os.getloadavg()[0]:.1f}")
    for name, (make, shape, steps) in CASES.items():
        for optimizer in OPTIMIZERS:
            dense, masked, ratio = compare(make, shape, steps, optimizer, repeats)
            print(f"{name:30s} {optimizer:5s} dense {dense:8.2f} ms  masked {masked:8.2f} ms  masked/dense {ratio:5.3f}")


if __name__ == "__main__":
    main()
