"""Making a network smaller, in seconds, beside Torch-Pruning; and the smaller network beside one that was written by hand in that shape.

    python benchmarks/compact_speed.py [--peers PYTHON] [--only WORD] [--memory GIB] [--out FILE.md]

PYTHON is that of another environment, with torch, numpy, scipy, scikit-learn, safetensors, pydantic and torch-pruning (1.6.1). Every side
works on every network in a process of its own, which may use --memory GiB, after a small network that warms it up.

Half of the channels of every coupled group goes, by magnitude, output layers exempt; images of 224 x 224, two at a time. Seconds are
processor time of one thread. Torch-Pruning: building its graph and one step of its MagnitudePruner. Ours: choosing the channels
(`ps.prune`, which traces the network too), making the smaller network (`ps.compact`: trace, plan, build), and checking it against the
masked one in double and in single precision, which the peer leaves to the user.

Latency: the compacted network over the same class written by hand with half the widths, in turn, eager, one image, median of the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Row = dict[str, Any]
SIZE, CLASSES, BATCH = 224, 1000, 2


class Attention(nn.Module):
    """Self-attention of `heads` heads of `size` over (batch, places, width); a bias a pair of places where `pairs` is their number."""

    def __init__(self, width: int, heads: int, size: int, pairs: int = 0) -> None:
        super().__init__()
        self.heads, self.size = heads, size
        self.q, self.k, self.v = (nn.Linear(width, heads * size) for _ in range(3))
        self.out = nn.Linear(heads * size, width)
        self.pairs = nn.Parameter(torch.randn(heads, pairs, pairs)) if pairs else None

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (-1, self.size)).transpose(1, 2) for f in (self.q, self.k, self.v))
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=None if self.pairs is None else self.pairs[None])
        return self.out(x.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A transformer block with the norms first; over windows of `side` x `side` places, rolled by `shift`, where `side` is set."""

    def __init__(self, width: int, heads: int, size: int, side: int = 0, shift: int = 0) -> None:
        super().__init__()
        self.side, self.shift = side, shift
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, size, side * side)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + (self.windows(self.norm1(x)) if self.side else self.attention(self.norm1(x)))
        return x + self.mlp(self.norm2(x))

    def windows(self, x: Tensor) -> Tensor:
        b, h, w, _ = x.shape
        s = self.side
        x = torch.roll(x, (-self.shift, -self.shift), (1, 2)) if self.shift else x
        x = x.unflatten(2, (w // s, s)).unflatten(1, (h // s, s)).transpose(2, 3).flatten(0, 2).flatten(1, 2)
        x = self.attention(x).unflatten(1, (s, s)).unflatten(0, (b, h // s, w // s)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return torch.roll(x, (self.shift, self.shift), (1, 2)) if self.shift else x


class ViT(nn.Module):
    """ViT-B/16 at `width` 768 (Dosovitskiy et al. 2021, table 1)."""

    def __init__(self, width: int = 768, depth: int = 12) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.token, self.places = nn.Parameter(torch.randn(1, 1, width)), nn.Parameter(torch.randn(1, (SIZE // 16) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(Block(width, width // 64, 64) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        return self.head(self.norm(self.blocks(x))[:, 0])


class Swin(nn.Module):
    """Swin-T at `width` 96 (Liu et al. 2021, section 3.3); a bias for every pair of places of a window, no mask at the rolled border."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        heads, depths = (3, 6, 12, 24), (2, 2, 6, 2)
        self.patches, self.norm0 = nn.Conv2d(3, width, 4, 4), nn.LayerNorm(width)
        widths = [width * 2**i for i in range(4)]
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(w, n, 32, 7, 3 * (i % 2)) for i in range(d))) for w, n, d in zip(widths, heads, depths, strict=True)
        )
        self.merged = nn.ModuleList(nn.LayerNorm(4 * w) for w in widths[:3])
        self.reduced = nn.ModuleList(nn.Linear(4 * w, 2 * w, bias=False) for w in widths[:3])
        self.norm, self.head = nn.LayerNorm(widths[3]), nn.Linear(widths[3], CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm0(self.patches(x).permute(0, 2, 3, 1))
        for stage, blocks in enumerate(self.stages):
            if stage:
                x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)
                x = self.reduced[stage - 1](self.merged[stage - 1](x))
            x = blocks(x)
        return self.head(self.norm(x).mean((1, 2)))


def resnet(depth: int, width: int = 64) -> nn.Module:
    from prunescope.models import build

    return build("resnet", input_shape=(3, SIZE, SIZE), classes=CLASSES, seed=0, options={"depth": depth, "width": width})


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module] | None]] = {
    "ResNet-18": (lambda: resnet(18), lambda: resnet(18, 32)),
    "ResNet-50": (lambda: resnet(50), lambda: resnet(50, 32)),
    "ViT-B": (ViT, lambda: ViT(384)),
    "Swin-T": (Swin, None),  # three heads have no half
}


@torch.no_grad()
def drawn(make: Callable[[], nn.Module]) -> nn.Module:
    """The network with biases, affine terms and running statistics that are not zero, in evaluation mode."""
    torch.manual_seed(0)
    model = make().eval()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.ndim == 1 and tensor.is_floating_point():
            tensor.copy_(0.5 + torch.rand_like(tensor) if name.endswith(("weight", "var")) else 0.1 * torch.randn_like(tensor))
    return model


def ours(make: Callable[[], nn.Module], hand: Callable[[], nn.Module] | None) -> Row:
    """Seconds of each part, and the ratio to the network written by hand."""
    import prunescope as ps
    from prunescope.measures.timing import compared

    model, x = drawn(make), torch.randn(BATCH, 3, SIZE, SIZE)
    start = time.process_time()
    masks = ps.prune(model, sparsity=0.5, granularity="channel", allocation="uniform", example_inputs=x)
    chosen = time.process_time() - start
    start = time.process_time()
    small, report = ps.compact(model, masks, x)
    whole = time.process_time() - start
    checked = whole * report.seconds["check"] / sum(report.seconds.values())
    row = {"before": report.before, "after": report.after, "prune": chosen, "compact": whole - checked, "check": checked, "how": report.how}
    row["errors"] = max(c.error for c in report.checks), max(c.error for c in report.rounded)
    if hand is not None:
        other, one = drawn(hand), x[:1]
        row["hand"] = sum(p.numel() for p in other.parameters())
        with torch.no_grad():
            times = compared({"ours": lambda: small(one), "hand": lambda: other(one)}, seconds=20.0, clock="processor")
        row["ratio"] = times["ours"].over(times["hand"])
    return row


def torch_pruned(make: Callable[[], nn.Module], hand: Callable[[], nn.Module] | None) -> Row:
    """Torch-Pruning's graph and one step of its pruner."""
    import torch_pruning

    model, x = drawn(make), torch.randn(BATCH, 3, SIZE, SIZE)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    heads = {m: a.heads for a in model.modules() if isinstance(a, Attention) for m in (a.q, a.k, a.v)}
    last = next(m for m in reversed(list(model.modules())) if isinstance(m, nn.Linear))
    before, start = sum(p.numel() for p in model.parameters()), time.process_time()
    importance = torch_pruning.importance.MagnitudeImportance(p=2)
    pruner = torch_pruning.pruner.MagnitudePruner(model, (x,), importance, pruning_ratio=0.5, ignored_layers=[last], num_heads=heads)
    pruner.step()
    row = {"before": before, "after": sum(p.numel() for p in model.parameters()), "seconds": time.process_time() - start}
    with torch.no_grad():
        model(x)
    return row


WORKERS = {"ours": ours, "peer": torch_pruned}


def work(side: str, name: str, memory: float) -> None:
    """One side on one network: a line of JSON."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (int(memory * 2**30),) * 2)
    try:
        WORKERS[side](lambda: resnet(8, 4), None)
        row = WORKERS[side](*NETWORKS[name])
    except Exception as error:
        row = {"failed": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:120]}
    print("\n@" + json.dumps(row), flush=True)


def asked(python: str, side: str, name: str, memory: float) -> Row:
    """The row of one side on one network, whatever its process does."""
    command = [python, __file__, "--worker", side, "--only", name, "--memory", str(memory)]
    paths = {"PYTHONPATH": str(Path(__file__).parent.parent / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | paths)
    line = next((n for n in done.stdout.splitlines() if n.startswith("@")), None)
    return json.loads(line[1:]) if line else {"failed": f"its process ended ({done.returncode}): {done.stderr.strip()[-100:]}"}


def line(name: str, mine: Row, peer: Row | None) -> str:
    """A row of the table."""
    if "failed" in mine:
        return f"| {name} | {mine['failed']} |"
    theirs = "" if peer is None else peer.get("failed") or f"{peer['seconds']:.2f} ({peer['after'] / 1e6:.1f} M left)"
    ratio = "" if peer is None or "failed" in peer else f"{mine['compact'] / peer['seconds']:.1f}"
    hand = "" if "ratio" not in mine else "{:.3f} [{:.3f}, {:.3f}]".format(*mine["ratio"])
    shape = "" if "hand" not in mine else f" (by hand {mine['hand'] / 1e6:.2f} M)"
    cells = [name, f"{mine['before'] / 1e6:.1f} M", f"{mine['after'] / 1e6:.2f} M{shape}", theirs, f"{mine['prune']:.2f}"]
    cells += [f"{mine['compact']:.2f}", ratio, f"{mine['check']:.2f}", "{:.0e} / {:.0e}".format(*mine["errors"]), hand]
    return "| " + " | ".join(cells) + " |"


HEAD = ["network", "parameters", "left", "Torch-Pruning, s", "ours: choose, s", "compact, s", "compact / peer", "check, s",
        "error, double / single", "latency / by hand"]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", metavar="PYTHON", help="the Python of an environment with torch-pruning")
    parser.add_argument("--only", default="", metavar="WORD", help="networks whose name has this word in it")
    parser.add_argument("--memory", type=float, default=16.0, help="GiB that a process may use")
    parser.add_argument("--out", type=Path, metavar="FILE.md")
    parser.add_argument("--worker", choices=list(WORKERS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.only, options.memory)
        return
    lines = ["| " + " | ".join(HEAD) + " |", "|" + " --- |" * len(HEAD)]
    for name in (n for n in NETWORKS if options.only in n):
        mine = asked(sys.executable, "ours", name, options.memory)
        peer = asked(options.peers, "peer", name, options.memory) if options.peers else None
        lines.append(line(name, mine, peer))
        print(lines[-1], flush=True)
    text = "\n".join(lines) + "\n"
    if options.out:
        about = (__doc__ or "").partition("\n\n")
        options.out.write_text(f"# Speed of compaction\n\n{about[0]}\n\n{about[2]}\ntorch {torch.__version__}.\n\n{text}")


if __name__ == "__main__":
    main()
