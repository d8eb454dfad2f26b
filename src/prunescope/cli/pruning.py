"""`prunescope prune` (one's own network, a large checkpoint), `prunescope sensitivity` (what each layer bears), `prunescope latency`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from prunescope.cli.options import Allow
from prunescope.types import ConfigError

out = Console()
Setting = Annotated[list[str] | None, typer.Option("-s", "--set", metavar="KEY=VALUE", help="Set a config key, e.g. -s training.epochs=3.")]


def prune(
    model: Annotated[str, typer.Argument(metavar="module:function|hf:PATH", help="What returns your network, or a checkpoint.")],
    to: Annotated[Path | None, typer.Option("--out", help="The file (.safetensors, .onnx, .pt2), or with hf: the new folder.")] = None,
    sparsity: Annotated[float | None, typer.Option("--sparsity", "-p", help="Fraction removed.")] = None,
    criterion: Annotated[str | None, typer.Option("--criterion", help="Default magnitude; hf: also sparsegpt, default wanda.")] = None,
    granularity: Annotated[str | None, typer.Option("--granularity", help="What goes as one piece: weight, channel, head, ...")] = None,
    allocation: Annotated[str | None, typer.Option("--allocation", help="How the budget is split: uniform, global, erk, ...")] = None,
    pattern: Annotated[str | None, typer.Option("--nm", metavar="N:M", help="Keep n of every m weights instead, e.g. 2:4.")] = None,
    exclude: Annotated[list[str] | None, typer.Option("--exclude", help="Layers to leave alone, e.g. '*o_proj'.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("-s", "--set", metavar="KEY=VALUE", help="Of the function, or prune.KEY, finetune.KEY.")
    ] = None,
    report: Annotated[Path | None, typer.Option("--report", metavar="DIR", help="Also a run folder with a report.")] = None,
    compacted: Annotated[bool, typer.Option("--compact/--no-compact", help="Remove what the masks leave constant.")] = True,
    shape: Annotated[str | None, typer.Option("--input", metavar="SIZES", help="The shape of a sample, where there are no data.")] = None,
    calibration: Annotated[Path | None, typer.Option("--calibration", help="hf: text, or .npz/.safetensors with input_ids.")] = None,
    samples: Annotated[int, typer.Option("--samples", min=1, help="hf: calibration samples at most.")] = 128,
    length: Annotated[int, typer.Option("--length", min=1, help="hf: tokens a sample, where the calibration file is a text.")] = 512,
    fresh: Annotated[bool, typer.Option("--fresh", help="hf: start anew where the folder holds another run.")] = False,
) -> None:
    """Prune your trained network (module:function) and write a smaller one; or a Hugging Face checkpoint larger than memory (hf:PATH)."""
    if pattern is not None and sparsity is not None:
        raise ConfigError(f"--nm {pattern} states its own sparsity: leave --sparsity out")
    if model.startswith("hf:"):
        own = {"--granularity": granularity, "--allocation": allocation, "-s": settings, "--report": report, "--input": shape}
        if given := [name for name, value in own.items() if value is not None]:
            raise ConfigError(f"{', '.join(given)}: of module:function alone; a checkpoint is pruned with --criterion, --sparsity or --nm")
        _prune_checkpoint(model, to, sparsity, criterion or "wanda", pattern, calibration, samples, length, exclude, fresh)
        return
    if ":" not in model or Path(model).exists():
        raise ConfigError(f"{model!r}: expected module:function that returns your network, or hf:PATH, a folder with config.json")
    if calibration is not None or fresh:
        raise ConfigError("--calibration and --fresh: of hf:PATH alone; a network of your own is calibrated with the data it returns")
    from prunescope.cli.ownmodel import prune_own

    named = {"criterion": criterion, "granularity": pattern or granularity, "allocation": allocation}
    short = [f"prune.{key}={value}" for key, value in named.items() if value is not None]
    short += [f"prune.exclude={json.dumps(exclude)}"] if exclude else []
    prune_own(model, to, sparsity=sparsity, settings=[*short, *(settings or [])], report=report, compacted=compacted, shape=shape)


def _prune_checkpoint(
    model: str, to: Path | None, sparsity: float | None, criterion: str, pattern: str | None, calibration: Path | None, samples: int,
    length: int, exclude: list[str] | None, fresh: bool,
) -> None:  # fmt: skip
    if to is None:
        raise ConfigError("expected --out FOLDER, where the pruned model goes")
    if pattern is None and sparsity is None:
        raise ConfigError("expected --sparsity FRACTION or --nm N:M")
    from prunescope.integrations.blockwise import Settings, calibration_from, prune_checkpoint

    source = Path(model.removeprefix("hf:"))
    settings = Settings(criterion, sparsity, pattern or "weight", tuple(exclude or ()))
    data = calibration_from(calibration, source, samples=samples, length=length) if calibration is not None else None

    def progress(done: int, total: int) -> None:
        if done < total:
            out.print(f"block {done + 1} of {total}", highlight=False)

    found = prune_checkpoint(source, to, settings, calibration=data, fresh=fresh, progress=progress)
    if found.resumed:
        out.print(f"{found.resumed} blocks were finished before", highlight=False)
    zeros, entries = sum(z for z, _ in found.counts.values()), sum(n for _, n in found.counts.values())
    out.print(
        f"{len(found.counts)} matrices: {zeros:,} of {entries:,} weights are zero ({found.sparsity:.2%}); "
        "zeros alone make the model neither smaller nor faster",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    out.print(f"model: {found.folder}", highlight=False, soft_wrap=True)


def sensitivity(
    source: Annotated[str, typer.Argument(metavar="[PRESET|FILE.toml]", help="The experiment whose network is scanned.")] = "quickstart",
    settings: Setting = None,
    variant: Annotated[str | None, typer.Option("--variant", help="Whose pruning settings (default: the first that prunes).")] = None,
    levels: Annotated[str, typer.Option("--levels", help="Sparsities to try.")] = "0.25,0.5,0.7,0.8,0.9,0.95,0.98",
    target: Annotated[float | None, typer.Option("--sparsity", help="Also give the table that meets this sparsity at equal cost.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the network and its training.")] = 0,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Where data sets lie.")] = None,
    file: Annotated[Path | None, typer.Option("--out", help="Also write the rows as CSV.")] = None,
    allow: Allow = None,
) -> None:
    """Train the experiment's network, prune each layer alone to several levels, and show what that does to the validation loss."""
    from prunescope.config import parse_override
    from prunescope.experiments.scan import sensitivity_of

    try:
        tried = tuple(float(v) for v in levels.split(","))
    except ValueError as error:
        raise ConfigError(f"--levels {levels!r}: expected fractions separated by commas, e.g. 0.5,0.9") from error
    found = sensitivity_of(
        source, overrides=[parse_override(s) for s in settings or []], variant=variant, levels=tried, target=target, seed=seed,
        data_dir=data_dir, allow=allow or (),
    )  # fmt: skip
    title = f"{found.title}: loss {found.scan.dense:.4f}, and with one layer pruned"
    table = Table(box=None, title=title, title_justify="left", pad_edge=False)
    table.add_column("layer", no_wrap=True)
    table.add_column("pieces", justify="right")
    for level in found.scan.levels:
        table.add_column(f"{level * 100:g} %", justify="right")
    for name, losses in found.scan.losses.items():
        table.add_row(escape(name.removesuffix(".weight")), f"{found.sizes[name]:,}", *(f"{loss:.4f}" for loss in losses))
    out.print(table)
    if found.table is not None:
        entries = ", ".join(f'"{n}" = {s:.4f}' for n, s in found.table.items())
        out.print(f"\n[prune]\ntable = {{ {entries} }}", highlight=False, markup=False, soft_wrap=True)
    if file is not None:
        from prunescope.results.files import write_beside

        write_beside(file, lambda p: found.frame().to_csv(p, index=False))
        out.print(f"rows: {file}", highlight=False, soft_wrap=True)


def latency(
    source: Annotated[str, typer.Argument(metavar="[PRESET|FILE.toml]", help="The experiment whose network is timed.")] = "quickstart",
    settings: Setting = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Samples in a forward pass.")] = 64,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of the timed layers.")] = 1,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Where data sets lie.")] = None,
    allow: Allow = None,
) -> None:
    """Time each layer of the experiment's network at several widths: the table that allocation "latency" shares a budget out by."""
    from prunescope.config import parse_override
    from prunescope.experiments.scan import latency_of

    title, times = latency_of(
        source, overrides=[parse_override(s) for s in settings or []], batch_size=batch_size, threads=threads, data_dir=data_dir,
        allow=allow or (),
    )  # fmt: skip
    lines = [f'"{n}" = {{ {", ".join(f"{key} = {ms:.6g}" for key, ms in entry.items())} }}' for n, entry in times.items()]
    head = f"# milliseconds on this machine: {title}; of the layer, of one output unit, of one input feature"
    out.print("\n".join([head, "[prune.options.times]", *lines]), highlight=False, markup=False, soft_wrap=True)
