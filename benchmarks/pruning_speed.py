"""One global magnitude call at 90 % beside torch.nn.utils.prune: seconds, extra memory, and the floor that the machine sets.

    python benchmarks/pruning_speed.py [--only WORD] [--repeats 5] [--out FILE.md]

One thread, each network and each side in a process of its own, memory touched before the clock starts. Times are the median of the
repeats, in seconds of the process's own CPU time and of the clock. Memory is what the call adds to the process at its peak, in multiples of
the weights (4 bytes each); masks alone are 0.25. The floor reads every weight once, writes every mask byte, and zeroes what is masked.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

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


SIDES = {"ours": ours, "torch.nn.utils.prune": peer, "floor": floor}


class Peak(threading.Thread):
    """The largest resident size of the process while it runs, in bytes, looked at every millisecond."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self._going = resident(), True

    def run(self) -> None:
        while self._going:
            self.peak = max(self.peak, resident())
            time.sleep(0.001)

    def stop(self) -> int:
        self._going = False
        self.join()
        return self.peak


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measured(network: str, side: str, repeats: int) -> dict[str, float]:
    """Median seconds and peak memory of one side on one network, in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    SIDES[side](nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)))  # what is imported and set up once is not counted
    model = NETWORKS[network]()
    weights = sum(p.numel() for p in prunable(model).values())
    state = {n: v.clone() for n, v in model.state_dict().items()}
    clock, cpu, extra = [], [], []
    for repeat in range(repeats + 1):
        model = NETWORKS[network]()
        model.load_state_dict(state)
        before, watch = resident(), Peak()
        watch.start()
        started, used = time.perf_counter(), time.process_time()
        SIDES[side](model)
        clock.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
        extra.append((watch.stop() - before) / (4 * weights))
        if repeat == 0:
            clock, cpu, first = [], [], extra.pop()
            extra = [first]  # memory of the first call: later ones reuse what it left
    return {"weights": weights, "seconds": sorted(clock)[len(clock) // 2], "cpu": sorted(cpu)[len(cpu) // 2], "memory": max(extra[:1])}


def table(rows: list[tuple[str, dict[str, dict[str, float]]]]) -> str:
    lines = [
        "| network | weights | ours | torch.nn.utils.prune | ratio | floor | ours / floor | memory, ours | memory, torch |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, found in rows:
        a, b, c = (found[side] for side in SIDES)
        lines.append(
            f"| {name} | {a['weights']:,.0f} | {a['cpu']:.4f} s | {b['cpu']:.2f} s | {b['cpu'] / a['cpu']:.0f}x | {c['cpu']:.4f} s "
            f"| {a['cpu'] / c['cpu']:.1f} | {a['memory']:.2f} | {b['memory']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", nargs=2)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measured(*options.child, repeats=options.repeats)))
        return
    rows = []
    for name in [n for n in NETWORKS if options.only.lower() in n.lower()]:
        found = {}
        for side in SIDES:
            repeats = "2" if side == "torch.nn.utils.prune" else str(options.repeats)
            command = [sys.executable, __file__, "--child", name, side, "--repeats", repeats]
            found[side] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.append((name, found))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    if options.out:
        options.out.write_text(f"{table(rows)}\n")


if __name__ == "__main__":
    main()
