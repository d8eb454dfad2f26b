"""The zoo of tests/zoo made smaller by prunescope, by Torch-Pruning and by torch-simplify: exact, wrong or crashed, parameters, seconds.

    python benchmarks/compact_zoo.py --peers PYTHON [--only WORD] [--fraction 0.5] [--extent units] [--out FILE.md]

PYTHON is that of another environment, with torch, numpy, scipy, safetensors, pydantic, torch-pruning (1.6.1) and, installed with --no-deps,
torch-simplify (1.1.4); transformers for the Hugging Face networks. Without --peers ours runs alone. Every side works through the networks
in a process of its own, which is started again with the next network when it dies; a network has --limit seconds of processor time.

What is compared, in double precision, with random biases, affine terms and running statistics, output layers exempt, on the example, on
batches of 1 and 7, and on a second size where the network takes one; the error is the largest of any output relative to that output's
largest value, and up to 1e-5 of it counts as exact:

prunescope      masks of `fraction` of the channels of each coupled group by magnitude, on the weights, biases and affine terms of these
                channels (`--extent units`: what the layers after them take stays): compact's network against the masked one
torch-simplify  is handed the same network with the same zeros, and a batch of one as it asks for
Torch-Pruning   removes the same fraction by its own MagnitudePruner and importance (p = 2, no rounding, heads of attention named where the
                modules tell them): its network against the original with the weights, biases and affine terms of exactly the units that it
                removed at zero; which these are is read off by value, since all weights differ

Seconds are processor time of one thread: tracing, building and, for ours, checking the result in double precision, which peers do not.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
EXACT = 1e-5
PATIENCE = 60  # times the limit, by the clock, before a process that does not answer is ended
SIDES = {"ours": "prunescope", "torch-pruning": "Torch-Pruning", "simplify": "torch-simplify"}
HEADED = {"qkv", "q", "k", "v", "q_proj", "k_proj", "v_proj", "query", "key", "value", "c_attn"}  # layers that hold heads
Row = dict[str, Any]


def sized(member: Any) -> list[tuple[torch.Tensor, ...]]:
    """The inputs that results are compared on."""
    sizes = [member.inputs(dtype=torch.float64), *(member.inputs(b, seed=1, dtype=torch.float64) for b in (1, 7))]
    return sizes + ([member.inputs(3, other=True, seed=1, dtype=torch.float64)] if member.resizable else [])


def judged(small: nn.Module, expected: nn.Module, member: Any, before: int, seconds: float) -> Row:
    """The row of a network that came back."""
    from zoo import difference

    error = max(difference(small, expected, size) for size in sized(member))
    removed = before - sum(p.numel() for p in small.parameters())
    verdict = "exact" if error <= EXACT else "wrong"
    return {"result": verdict, "error": error, "removed": removed, "parameters": before, "seconds": seconds}


def masked_pair(member: Any, fraction: float, extent: str) -> tuple[nn.Module, nn.Module, Any, Any]:
    """(model, the same with its masked values at zero, masks, coupling)."""
    from prunescope.pruning import couple
    from zoo.masking import masked, masks_for

    model = member()[0].double()
    coupling = couple(model, member.inputs(dtype=torch.float64))
    masks = masks_for(model, coupling, fraction, "magnitude", extent)
    return model, masked(model, masks), masks, coupling


def ours(member: Any, fraction: float, extent: str) -> Row:
    """prunescope's compact."""
    import prunescope as ps
    from zoo.masking import removable

    model, expected, masks, coupling = masked_pair(member, fraction, extent)
    bound, before = removable(model, coupling, masks), sum(p.numel() for p in model.parameters())
    start = time.process_time()
    small, report = ps.compact(model, masks, example_inputs=member.inputs(dtype=torch.float64))
    return judged(small, expected, member, before, time.process_time() - start) | {"removable": bound, "how": report.how}


def simplified(member: Any, fraction: float, extent: str) -> Row:
    """torch-simplify on the masked network."""
    if len(member.expected) != 1:
        return {"result": "skipped", "note": "takes one input"}
    simplify = simplifier()
    model, expected, _, _ = masked_pair(member, fraction, extent)
    before = sum(p.numel() for p in model.parameters())
    torch.set_default_dtype(torch.float64)  # it makes inputs of its own
    try:
        start = time.process_time()
        small = simplify.simplify(copy.deepcopy(expected), member.inputs(1, dtype=torch.float64)[0])
        return judged(small, expected, member, before, time.process_time() - start)
    finally:
        torch.set_default_dtype(torch.float32)


def simplifier() -> Any:
    """torch-simplify. Where torchvision is missing, stand-ins for three of its classes while it is imported: it only asks whether a network
    is one of these. They are taken away again, as others ask whether torchvision is there.
    """
    stand_ins = {}
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        for name, classes in {
            "torchvision": (), "torchvision.models": ("MobileNetV3", "ShuffleNetV2"), "torchvision.models.densenet": ("_DenseLayer",),
        }.items():  # fmt: skip
            module = stand_ins[name] = types.ModuleType(name)
            for each in classes:
                setattr(module, each, type(each, (nn.Module,), {}))
    sys.modules.update(stand_ins)
    try:
        import simplify
    finally:
        for name in stand_ins:
            del sys.modules[name]
    return simplify


