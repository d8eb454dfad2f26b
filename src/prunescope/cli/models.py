"""`prunescope export-model`: a stored network as a file that others can run, with its card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from prunescope.cli.options import Allow

out = Console()


def export_model(
    where: Annotated[str, typer.Argument(metavar="RUN[:HASH|:best]|FILE", help="A run folder and its trial, or a .safetensors file.")],
    format: Annotated[Literal["safetensors", "onnx", "pt2"], typer.Option("--format", help="safetensors, onnx or pt2.")] = "safetensors",
    file: Annotated[Path | None, typer.Option("--out", help="The file (default NAME.FORMAT here).")] = None,
    dynamic_batch: Annotated[bool, typer.Option("--dynamic-batch", help="onnx, pt2: any number of samples a batch.")] = False,
    stage: Annotated[str | None, typer.Option("--stage", help="final, compacted or quantised (default: the config's last).")] = None,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Where data sets lie.")] = None,
    allow: Allow = None,
) -> None:
    """Write a trial's network as safetensors, ONNX or pt2, check the file against the network, and write its card beside it."""
    from prunescope.experiments.saved import open_saved
    from prunescope.export import export_model as write

    found = open_saved(where, stage=stage, data_dir=data_dir, allow=allow or ())
    path = file if file is not None else Path(f"{found.name}.{format}")
    made = write(
        found.model, path, format=format, example_inputs=found.example, masks=found.masks, dynamic_batch=dynamic_batch, about=found.about
    )
    out.print(f"{made.format}: {made.path} ({made.bytes:,} bytes)", highlight=False, soft_wrap=True)
    for other in made.beside:
        out.print(f"with:  {other}", highlight=False, soft_wrap=True)
    out.print(f"card:  {made.card}", highlight=False, soft_wrap=True)
    out.print(f"{made.agreement}", highlight=False, soft_wrap=True)
