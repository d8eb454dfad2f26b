"""A comparison of runs as text: rows for the terminal, Markdown, CSV, and a page that works offline and runs nothing."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from prunescope.report.comparison import Comparison
from prunescope.report.html import asset, content_hash
from prunescope.report.numbers import size
from prunescope.report.tables import percent
from prunescope.results.files import write_beside
from prunescope.types import ConfigError

NAMES = {
    "accuracy": "test accuracy [%]", "loss": "test loss [nats]", "sparsity": "sparsity reached [%]", "nonzero": "non-zero parameters",
    "bytes": "size of the parameters", "flops": "FLOPs", "latency_ms": "latency [ms]", "mi_input": "I(X;T)", "mi_label": "I(T;Y)",
    "entropy": "H(T)",
}  # fmt: skip
MORE_IS_BETTER = {"accuracy": True, "loss": False, "latency_ms": False}
SUFFIXES = (".html", ".md", ".csv")
Header = tuple[list[str], list[list[str]]]


def write_comparison(found: Comparison, path: Path) -> Path:
    """Write `found` as .html (a page), .md (tables) or .csv (every number); returns the path. ConfigError for another ending."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"--out {path}: expected a file that ends in {', '.join(SUFFIXES)}")
    if path.suffix == ".csv":
        write_beside(path, lambda beside: found.table.to_csv(beside, index=False))
    else:
        text = comparison_page(found) if path.suffix == ".html" else comparison_markdown(found)
        write_beside(path, lambda beside: beside.write_text(text, encoding="utf-8", newline="\n"))
    return path


def title(found: Comparison) -> str:
    """What is compared with what, in one line."""
    return f"{', '.join(found.runs[1:])} compared with {found.runs[0]}"


def verdicts(found: Comparison) -> list[str]:
    """One sentence a metric and run: in how many settings it is higher or lower for certain (interval without zero)."""
    told = []
    for (metric, run), part in found.table.groupby(["metric", "run"], sort=False):
        sure = part[part["low"].notna()]
        up, down = int((sure["low"] > 0).sum()), int((sure["high"] < 0).sum())
        words = ("better", "worse") if MORE_IS_BETTER.get(str(metric), True) else ("worse", "better")
        words = words if metric in MORE_IS_BETTER else ("higher", "lower")
        counts = f"{words[0]} in {up}, {words[1]} in {down}, not told apart in {len(sure) - up - down}"
        single = f"; {len(part) - len(sure)} with too few seeds for an interval" if len(part) > len(sure) else ""
        told.append(f"{_name(str(metric), part)}: of {len(part)} shared settings {run} is {counts}{single}.")
    return told


def _name(metric: str, part: pd.DataFrame) -> str:
    name = NAMES.get(metric, metric)
    unit = part["unit"].iloc[0]
    return f"{name} [{unit}]" if metric in ("mi_input", "mi_label", "entropy") else name


def formatter(metric: str) -> Callable[[float, bool], str]:
    """How a value of `metric`, or a difference (signed), is written.

    >>> formatter("accuracy")(0.9, False), formatter("accuracy")(-0.0123, True), formatter("nonzero")(1234.0, True)
    ('90.0', '−1.2', '+1,234')
    """
    plain: dict[str, Callable[[float], str]] = {"bytes": size, "nonzero": "{:,.0f}".format, "flops": "{:,.0f}".format}
    for name in ("accuracy", "sparsity"):
        plain[name] = lambda v: f"{100 * v:.1f}"
    write = plain.get(metric, "{:.3g}".format if metric == "latency_ms" else "{:.3f}".format)

    def told(value: float, signed: bool) -> str:
        if math.isnan(value):
            return ""
        text = write(abs(value))
        return f"{('+' if value > 0 else '−' if value < 0 else '±') if signed else '' if value >= 0 else '−'}{text}"

    return told


def comparison_rows(found: Comparison, metric: str) -> Header:
    """Header and rows of one metric: setting, both means, difference with its interval, median, pairs; one row a setting and run."""
    part = found.table[found.table["metric"] == metric]
    show, several = formatter(metric), len(found.runs) > 2
    means = [found.runs[0], "that run" if several else found.runs[1]]
    header = ["setting", *(["run"] if several else []), *means, "difference [95 %]", "median", "pairs"]
    rows = []
    for row in part.to_dict("records"):
        ends = "" if math.isnan(row["low"]) else f" [{show(row['low'], True)}, {show(row['high'], True)}]"
        pairs = str(row["n"]) if row["paired"] else f"unpaired, {row['n_reference']} and {row['n_run']}"
        means = [show(row["of_reference"], False), show(row["of_run"], False)]
        first = [setting(row), *([row["run"]] if several else [])]
        rows.append([*first, *means, show(row["difference"], True) + ends, show(row["median"], True), pairs])
    return header, rows


def setting(row: dict) -> str:
    """Group, variant, sparsity, layer and estimator of a row, as far as it has them."""
    level = "" if math.isnan(row["sparsity"]) else percent(row["sparsity"])
    where = ", ".join(str(v) for v in (row["layer"], row["estimator"]) if v)
    return " ".join(str(v) for v in (row["group"] and f"{row['group']}:", row["variant"], level, where and f"· {where}") if v)