def torch_pruned(member: Any, fraction: float, extent: str) -> Row:
    """Torch-Pruning's own pruner, against the original with what it removed at zero."""
    import torch_pruning

    from prunescope.pruning import couple

    model = told_apart(member()[0].double())
    original, inputs = copy.deepcopy(model), member.inputs(dtype=torch.float64)
    before = sum(p.numel() for p in model.parameters())
    ignored = output_layers(model, couple(model, inputs))
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    start = time.process_time()
    importance = torch_pruning.importance.MagnitudeImportance(p=2)
    pruner = torch_pruning.pruner.MagnitudePruner(
        model, inputs, importance, pruning_ratio=fraction, ignored_layers=ignored, round_to=None, num_heads=heads(model)
    )
    pruner.step()
    seconds = time.process_time() - start
    row = judged(model, zeroed(original, model), member, before, seconds)
    return row if row["removed"] else row | {"result": "skipped", "note": "removes nothing"}


@torch.no_grad()
def told_apart(model: nn.Module) -> nn.Module:
    """The network with every weight changed by about 1e-9 of itself, so that no two are alike, as single-precision numbers often are."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.mul_(1 + 1e-9 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return model


def output_layers(model: nn.Module, coupling: Any) -> list[Any]:
    """The layers, or bare parameters, whose channels leave the network (through a softmax, perhaps, but into no other layer).

    Of a tied weight it is the layer that gives its rows as outputs.
    """
    leaving = [f for f in coupling.frozen if any("leaves the network" in why for why in f.frozen) or not f.tensors("consumer")]
    found: list[Any] = []
    for part in (p for f in leaving for p in f.parts if "producer" in p.roles and p.parameter):
        parameter = model.get_parameter(part.tensor)
        for name, each in model.named_parameters(remove_duplicate=False):
            if each is not parameter:
                continue
            dim = output_dimension(model, name)
            found += [parameter] if dim is None else [model.get_submodule(name.rpartition(".")[0])] if dim == part.dim else []
    return found


def heads(model: nn.Module) -> dict[nn.Module, int]:
    """The number of heads of attention layers, as Torch-Pruning's documentation asks for."""
    found: dict[nn.Module, int] = {}
    for module in model.modules():
        number = next((getattr(module, n) for n in ("heads", "num_heads", "num_attention_heads", "n_heads") if hasattr(module, n)), None)
        if isinstance(module, nn.MultiheadAttention):
            found[module] = module.num_heads
        elif isinstance(number, int):
            found |= {m: number for n, m in module.named_children() if n in HEADED}
    return found


@torch.no_grad()
def zeroed(original: nn.Module, pruned: nn.Module) -> nn.Module:
    """The original with the outputs, biases and affine terms of every unit at zero of which the pruned network has no value left."""
    left = dict(pruned.named_parameters())
    for name, parameter in original.named_parameters():
        kept = torch.isin(parameter, left[name]) if name in left else torch.zeros_like(parameter, dtype=torch.bool)
        dim = output_dimension(original, name)
        if parameter.ndim > 1 and dim is not None:
            rows = kept.movedim(dim, 0).flatten(1).any(1)
            kept = rows.view([-1 if d == dim else 1 for d in range(parameter.ndim)]).expand_as(parameter)
        parameter.masked_fill_(~kept, 0.0)
    return original


def output_dimension(model: nn.Module, name: str) -> int | None:
    """The dimension of a weight's units; None for a bare parameter, of which every value that went is set to zero."""
    module = model.get_submodule(name.rpartition(".")[0])
    if isinstance(module, nn.modules.conv._ConvTransposeNd | nn.Embedding | nn.EmbeddingBag) or type(module).__name__ == "Conv1D":
        return 1
    known = isinstance(module, nn.Linear | nn.modules.conv._ConvNd | nn.RNNBase | nn.MultiheadAttention)
    return 0 if known else None


WORKERS: dict[str, Callable[[Any, float, str], Row]] = {"ours": ours, "torch-pruning": torch_pruned, "simplify": simplified}


