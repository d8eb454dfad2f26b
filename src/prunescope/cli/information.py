"""`prunescope mi`: mutual information of samples in a file, by one estimator or a panel of all that apply; --check against known truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from prunescope.types import ConfigError, Estimate

if TYPE_CHECKING:
    from pandas import DataFrame

    from prunescope.information.panel import PanelRow

out = Console()


def mi(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE.npz|FILE.csv]", help="The samples.")] = None,
    x: Annotated[str, typer.Option("--x", help="Array or column(s) of X: a or a,b,c.")] = "x",
    y: Annotated[str, typer.Option("--y", help="Array or column(s) of Y.")] = "y",
    estimators: Annotated[str, typer.Option("--estimators", "--estimator", help="auto, all, or names: ksg,gaussian-copula.")] = "auto",
    unit: Annotated[Literal["bits", "nats"], typer.Option("--unit", help="bits or nats.")] = "bits",
    uncertainty: Annotated[
        Literal["auto", "extrapolation", "subsampling", "jackknife", "none"],
        typer.Option("--uncertainty", help="How the interval is made; auto: by extrapolation in n where the method is biased."),
    ] = "auto",
    seed: Annotated[int, typer.Option("--seed", help="Of everything that draws.")] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("-s", "--set", metavar="KEY=VALUE", help="A parameter: -s k=5, or -s ksg.k=5 for one of several.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Estimate tasks of known truth instead of a file.")] = False,
    n: Annotated[int, typer.Option("--n", min=10, help="Samples a task for --check.")] = 1000,
    tasks: Annotated[str, typer.Option("--tasks", help="Group of tasks for --check: continuous, discrete, mixed, all.")] = "discrete",
) -> None:
    """Mutual information of samples in a file: a table of estimates with units, errors, ceilings and flags."""
    from prunescope.config import parse_override
    from prunescope.information.panel import agreement, panel

    names = None if estimators == "all" else [name.strip() for name in estimators.split(",")]
    if check:
        _print_check(_checked(names, tasks, n))
        return
    if file is None:
        raise ConfigError("mi: expected a file of samples (prunescope mi FILE.npz --x x --y y), or --check")
    from prunescope.data.variables import read_variables

    one, other = read_variables(file, x, y)
    parameters = _parameters([parse_override(s) for s in settings or []], names)
    rows = panel(one, other, names, unit=unit, seed=seed, parameters=parameters, uncertainty=None if uncertainty == "none" else uncertainty)
    _print_panel(rows, unit, f"I({x}; {y}) of {file.name}, {len(one):,} samples")
    if len(rows) > 1:
        out.print(f"\n{agreement(rows)}", highlight=False, soft_wrap=True)
    if not any(row.estimate for row in rows):
        raise typer.Exit(1)


def _parameters(settings: list[tuple[str, Any]], names: list[str] | None) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for key, value in settings:
        owner, dot, parameter = key.rpartition(".")
        if not dot and (names is None or len(names) != 1):
            raise ConfigError(f"-s {key}: several estimators are asked for: say whose parameter it is, as in -s ksg.{key}={value}")
        found.setdefault(owner if dot else (names or [""])[0], {})[parameter] = value
    return found


def _print_panel(rows: list[PanelRow], unit: str, title: str) -> None:
    table = Table(box=None, title=title, title_justify="left", pad_edge=False)
    for column in ("estimator", unit, "95 % interval", "ceiling", "flags", "parameters, or why there is no value"):
        number = column in (unit, "95 % interval", "ceiling")
        table.add_column(column, justify="right" if number else "left", overflow="fold", no_wrap=number or column == "estimator")
    for row in rows:
        e = row.estimate
        cells = ["", "", "", "", row.reason] if e is None else [f"{e.value:.4f}", _interval(e), _ceiling(e), " ".join(e.flags), _stated(e)]
        table.add_row(row.estimator, *map(escape, cells))
    out.print(table)
    for told in sorted({str(r.estimate.parameters.get("uncertainty", "")) for r in rows if r.estimate} - {""}):
        out.print(f"interval: {told}", highlight=False, soft_wrap=True)


def _interval(e: Estimate) -> str:
    return "" if e.interval is None else f"[{e.interval[0]:.4f}, {e.interval[1]:.4f}]"


def _ceiling(e: Estimate) -> str:
    return "" if e.ceiling is None or e.ceiling == float("inf") else f"{e.ceiling:.3f}"


def _stated(e: Estimate) -> str:
    told = {k: v for k, v in e.parameters.items() if v is not None and k not in ("uncertainty", "tile", "bias_nats", "unchecked")}
    if "resolution" in told:
        return str(told["resolution"])
    return ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in told.items())


def _checked(names: list[str] | None, group: str, n: int) -> DataFrame:
    from prunescope.data.synthetic import tasks as known
    from prunescope.information import validation
    from prunescope.registry import estimators as registry

    wanted = registry.names() if names is None else names
    return validation.check(wanted, known(group), n=n)  # type: ignore[arg-type]


def _print_check(found: DataFrame) -> None:
    table = Table(box=None, title="known truth, in nats: the interval is nominally 95 %", title_justify="left", pad_edge=False)
    for column in ("task", "estimator", "truth", "value", "error", "inside", "covered", "seconds", "flags"):
        left = column in ("task", "estimator", "flags")
        table.add_column(column, justify="left" if left else "right", overflow="fold", no_wrap=column != "flags")
    for row in found.to_dict("records"):
        missing = row["value"] is None or row["value"] != row["value"]
        value, error = ("", "") if missing else (f"{row['value']:.3f}", f"{row['error']:+.3f}")
        told = str(row["failure"] or row["flags"])
        covered = "" if row["covered"] is None or row["covered"] != row["covered"] else ("yes" if row["covered"] else "no")
        inside = "yes" if row["inside"] else "no"
        cells = [row["task"], row["estimator"], f"{row['truth']:.3f}", value, error, inside, covered, f"{row['seconds']:.2f}", told]
        table.add_row(*map(escape, map(str, cells)))
    out.print(table)
    done = found.groupby("estimator")["inside"].agg(["sum", "count"])
    told = ", ".join(f"{name} {row['sum']:.0f} of {row['count']:.0f}" for name, row in done.iterrows())
    out.print(f"\ninside max(0.07 bit, 5 %): {told}", highlight=False, soft_wrap=True)