def comparison_markdown(found: Comparison) -> str:
    """A Markdown page: verdicts, one table a metric, notes."""
    lines = [f"# {_cell(title(found))}", "", *(f"- {_cell(v)}" for v in verdicts(found)), ""]
    for metric in dict.fromkeys(found.table["metric"]):
        header, rows = comparison_rows(found, metric)
        aligned = ["---" if name in ("setting", "run") else "---:" for name in header]
        lines += [f"## {_name(metric, found.table[found.table['metric'] == metric])}", ""]
        lines += ["| " + " | ".join(map(_cell, cells)) + " |" for cells in (header, aligned, *rows)]
        lines.append("")
    return "\n".join([*lines, *(f"- {_cell(note)}" for note in found.notes)]) + "\n"


def _cell(text: str) -> str:
    """Text that Markdown cannot take for a table's edge or for HTML."""
    return re.sub(r"\s+", " ", html.escape(str(text), quote=False).replace("|", "\\|"))


def comparison_page(found: Comparison) -> str:
    """The HTML text: no script at all; the style of the reports by its hash; every name escaped."""
    style = page_style()
    tell = html.escape
    body = [f"<h1>{tell(title(found))}</h1>", '<ul class="verdicts">', *(f"<li>{tell(v)}</li>" for v in verdicts(found)), "</ul>"]
    for metric in dict.fromkeys(found.table["metric"]):
        part = found.table[found.table["metric"] == metric]
        header, rows = comparison_rows(found, metric)
        heads = "".join(f'<th scope="col"{_aligned(h, "text")}>{tell(h)}</th>' for h in [*header, "lower · higher"])
        region = f'<div class="scroll" tabindex="0" role="region" aria-label="{tell(metric)}">'
        body.append(f"<section><h2>{tell(_name(metric, part))}</h2>{region}<table><thead><tr>{heads}</tr></thead><tbody>")
        reach = _reach(part)
        for cells, row in zip(rows, part.to_dict("records"), strict=True):
            texts = [f"<td{_aligned(h, 'text name')}>{tell(c)}</td>" for h, c in zip(header, cells, strict=True)]
            body.append(f"<tr>{''.join(texts)}<td>{_interval_picture(row, reach, tell(cells[-3]))}</td></tr>")
        body.append("</tbody></table></div></section>")
    notes = "".join(f"<li>{tell(note)}</li>" for note in found.notes)
    body.append(f"<section><h2>What to keep in mind</h2><ul>{notes}</ul></section>")
    policy = f"default-src 'none'; style-src '{content_hash(style)}'; base-uri 'none'; form-action 'none'"
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{tell(title(found))}</title>'
    guard = f'<meta http-equiv="Content-Security-Policy" content="{policy}"><meta name="color-scheme" content="light dark">'
    whole = f"<head>{head}{guard}<style>{style}</style></head>\n<body><main>{''.join(body)}</main></body>"
    return f'<!doctype html>\n<html lang="en">{whole}</html>\n'


def _aligned(column: str, words: str) -> str:
    return f' class="{words}"' if column in ("setting", "run") else ""


def page_style() -> str:
    """The reports' style, dark where the reader's system is: this page has no script that could choose."""
    css = asset("page.css")
    dark = re.search(r'\[data-theme="dark"\] \{(.*?)\}', css, flags=re.DOTALL)
    assert dark is not None, "page.css has a dark theme"
    more = ".verdicts { padding-left: 1.1rem; } .verdicts li { margin: .3rem 0; } svg.interval { vertical-align: middle; }"
    return f"{css}\n{more}\n@media (prefers-color-scheme: dark) {{ :root {{{dark[1]}}} }}\n"


def _reach(part: pd.DataFrame) -> float:
    """The largest distance from zero that a metric's differences and intervals have."""
    found = part[["difference", "low", "high"]].abs().max().max()
    return float(found) if found > 0 else 1.0


def _interval_picture(row: dict, reach: float, told: str) -> str:
    """Zero as a rule in the middle, the interval as a bar, the difference as a dot: open where it is unpaired."""
    wide, high = 180, 20

    def at(value: float) -> float:
        return wide / 2 + value / reach * (wide / 2 - 8)

    if math.isnan(row["difference"]):
        return ""
    sure = row["low"] > 0 or row["high"] < 0
    colour = "var(--c1)" if sure and row["difference"] < 0 else "var(--c0)" if sure else "var(--c7)"
    look = f'stroke="{colour}" stroke-width="5" opacity=".4" stroke-linecap="round"'
    bar = "" if math.isnan(row["low"]) else f'<line x1="{at(row["low"]):.1f}" x2="{at(row["high"]):.1f}" y1="10" y2="10" {look}/>'
    inside = colour if row["paired"] else "var(--panel)"
    dot = f'<circle cx="{at(row["difference"]):.1f}" cy="10" r="4" fill="{inside}" stroke="{colour}" stroke-width="1.6"/>'
    zero = f'<line class="rule" x1="{wide / 2}" x2="{wide / 2}" y1="0" y2="{high}"/>'
    return f'<svg class="interval" width="{wide}" height="{high}" role="img" aria-label="{told}">{zero}{bar}{dot}</svg>'
