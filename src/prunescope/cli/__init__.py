"""The command line. Heavy packages are imported inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import contextlib
import functools
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from prunescope import __version__
from prunescope.cli.bench import bench
from prunescope.cli.compacting import compact
from prunescope.cli.information import mi
from prunescope.cli.live import watch, watching
from prunescope.cli.models import export_model
from prunescope.cli.options import Allow, Checkpoint, DataDir, Device, Engine, Jobs, Log, Memory, Stack, Storage, Threads
from prunescope.cli.pruning import latency, prune, sensitivity
from prunescope.cli.reporting import cite, compare, figures
from prunescope.cli.searching import search
from prunescope.discretion import printable
from prunescope.types import ConfigError, DataError, EstimateError, PrunescopeError

app = typer.Typer(
    name="prunescope",
    help="Prune any PyTorch network and see what it does to accuracy, size, speed and the flow of information.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Data sets: where they are; `get` fetches one.", invoke_without_command=True)
app.add_typer(data_app, name="data")
app.command(name="mi")(mi)
app.command(name="prune")(prune)
app.command(name="sensitivity")(sensitivity)
app.command(name="latency")(latency)
app.command(name="export-model")(export_model)
app.command(name="bench")(bench)
app.command(name="compact")(compact)
app.command(name="compare")(compare)
app.command(name="figures")(figures)
app.command(name="cite")(cite)
app.command(name="watch")(watch)
app.command(name="search")(search)

out = Console()
Setting = Annotated[list[str] | None, typer.Option("-s", "--set", metavar="KEY=VALUE", help="Set a config key, e.g. -s training.epochs=3.")]


def main() -> None:
    """Run the command line; a mistake is one sentence and exit code 2, a failure one sentence and exit code 1."""
    try:
        app()
    except PrunescopeError as error:
        print(f"prunescope: {printable(str(error))}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError | DataError | EstimateError) else 1)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False) -> None:
    pass


@app.command()
def run(
    source: Annotated[str, typer.Argument(metavar="[PRESET|FILE.toml]", help="A preset or a config file.")] = "quickstart",
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
    watched: Annotated[bool, typer.Option("--watch", help="Show it in the browser while it works, on this machine only.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Do finished trials again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would run.")] = False,
    shard: Annotated[str | None, typer.Option(metavar="I/N", help="Only part I of N of the trials, e.g. 3/20.")] = None,
    lease: Annotated[float, typer.Option(metavar="SECONDS", help="After which a run that shows no sign of life loses its trials.")] = 60.0,
    storage: Storage = None,
    memory: Memory = "auto",
    allow: Allow = None,
) -> None:
    """Run an experiment: all its trials that are not finished yet, then its report."""
    from prunescope import experiments, report
    from prunescope.config import parse_override

    overrides = [parse_override(s) for s in settings or []]
    plan = functools.partial(experiments.plan, source, overrides, allow=allow or ())
    if dry_run:
        _show_plan(plan(), shard)
        return
    planned = folder or (Path("runs") / plan().experiment.name if watched else None)
    with watching(planned) if watched and planned else contextlib.nullcontext() as shown:
        try:
            finished = experiments.run(
                source, overrides=overrides, out=folder, data_dir=data_dir, engine=engine, jobs=jobs, threads=threads, device=device,
                stack=int(stack) if stack.isdigit() else stack, checkpoint=checkpoint, log=log or (), fresh=fresh, quiet=False,
                shard=shard, lease=lease, storage=storage, memory=memory, allow=allow or (),
            )  # fmt: skip
        except KeyboardInterrupt:
            print("prunescope: stopped; finished trials and checkpoints are kept, and the same command goes on from them", file=sys.stderr)
            raise typer.Exit(130) from None
        whole = report.digest(finished)
        page = report.write_report(whole)
        report.write_figures(whole)
        if shown is not None:
            shown.linger()
    _show_summary(finished)
    failed = finished.trials[finished.trials["status"] != "finished"]
    if shard is not None:
        failed = failed[failed["hash"].isin([t.hash for t in experiments.in_shard(plan().trials, shard)])]
    for row in failed.itertuples():
        what = f"{row.variant}, sparsity {row.sparsity}, seed {row.seed}: {row.reason}"
        out.print(f"failed: {escape(printable(what))}", highlight=False)
    out.print(f"\nreport: {page}", highlight=False, soft_wrap=True)
    if len(failed):
        raise typer.Exit(1)


@app.command(name="report")
def report_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")],
    file: Annotated[Path | None, typer.Option("--out", help="The page (default RUN/report.html), or a .md file for the table.")] = None,
) -> None:
    """Write the report of each run folder anew; --out FILE.md writes its summary table as Markdown instead."""
    from prunescope import report, results
    from prunescope.results.files import write_beside

    if file is not None and len(runs) > 1:
        raise ConfigError(f"--out names one file, and {len(runs)} runs were given: leave it out or give one run")
    for folder in runs:
        found = results.load(folder)
        if file is not None and file.suffix == ".md":
            write_beside(file, functools.partial(Path.write_text, data=report.summary_markdown(found), encoding="utf-8"))
            out.print(f"table: {file}", highlight=False, soft_wrap=True)
            continue
        whole = report.digest(found)
        report.write_figures(whole)
        out.print(f"report: {report.write_report(whole, file)}", highlight=False, soft_wrap=True)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    format: Annotated[Literal["csv", "parquet", "json"], typer.Option("--format", help="csv, parquet or json.")] = "csv",
    file: Annotated[Path | None, typer.Option("--out", help="The file (default RUN/records.FORMAT).")] = None,
) -> None:
    """Write all records of a run as one file."""
    from prunescope.results import load
    from prunescope.results.store import export_records

    found = load(folder)
    for problem in found.problems:
        print(f"prunescope: {printable(problem)}", file=sys.stderr)
    print(export_records(found, format, file))


@app.command()
def show(preset: Annotated[str, typer.Argument(help="A preset's name.")]) -> None:
    """Print a preset's TOML, to be changed and run as a config of one's own."""
    from prunescope.experiments import presets

    print(presets.text(preset), end="")


@app.command(name="list")
def list_command(
    kind: Annotated[str | None, typer.Argument(help="presets, datasets, models, criteria, estimators, ... (default: all)")] = None,
) -> None:
    """List what there is: presets and everything registered, with sources."""
    from prunescope import catalogue

    kinds = catalogue.kinds()
    if kind is not None and kind not in kinds:
        from prunescope.registry import unknown

        raise ConfigError(unknown("kind of thing", kind, kinds))
    for one in [kind] if kind else kinds:
        table = Table(title=one, title_justify="left", show_edge=False, box=None, pad_edge=False)
        for column in ("name", "what it is", "question" if one == "presets" else "source"):
            table.add_column(column, overflow="fold", no_wrap=column == "name")
        for row in catalogue.rows(one):
            table.add_row(*map(escape, row))
        out.print(table, "")


@data_app.callback()
def data(context: typer.Context, data_dir: DataDir = None) -> None:
    """Say which data sets are found and where."""
    if context.invoked_subcommand is not None:
        return
    from prunescope.data import available

    for found in available(data_dir):
        size = f" ({found.size / 1e6:.1f} MB)" if found.size else ""
        place = f"{found.where}{size}" if found.found else f"not found: prunescope data get {found.name}"
        out.print(f"{found.name:14s} {escape(str(place))}", highlight=False, soft_wrap=True)


@data_app.command(name="get")
def data_get(name: Annotated[str, typer.Argument(help="A data set, e.g. mnist.")], data_dir: DataDir = None) -> None:
    """Fetch a data set and check it by its checksum."""
    from prunescope.data import get

    for path in get(name, data_dir):
        print(path)


def _show_plan(planned: Any, shard: str | None) -> None:
    from prunescope.experiments import in_shard

    trials = in_shard(planned.trials, shard)
    part = "" if shard is None else f" of {len(planned.trials)}, part {shard}"
    table = Table(title=f"{planned.experiment.name}: {len(trials)} trials{part}", title_justify="left", box=None)
    for column in ("hash", "trial", "pruned"):
        table.add_column(column, no_wrap=column == "hash")
    for trial in trials:
        prune = trial.config.prune
        what = "never" if prune.when == "never" else f"{prune.when}: {prune.granularity} by {prune.criterion}, {prune.allocation}"
        table.add_row(trial.hash, escape(trial.label), what)
    out.print(table)


def _show_summary(finished: Any) -> None:
    from prunescope.report import summary_rows

    header, rows = summary_rows(finished, brief=True)
    table = Table(box=None, title=f"{finished.experiment['name']}: test results", title_justify="left", pad_edge=False)
    for column in header:
        table.add_column(column, justify="left" if column == "variant" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(escape, row))
    out.print(table, width=max(out.width, 78))
