"""`prunescope prune` of checkpoints too large for memory, `prunescope sensitivity` (what each layer can bear) and `prunescope latency`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from prunescope.types import ConfigError

out = Console()
Setting = Annotated[list[str] | None, typer.Option("-s", "--set", metavar="KEY=VALUE", help="Set a config key, e.g. -s training.epochs=3.")]


def prune(
    model: Annotated[str, typer.Argument(metavar="hf:PATH", help="A folder that transformers' save_pretrained wrote.")],
    to: Annotated[Path, typer.Option("--out", help="The folder for the pruned model; a stopped run goes on there.")],
    sparsity: Annotated[float | None, typer.Option("--sparsity", "-p", help="Fraction removed of every matrix in every block.")] = None,
    criterion: Annotated[str, typer.Option("--criterion", help="magnitude, wanda or sparsegpt.")] = "wanda",
    pattern: Annotated[str | None, typer.Option("--nm", metavar="N:M", help="Keep n of every m weights instead, e.g. 2:4.")] = None,
    calibration: Annotated[Path | None, typer.Option("--calibration", help="Text, or .npz/.safetensors with input_ids.")] = None,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Calibration samples at most.")] = 128,
    length: Annotated[int, typer.Option("--length", min=1, help="Tokens a sample, where the calibration file is a text.")] = 512,
    exclude: Annotated[list[str] | None, typer.Option("--exclude", help="Layers of a block to leave alone, e.g. '*o_proj'.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew where the folder holds another run.")] = False,
) -> None:
    """Prune a Hugging Face checkpoint block by block, in the memory of one block; the result loads with transformers."""
    if not model.startswith("hf:"):
        raise ConfigError(f"{model!r}: expected hf:PATH, a folder with config.json and safetensors; prune others from Python with ps.prune")
    if pattern is None and sparsity is None:
        raise ConfigError("expected --sparsity FRACTION or --nm N:M")
    if pattern is not None and sparsity is not None:
        raise ConfigError(f"--nm {pattern} states its own sparsity: leave --sparsity out")
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
        data_dir=data_dir,
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
        from prunescope.results.store import write_beside

        write_beside(file, lambda p: found.frame().to_csv(p, index=False))
        out.print(f"rows: {file}", highlight=False, soft_wrap=True)


def latency(
    source: Annotated[str, typer.Argument(metavar="[PRESET|FILE.toml]", help="The experiment whose network is timed.")] = "quickstart",
    settings: Setting = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Samples in a forward pass.")] = 64,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of the timed layers.")] = 1,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Where data sets lie.")] = None,
) -> None:
    """Time each layer of the experiment's network at several widths: the table that allocation "latency" shares a budget out by."""
    from prunescope.config import parse_override
    from prunescope.experiments.scan import latency_of

    title, times = latency_of(
        source, overrides=[parse_override(s) for s in settings or []], batch_size=batch_size, threads=threads, data_dir=data_dir
    )
    lines = [f'"{n}" = {{ {", ".join(f"{key} = {ms:.6g}" for key, ms in entry.items())} }}' for n, entry in times.items()]
    head = f"# milliseconds on this machine: {title}; of the layer, of one output unit, of one input feature"
    out.print("\n".join([head, "[prune.options.times]", *lines]), highlight=False, markup=False, soft_wrap=True)
