"""`prunescope search`: candidates of an experiment's [search], ranked by what its validation samples say."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from prunescope.cli.options import Allow, Checkpoint, DataDir, Device, Engine, Jobs, Log, Memory, Stack, Storage, Threads

out = Console()
Setting = Annotated[list[str] | None, typer.Option("-s", "--set", metavar="KEY=VALUE", help="Set a key, e.g. -s search.candidates=20.")]
MOST = 10


def search(
    source: Annotated[str, typer.Argument(metavar="PRESET|FILE.toml", help="A config with a section [search].")],
    settings: Setting = None,
    folder: Annotated[Path | None, typer.Option("--out", help="The run folder (default runs/NAME).")] = None,
    data_dir: DataDir = None,
    engine: Engine = "processes",
    jobs: Jobs = None,
    threads: Threads = None,
    device: Device = "cpu",
    stack: Stack = "auto",
    checkpoint: Checkpoint = 60.0,
    log: Log = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what is in the run folder.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the candidates to begin with.")] = False,
    memory: Memory = "auto",
    allow: Allow = None,
    storage: Storage = None,
) -> None:
    """Search over any keys of a config: random, grid, TPE or successive halving; candidates are trials of a run that resumes."""
    from prunescope import report
    from prunescope.config import parse_override
    from prunescope.experiments.search import search as searched
    from prunescope.experiments.search import searching

    overrides = [parse_override(s) for s in settings or []]
    if dry_run:
        _show_candidates(searching(source, overrides, allow=allow or ()))
        return
    options: dict[str, Any] = {"data_dir": data_dir, "engine": engine, "jobs": jobs, "threads": threads, "device": device}
    try:
        found = searched(
            source, overrides=overrides, allow=allow or (), out=folder, fresh=fresh, told=_tell, quiet=False,
            stack=int(stack) if stack.isdigit() else stack, log=log or (), checkpoint=checkpoint, memory=memory, storage=storage,
            **options,
        )  # fmt: skip
    except KeyboardInterrupt:
        print("prunescope: stopped; finished trials and checkpoints are kept, and the same command goes on from them", file=sys.stderr)
        raise typer.Exit(130) from None
    whole = report.digest(found.run)
    page = report.write_report(whole)
    report.write_figures(whole)
    _show_ranking(found)
    out.print(f"\nreport: {page}", highlight=False, soft_wrap=True)
    if found.ranking["reason"].notna().any():
        raise typer.Exit(1)


def _tell(line: str) -> None:
    out.print(line, highlight=False, markup=False, soft_wrap=True)


def _show_candidates(planned: Any) -> None:
    from prunescope.experiments.candidates import Space
    from prunescope.experiments.search import first_round

    space, first = Space(planned.experiment.search), first_round(planned)
    more = ", those to begin with" if planned.experiment.search.method == "tpe" else ""
    seeds = len(planned.experiment.seed_list)
    out.print(f"{planned.experiment.name}: {len(first)} candidates{more}, {seeds} seed{'s' if seeds > 1 else ''} each", highlight=False)
    for candidate, level in first:
        told = space.label(candidate.values, level)
        sparse = candidate.values.get("sparsity", level if space.search.halving and space.search.halving.over == "sparsity" else None)
        _tell(f"{candidate.number:4d}  {', '.join(p for p in (told, '' if sparse is None else f'sparsity {sparse:g}') if p)}")


def _show_ranking(found: Any) -> None:
    ranking = found.ranking
    keys = [c for c in ranking.columns if c not in ("rank", "candidate", "objective", "low", "high", "n", "reason")]
    _tell(f"{found.run.experiment['name']}: {found.text}")
    table = Table(box=None, pad_edge=False)
    for column in ("rank", *keys, "objective [95 %]"):
        table.add_column(escape(column.rpartition(".")[2]), justify="right")
    good = ranking[ranking["reason"].isna()]
    for row in good.head(MOST).to_dict("records"):
        brackets = "" if row["low"] != row["low"] else f" [{row['low']:.4g}, {row['high']:.4g}]"
        table.add_row(str(row["rank"]), *(escape(_text(row[k])) for k in keys), escape(f"{row['objective']:.4g}{brackets}"))
    out.print(table, width=max(out.width, 78))
    if len(good) > MOST:
        _tell(f"and {len(good) - MOST} more: search.json and the report have them all")
    for row in ranking[ranking["reason"].notna()].to_dict("records"):
        _tell(f"failed: {', '.join(f'{k} {_text(row[k])}' for k in keys)}: {row['reason']}")


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
