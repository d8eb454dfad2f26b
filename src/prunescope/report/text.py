"""The summary as text: rows for the terminal, and a Markdown page for a results folder."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from prunescope.report.tables import percent, summary_table

if TYPE_CHECKING:
    from prunescope.results.store import Run

Rows = tuple[list[str], list[list[str]]]


def summary_rows(run: Run, *, brief: bool = False) -> Rows:
    """Header and rows of the summary: test accuracy, its difference to the baseline and the loss, each with a 95 % interval over seeds.

    `brief` keeps what fits a terminal: the accuracy's interval alone, without loss and size.
    """
    table = summary_table(run)
    if brief:
        header = ["variant", "sparsity", "accuracy % [95 %]", "change", "collapsed"]
        return header, [_brief(row) for _, row in table.iterrows()]
    grouped = bool((table["group"] != "").any())
    header = ["variant", "asked", "reached", "accuracy %", "difference, points", "loss, nats", "non-zeros", "collapsed", "seeds"]
    rows = [_row(row) for _, row in table.iterrows()]
    if grouped:
        return ["group", *header], [[str(g), *row] for g, row in zip(table["group"], rows, strict=True)]
    return header, rows


def _row(row: pd.Series) -> list[str]:
    return [
        str(row["variant"]),
        "" if _nan(row["sparsity"]) else percent(row["sparsity"]),
        "" if _nan(row["reached"]) else percent(row["reached"]),
        _with_interval(row, "accuracy", 100, 2),
        _with_interval(row, "difference", 100, 2, sign="+"),
        _with_interval(row, "loss", 1, 4),
        "" if _nan(row["nonzero"]) else f"{row['nonzero']:,.0f}",
        f"{row['collapsed']:.0f}/{row['judged']:.0f}" if not _nan(row["judged"]) else "",
        f"{row['seeds']:.0f}" + (f" ({row['failed']:.0f} failed)" if row["failed"] else ""),
    ]


def _brief(row: pd.Series) -> list[str]:
    name = f"{row['group']}: {row['variant']}" if row["group"] else str(row["variant"])
    level = row["reached"] if _nan(row["sparsity"]) else row["sparsity"]
    difference = "" if _nan(row["difference"]) else f"{100 * row['difference']:+.1f}"
    return [name, "" if _nan(level) else percent(level), _with_interval(row, "accuracy", 100, 1), difference, _row(row)[7]]


def _with_interval(row: pd.Series, name: str, scale: float, digits: int, sign: str = "") -> str:
    if _nan(row[name]):
        return ""
    middle = f"{row[name] * scale:{sign}.{digits}f}"
    low, high = row.get(f"{name}_low", math.nan), row.get(f"{name}_high", math.nan)
    return middle if _nan(low) else f"{middle} [{low * scale:{sign}.{digits}f}, {high * scale:{sign}.{digits}f}]"


def _nan(value: object) -> bool:
    return bool(pd.isna(value))  # type: ignore[call-overload]


def summary_markdown(run: Run) -> str:
    """A Markdown page of the run: what was asked, the command, what it took, and the summary table."""
    experiment = run.experiment
    header, rows = summary_rows(run)
    aligned = ["---" if name in ("group", "variant") else "---:" for name in header]
    lines = [
        f"# {experiment.get('title', experiment['name'])}",
        "",
        str(experiment.get("question", "")),
        "",
        f"    {experiment.get('command', '')}",
        "",
        f"{len(run.trials)} trials, {_clock(experiment)} ({experiment.get('machine', 'machine not recorded')}).",
        "Accuracy is on the test split; brackets are 95 % bootstrap intervals over seeds; differences are paired by seed.",
        "",
        *(_line(cells) for cells in (header, aligned, *rows)),
        "",
        *(f"- {sentence}" for sentence in (*experiment.get("notes", []), *experiment.get("data_notes", []))),
        *(f"- Fault of the study: {sentence}" for sentence in experiment.get("faults", [])),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _clock(experiment: dict[str, Any]) -> str:
    spent = experiment.get("wall_seconds")
    return "time not recorded" if not isinstance(spent, int | float) or not spent else f"{spent / 60:.1f} minutes on the clock"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