def work(side: str, names: list[str], options: argparse.Namespace) -> None:
    """One side on the named networks: a line of JSON for each, when it is done."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    from zoo import ZOO

    def late(*_: Any) -> None:
        raise TimeoutError(f"more than {options.limit:g} s of processor time")

    signal.signal(signal.SIGPROF, late)

    for name in names:
        signal.setitimer(signal.ITIMER_PROF, options.limit)
        try:
            member = ZOO[name]
            missing = member.missing
            row = {"result": "skipped", "note": f"needs {missing}"} if missing else WORKERS[side](member, options.fraction, options.extent)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            row = {"result": "crash", "note": f"{type(error).__name__}: {lines[0] if lines else ''}"[:160]}
        signal.setitimer(signal.ITIMER_PROF, 0)
        print("\n@" + json.dumps({"name": name, **row}), flush=True)


def rows_of(python: str, side: str, names: list[str], options: argparse.Namespace) -> Iterator[Row]:
    """The rows of one side, whatever its process does."""
    waiting = list(names)
    while waiting:
        given = ["--fraction", str(options.fraction), "--extent", options.extent, "--limit", str(options.limit)]
        command = [python, __file__, "--worker", side, *given, *waiting]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=lambda p=process, q=lines: [*map(q.put, p.stdout or ()), q.put(None)], daemon=True).start()
        while waiting:
            try:
                line = lines.get(timeout=PATIENCE * options.limit)
            except queue.Empty:
                yield {"name": waiting.pop(0), "result": "crash", "note": f"more than {PATIENCE * options.limit:g} s"}
                break
            if line is None:
                yield {"name": waiting.pop(0), "result": "crash", "note": f"its process ended ({process.wait()})"}
                break
            if line.startswith("@"):
                waiting.pop(0)
                yield json.loads(line[1:])
        process.kill()
        process.wait()


def cells(row: Row | None) -> list[str]:
    """What the table says of one side on one network: result, share of parameters removed, seconds."""
    if row is None:
        return ["", "", ""]
    said = row["result"] + (f" ({row['error']:.1g})" if row["result"] == "wrong" else f": {row['note']}" if row.get("note") else "")
    share = f"{row['removed'] / row['parameters']:.0%}" if "removed" in row else ""
    return [said.replace("|", "/"), share, f"{row['seconds']:.2f}" if "seconds" in row else ""]


def table(names: list[str], found: dict[str, dict[str, Row]]) -> str:
    """Markdown: a row for each network, three columns a side, and the counts."""
    sides = list(found)
    head = ["network", "parameters", *(c for s in sides for c in (SIDES[s], "removed", "s"))]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for name in names:
        size = next((str(r["parameters"]) for s in sides if "parameters" in (r := found[s].get(name, {}))), "")
        lines.append("| " + " | ".join([name, size, *(c for s in sides for c in cells(found[s].get(name)))]) + " |")
    for side in sides:
        results = [r["result"] for r in found[side].values()]
        counts = ", ".join(f"{kind} {results.count(kind)}" for kind in ("exact", "wrong", "crash", "skipped"))
        lines += ["", f"{SIDES[side]}: {counts} of {len(results)}."]
    return "\n".join(lines) + "\n"


def page(options: argparse.Namespace, text: str) -> str:
    """The table with what it is of, in Markdown."""
    return f"""# The zoo made smaller

The small networks of tests/zoo, {options.fraction:.0%} of the channels of each coupled group removed by magnitude: does what comes back
compute what the masked network computes? One run, one thread; biases, affine terms and running statistics are random, output layers exempt.

    python benchmarks/compact_zoo.py --peers PYTHON --fraction {options.fraction} --extent {options.extent}

"exact": the largest difference of any output, relative to that output's largest value, is at most {EXACT:g} in double precision, on
the example, on batches of 1 and 7 and on a second size where the network takes one; "wrong" names that difference; "crash" the first line
of the error, in removing or in running what came back. "removed" is the share of all parameters. prunescope and torch-simplify are
handed the same masks (the weights, biases and affine terms of the removed channels at zero); Torch-Pruning chooses by its own importance
at the same fraction, and is compared with the original in which exactly what it removed is at zero. Seconds are processor time; ours
include tracing and checking the result in double precision on all these inputs, which peers leave to the user.

{text}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", metavar="PYTHON", help="the Python of an environment with torch-pruning and torch-simplify")
    parser.add_argument("--only", default="", metavar="WORD", help="networks whose name has this word in it")
    parser.add_argument("--fraction", type=float, default=0.5)
    parser.add_argument("--extent", choices=("whole", "units", "weights"), default="units", help="what of a channel is masked")
    parser.add_argument("--limit", type=float, default=60, help="seconds of processor time for one network")
    parser.add_argument("--sides", nargs="*", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--out", type=Path, metavar="FILE.md")
    parser.add_argument("--worker", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.names, options)
        return
    from zoo import ZOO

    names = [n for n in ZOO if options.only in n]
    found: dict[str, dict[str, Row]] = {}
    for side in options.sides:
        if side != "ours" and not options.peers:
            continue
        found[side] = {}
        for row in rows_of(sys.executable if side == "ours" else options.peers, side, names, options):
            found[side][row["name"]] = row
            print(f"{SIDES[side]:15} {row['name']:22} " + "  ".join(cells(row)), flush=True)
    text = table(names, found)
    print("\n" + text)
    if options.out:
        options.out.write_text(page(options, text))


if __name__ == "__main__":
    main()
