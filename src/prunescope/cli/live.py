"""`prunescope watch`, and what `prunescope run --watch` does: a page in the browser that shows a run while it works."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from prunescope.live import Watch

out = Console(stderr=True)


def watch(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder; the run may be at work, over, or not begun yet.")],
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Of the page; 0: one that is free.")] = 0,
) -> None:
    """Show a run in the browser while it works: curves, information, results so far. On this machine only; ends with Ctrl-C."""
    import threading

    from prunescope.types import ConfigError

    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: expected a run folder, got a file")
    if folder.is_dir() and not (folder / "experiment.json").is_file() and any(folder.iterdir()):
        raise ConfigError(f"{folder}: not a run folder (no experiment.json in it); `prunescope run` makes one")
    with contextlib.suppress(KeyboardInterrupt), watching(folder, port):
        threading.Event().wait()


@contextlib.contextmanager
def watching(folder: Path, port: int = 0) -> Iterator[Watch]:
    """The page of the run in `folder` while the block runs; its address is printed."""
    from prunescope.live import Watch

    with Watch(folder, port) as page:
        out.print(f"watch: {page.address}", highlight=False, soft_wrap=True)
        yield page
