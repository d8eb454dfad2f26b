"""`prunescope compare`, `figures` and `cite`: what is made of finished runs for readers and papers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from prunescope.discretion import printable
from prunescope.types import ConfigError

out = Console()
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders; the first is what the others are compared with.")],
    metrics: Annotated[list[str] | None, typer.Option("--metric", help="accuracy, loss, nonzero, mi_label, ...; may come again.")] = None,
    file: Annotated[Path | None, typer.Option("--out", help="A page (.html), tables (.md) or all numbers (.csv).")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
) -> None:
    """Compare runs setting by setting: differences paired where variant, sparsity and seed match, with 95 % intervals."""
    from prunescope.report.comparison import compare as compared
    from prunescope.report.comparisontext import SUFFIXES, verdicts, write_comparison

    if file is not None and file.suffix not in SUFFIXES:
        raise ConfigError(f"--out {file}: expected a file that ends in {', '.join(SUFFIXES)}")
    found = compared(*runs, metrics=metrics, seed=seed)
    for metric in dict.fromkeys(found.table["metric"]):
        out.print(_table(found, str(metric)), "", width=max(out.width, 78))
    for sentence in (*verdicts(found), "", *found.notes):
        out.print(sentence, highlight=False, markup=False)
    if file is not None:
        out.print(f"\ncomparison: {write_comparison(found, file)}", highlight=False, markup=False, soft_wrap=True)


def _table(found: Any, metric: str) -> Table:
    from prunescope.report.comparisontext import NAMES, comparison_rows

    header, rows = comparison_rows(found, metric)
    table = Table(box=None, title=escape(NAMES[metric]), title_justify="left", pad_edge=False)
    for column in header:
        named = column in ("setting", "run")
        table.add_column(escape(column), justify="left" if named else "right", no_wrap=not named, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def figures(
    folder: RunFolder,
    format: Annotated[str, typer.Option("--format", help="pdf, svg or png, or several with commas.")] = "pdf",
    width: Annotated[str | None, typer.Option("--width", metavar="LENGTH", help="Exact width: 3.25in, 8.2cm, 82mm, 234pt.")] = None,
    only: Annotated[list[str] | None, typer.Option("--only", metavar="NAME", help="A figure or kind, e.g. plane; may come again.")] = None,
    target: Annotated[Path | None, typer.Option("--out", help="The folder (default RUN/figures).")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Only name the figures that there are.")] = False,
) -> None:
    """Write a run's figures for a paper: vectors, fonts embedded, exactly as wide as the column."""
    from prunescope import report
    from prunescope.results import load

    run = load(folder)
    for problem in run.problems:
        print(f"prunescope: {printable(problem)}", file=sys.stderr)
    if listed:
        print("\n".join(report.figure_names(run)))
        return
    written = report.figures(run, target, format=[f.strip() for f in format.split(",")], width=width, only=only)
    for path in written:
        print(path)
    if not written:
        print(f"prunescope: {folder} has no records that a figure shows", file=sys.stderr)
        raise typer.Exit(1)


def cite(
    folder: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="A run folder; without one, prunescope itself.")] = None,
) -> None:
    """Print BibTeX: prunescope, and the papers behind exactly the criteria, estimators and other parts that a run used."""
    from prunescope.report.citation import cite as cited

    print(cited(folder), end="")
