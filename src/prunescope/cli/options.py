"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Allow = Annotated[
    list[str] | None,
    typer.Option("--allow", metavar="MODULE[:FUNCTION]", help="Code of your own that the file may have imported; may come again."),
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where data sets lie; before $PRUNESCOPE_DATA and the cache.")]
Engine = Annotated[str, typer.Option(metavar="NAME", help="processes, serial, ray or ray=HOST:PORT.")]
Jobs = Annotated[int | None, typer.Option(help="Worker processes (default: one a core).")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads a worker (default: resources.cpus).")]
Device = Annotated[str, typer.Option(help="cpu, cuda or auto.")]
Stack = Annotated[str, typer.Option(help="Trials that train together: auto, on, off or how many.")]
Checkpoint = Annotated[float, typer.Option(metavar="SECONDS", help="Between checkpoints inside a training; 0: every epoch.")]
Log = Annotated[list[str] | None, typer.Option(help="tensorboard[=DIR] or mlflow[=URI]: hand records on as they come.")]
Memory = Annotated[str, typer.Option(metavar="SIZE", help="All workers take at most: auto (by what is free), 8GB, off.")]
Storage = Annotated[str | None, typer.Option(metavar="URL", help="Of engine ray: where finished trials go, e.g. s3://bucket/x.")]
