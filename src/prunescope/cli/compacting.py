"""`prunescope compact`: a masked network as a smaller dense one, checked and written to a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from prunescope.cli.options import Allow
from prunescope.types import ConfigError

if TYPE_CHECKING:
    from prunescope.experiments.saved import Saved

out = Console()


def compact(
    source: Annotated[str, typer.Argument(metavar="RUN:HASH|NAME", help="A trial, or its folder; a model's name or \"module:function\".")],
    file: Annotated[Path | None, typer.Option("--out", help="The file (default: compact.*, in the folder or here).")] = None,
    weights: Annotated[Path | None, typer.Option("--weights", help="With a name: its weights (.safetensors).")] = None,
    masks: Annotated[Path | None, typer.Option("--masks", help="With a name: its masks (.safetensors); else zeros count.")] = None,
    shape: Annotated[str | None, typer.Option("--input", metavar="SIZES", help="With a name: the shape of a sample, e.g. 3,32,32.")] = None,
    tokens: Annotated[int, typer.Option("--tokens", min=0, help="With a name: inputs are whole numbers below this.")] = 0,
    classes: Annotated[int, typer.Option("--classes", min=1, help="With a name: how many outputs.")] = 10,
    approximate: Annotated[bool, typer.Option("--approximate", help="Also drop what cannot go exactly.")] = False,
    recalibrate: Annotated[
        int, typer.Option("--recalibrate", min=0, metavar="N", help="With --approximate, of a trial: batch norms anew, from N samples.")
    ] = 0,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Where data sets lie.")] = None,
    allow: Allow = None,
) -> None:
    """Remove what masks leave constant, check that the outputs stay, and write the smaller network: .safetensors, or .pt2 for a graph."""
    from prunescope.pruning.compact import compact as shrink
    from prunescope.pruning.compact import save_compact

    found = _opened(source, weights, masks, shape, tokens, classes, data_dir, allow or ())
    if recalibrate and found.samples is None:
        raise ConfigError(f"--recalibrate {recalibrate}: only a trial has training samples; in Python: ps.compact(..., calibration=x)")
    if recalibrate and not approximate:
        raise ConfigError("--recalibrate goes with --approximate: an exact network keeps its statistics")
    calibration = found.samples[:recalibrate] if recalibrate and found.samples is not None else None
    small, report = shrink(found.model, found.masks, found.example, approximate=approximate, calibration=calibration)
    graph = report.how == "graph module"
    path = save_compact(small, (file or found.place / "compact").with_suffix(".pt2" if graph else ".safetensors"), found.example)
    out.print(str(report), highlight=False, markup=False, soft_wrap=True)
    how = f"ps.load_compact(None, {str(path)!r}, trust=True)" if graph else f"ps.load_compact(fresh_model, {str(path)!r})"
    out.print(f"file: {path}\nload: {how}", highlight=False, markup=False, soft_wrap=True)


def _opened(
    source: str, weights: Path | None, masks: Path | None, shape: str | None, tokens: int, classes: int, data_dir: Path | None,
    allow: Sequence[str],
) -> Saved:  # fmt: skip
    """The trial, or the named network with what belongs to it: masks are None where the zeros count, the place is where the file goes."""
    import torch

    from prunescope import models
    from prunescope.experiments.finding import parted
    from prunescope.experiments.saved import FINAL, Saved, open_saved
    from prunescope.pruning import Masks
    from prunescope.registry import models as registered
    from prunescope.training import load_weights

    if parted(source) is not None:
        if weights is not None or masks is not None or shape is not None:
            raise ConfigError(f"{source} is a trial, which has its own weights, masks and inputs: leave --weights, --masks and --input out")
        return open_saved(source, stage=FINAL, data_dir=data_dir, allow=allow)
    if Path(source).exists():
        raise ConfigError(f"{source}: expected a trial (RUN:HASH or RUN/trials/HASH), a model's name or module:function")
    registered.get(source)  # an unknown name is told before anything is asked for
    if shape is None:
        raise ConfigError(f"{source}: say the shape of a sample with --input, e.g. --input 3,32,32")
    try:
        sizes = tuple(int(n) for n in shape.split(","))
    except ValueError as error:
        raise ConfigError(f"--input {shape!r}: expected whole numbers separated by commas, e.g. 3,32,32") from error
    model = models.build(source, input_shape=sizes, classes=classes, seed=0)
    if weights is not None:
        load_weights(model, weights)
    generator = torch.Generator().manual_seed(0)
    size = (2, *sizes)
    example = torch.randint(0, tokens, size, generator=generator) if tokens else torch.randn(size, generator=generator)
    return Saved(model.eval(), None if masks is None else Masks.load(masks, model), example, {}, source, Path())
