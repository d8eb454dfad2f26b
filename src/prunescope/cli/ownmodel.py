"""`prunescope prune module:function`: the user's own trained network made smaller, measured, reported and written to a checked file."""

from __future__ import annotations

import copy
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from prunescope.types import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from prunescope.experiments.own import Network, Shrunk

out = Console()
SUFFIXES = (".safetensors", ".onnx", ".pt2")
SECTIONS = ("model", "prune", "finetune")


def prune_own(
    source: str, to: Path | None, *, sparsity: float | None, settings: Sequence[str], report: Path | None, compacted: bool,
    shape: str | None, seed: int = 0,
) -> None:  # fmt: skip
    """Prune the network that the function `source` returns; `settings` are KEY=VALUE of model, prune and finetune."""
    if to is not None and to.suffix not in SUFFIXES:
        raise ConfigError(f"--out {to}: expected a file that ends in {', '.join(SUFFIXES)}")
    from prunescope.config import PruneConfig, TrainingConfig, validated
    from prunescope.discretion import discreet_words
    from prunescope.experiments.own import DEFAULTS, network, shrink
    from prunescope.experiments.ownreport import RunFolder
    from prunescope.pruning.granularity import fixed_sparsity
    from prunescope.registry import granularities

    tables = _tables(settings)
    pruning = validated(PruneConfig, tables["prune"], source="prune")
    finetune = validated(TrainingConfig, {**DEFAULTS, **tables["finetune"]}, source="finetune")
    entry = granularities.get(pruning.granularity)
    stated = fixed_sparsity(entry, {**entry.traits.get("stated", {}), **pruning.options}) is not None
    if sparsity is None and pruning.table is None and pruning.threshold is None and not stated:
        raise ConfigError("expected --sparsity FRACTION, the fraction removed, e.g. --sparsity 0.5")
    net = network(source, tables["model"])
    if shape is not None and net.example_inputs is None:
        net.example_inputs = _inputs(shape)
    folder = None
    if report is not None:
        folder = RunFolder(report, net, pruning, command=shlex.join(["prunescope", *discreet_words(sys.argv[1:])]), seed=seed)
    fresh, began = copy.deepcopy(net.model), time.perf_counter()
    with out.status("pruning"):
        found = shrink(net, pruning, sparsity=sparsity, finetune=finetune, compacted=compacted, seed=seed, watcher=folder)
    _show(found, net)
    if to is not None:
        _write(found, net, fresh, to)
    if folder is not None:
        from prunescope.report import write_report

        run = folder.finish(found.sparsity if sparsity is None else sparsity, time.perf_counter() - began)
        out.print(f"report: {write_report(run)}", highlight=False, soft_wrap=True)


def _tables(settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """KEY=VALUE by section; a key without one is an option of the function."""
    from prunescope.config import override, parse_override

    pairs = [parse_override(s) for s in settings]
    named = {k if k.partition(".")[0] in SECTIONS and "." in k else f"model.{k}": v for k, v in pairs}
    return {section: override({}, named).get(section, {}) for section in SECTIONS}


def _inputs(shape: str) -> Any:
    import torch

    try:
        sizes = tuple(int(n) for n in shape.split(","))
    except ValueError as error:
        raise ConfigError(f"--input {shape!r}: expected whole numbers separated by commas, e.g. 3,32,32") from error
    return torch.randn(2, *sizes, generator=torch.Generator().manual_seed(0))


def _show(found: Shrunk, net: Network) -> None:
    out.print(f"{net.name}: {found.sparsity:.1%} of the masked weights removed", highlight=False, markup=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    columns = [c for c in ("accuracy", "loss", "nonzero", "parameters", "bytes") if any(c in m for m in found.stages.values())]
    table.add_column("stage", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    for name, measured in found.stages.items():
        table.add_row(escape(name), *(_number(column, measured) for column in columns))
    out.print(table)
    if "loss" in columns:
        out.print(f"measured on the {'test' if net.test is not None else 'training'} data", highlight=False)
    if found.note:
        out.print(found.note, highlight=False, markup=False, soft_wrap=True)
    if found.compact is not None and found.compact.removed < 0.01 * found.compact.before:
        hint = "zeros alone make nothing smaller: whole units do, e.g. -s prune.granularity=channel"
        out.print(hint, highlight=False, markup=False, soft_wrap=True)


def _number(column: str, measured: Mapping[str, Any]) -> str:
    if column not in measured:
        return ""
    value = measured[column].value
    return {"accuracy": f"{value:.2%}", "loss": f"{value:.4f}"}.get(column) or f"{value:,.0f}"


def _write(found: Shrunk, net: Network, fresh: nn.Module, to: Path) -> None:
    """Write the smaller network, checked, and say how it is read."""
    import torch

    from prunescope.export import export_model
    from prunescope.pruning.compact import load_compact, save_compact
    from prunescope.types import ExportError

    example = net.example()
    if example is None:
        raise ConfigError(f"--out {to}: nothing is known of the network's inputs: give data or --input SHAPE")
    if found.compact is not None and to.suffix == ".safetensors":
        if found.compact.how == "graph module":
            raise ConfigError(f"--out {to}: {found.compact.note or 'it became a graph'}; a graph goes into a .pt2 or .onnx file")
        path = save_compact(found.model, to)
        with torch.no_grad():
            if not torch.equal(load_compact(fresh, path).eval()(example), found.model.eval()(example)):
                raise ExportError(f"{path}: does not compute what the network does: tell us, and use .pt2 or .onnx")
        out.print(f"file: {path} ({path.stat().st_size:,} bytes), read again: the same outputs", highlight=False, soft_wrap=True)
        out.print(f"load: ps.load_compact(fresh_model, {str(path)!r})", highlight=False, markup=False, soft_wrap=True)
        return
    made = export_model(found.model, to, example_inputs=example, masks=found.masks, dynamic_batch=to.suffix != ".safetensors")
    out.print(f"file: {made.path} ({made.bytes:,} bytes)\ncard: {made.card}", highlight=False, soft_wrap=True)
    out.print(str(made.agreement), highlight=False, markup=False, soft_wrap=True)
