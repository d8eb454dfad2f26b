"""One global magnitude call at 90 % beside torch.nn.utils.prune: seconds, extra memory, and the floor that the machine sets.

    python benchmarks/pruning_speed.py [--only WORD] [--repeats 9] [--out FILE.md]

One thread, each network and each side in a process of its own. Time: median seconds of the process's own CPU time over the repeats, after
one call that touches the memory. The floor reads every weight once, writes every mask byte and zeroes what is masked; its first half
(read, write masks) is measured by itself too.

Memory: what one call adds to the resident size of a fresh process at its peak (the kernel's own high-water mark, VmHWM, set back to the
present size through /proc/self/clear_refs just before the call), in bytes a weight: a mask is 1. Below 20 M weights the median of three
processes. What is imported and set up once is out of it (another network was pruned first and is gone), and freed memory cannot serve
again unseen: the C library is told to map every block of 64 KiB and more by itself (MALLOC_MMAP_THRESHOLD_). Linux only.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

import prunescope as ps
from prunescope.pruning import prunable


def large_mlp() -> nn.Module:
    widths = [784, 1000, 1000, 500, 200, 10]
    return nn.Sequential(*(nn.Linear(a, b) for a, b in itertools.pairwise(widths)))


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv2(torch.relu(self.conv1(x))) + self.shortcut(x))


def resnet18() -> nn.Module:
    shapes = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
    blocks = [Block(*s) for s in shapes]
    return nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


def vit_b() -> nn.Module:
    layer = nn.TransformerEncoderLayer(768, 12, 3072, batch_first=True, activation="gelu")
    encoder = nn.TransformerEncoder(layer, 12, enable_nested_tensor=False)
    return nn.ModuleDict({"patches": nn.Conv2d(3, 768, 16, 16), "encoder": encoder, "head": nn.Linear(768, 1000)})


def linears() -> nn.Module:
    return nn.ModuleList(nn.Linear(2048, 2048) for _ in range(24))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "large MLP": large_mlp,
    "ResNet-18": resnet18,
    "ViT-B": vit_b,
    "24 x Linear 2048": linears,
}


def ours(model: nn.Module) -> None:
    ps.prune(model, sparsity=0.9, allocation="global", output=True, allow_empty=True)  # torch empties layers too, silently


def peer(model: nn.Module) -> None:
    owned = [(m, n) for m in model.modules() for n, p in m.named_parameters(recurse=False) if p.ndim > 1]
    torch_prune.global_unstructured(owned, torch_prune.L1Unstructured, amount=0.9)


def floor(model: nn.Module) -> None:
    masks = []
    for p in prunable(model).values():
        mask = torch.empty(p.shape, dtype=torch.bool)
        masks.append(mask)
        flat, bits = p.detach().view(-1), mask.view(-1)
        for a, b in zip(flat.split(1 << 18), bits.split(1 << 18), strict=True):
            b.copy_((a.view(torch.int32) > 0x3C000000).view(torch.bool))
            a.view(torch.int32).mul_(b)


def read_once(model: nn.Module) -> None:
    for p in prunable(model).values():
        mask = torch.empty(p.shape, dtype=torch.bool)
        for a, b in zip(p.detach().view(-1).split(1 << 18), mask.view(-1).split(1 << 18), strict=True):
            np.greater(a.numpy(), 0.02, out=b.numpy())


SIDES = {"ours": ours, "torch.nn.utils.prune": peer, "floor": floor, "read once": read_once}


def status(key: str) -> int:
    """A size of this process as the kernel counts it, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{key}:")).split()[1])


def warmed(side: str) -> None:
    """What is imported and set up once is not counted: one call on another network, of 2.4 M weights."""
    SIDES[side](large_mlp())


def seconds(network: str, side: str, repeats: int) -> float:
    """Median seconds of CPU time of one side on one network, in this process."""
    warmed(side)
    torch.manual_seed(0)
    model = NETWORKS[network]()
    state = {n: v.clone() for n, v in model.state_dict().items()}
    found = []
    for _ in range(repeats + 1):
        model = NETWORKS[network]()
        model.load_state_dict(state)
        used = time.process_time()
        SIDES[side](model)
        found.append(time.process_time() - used)
    return statistics.median(found[1:])


def memory(network: str, side: str) -> float:
    """Bytes a weight that one call of one side adds to this process at its peak."""
    warmed(side)
    torch.manual_seed(0)
    model = NETWORKS[network]()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew at the present size
    before = status("VmRSS")
    SIDES[side](model)
    return (status("VmHWM") - before) / sum(p.numel() for p in prunable(model).values())


def child(*arguments: object) -> float:
    command = [sys.executable, __file__, "--child", *map(str, arguments)]
    alone = {"MALLOC_MMAP_THRESHOLD_": str(1 << 16), "MALLOC_ARENA_MAX": "1"} if arguments[0] == "memory" else {}
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **alone}).stdout)


def row(name: str, repeats: int) -> str:
    weights = sum(p.numel() for p in prunable(NETWORKS[name]()).values())
    time_of = {s: child("seconds", name, s, 1 if s == "torch.nn.utils.prune" and weights > 2e7 else repeats) for s in SIDES}
    tries = 3 if weights < 2e7 else 1  # what is not the tensors' is lost in those of large networks
    memory_of = {s: statistics.median(child("memory", name, s, 0) for _ in range(tries)) for s in list(SIDES)[:2]}
    a, b, c, d = time_of.values()
    x, y = memory_of.values()
    return (
        f"| {name} | {weights:,} | {a * 1e3:.1f} ms | {b * 1e3:,.0f} ms | {b / a:.0f}x | {c * 1e3:.1f} ms | {a / c:.1f} | {d * 1e3:.1f} ms "
        f"| {x:.2f} | {y:.1f} |"
    )


HEAD = [
    "| network | weights | ours | torch.nn.utils.prune | ratio | floor | ours / floor | read, write masks | bytes a weight | torch's |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", nargs=4, metavar=("WHAT", "NETWORK", "SIDE", "REPEATS"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.child:
        what, network, side, repeats = options.child
        print(seconds(network, side, int(repeats)) if what == "seconds" else memory(network, side))
        return
    rows = []
    for name in [n for n in NETWORKS if options.only.lower() in n.lower()]:
        rows.append(row(name, options.repeats))
        print(rows[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join([*HEAD, *rows]) + "\n")


if __name__ == "__main__":
    main()
