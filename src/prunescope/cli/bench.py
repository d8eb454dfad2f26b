"""`prunescope bench`: networks side by side in bytes, multiply-adds and latency, on every back-end, and where sparsity begins to pay."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from prunescope.cli.options import Allow
from prunescope.types import ConfigError

if TYPE_CHECKING:
    from prunescope.measures.breakeven import BreakEven
    from prunescope.measures.comparison import Bench, Row

out = Console()
Setting = Annotated[list[str] | None, typer.Option("-s", "--set", metavar="KEY=VALUE", help="An option of models by name.")]


def bench(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="RUN, RUN:HASH, a model's name, module:function, or NAME@FILE.safetensors.")
    ],
    backends: Annotated[str, typer.Option("--backends", help="quick, all (with break-even sparsities), or names with commas.")] = "quick",
    batch_sizes: Annotated[str, typer.Option("--batch-sizes", help="Samples a call.")] = "1,64",
    levels: Annotated[str | None, typer.Option("--levels", help="Sparsities tried for the break-even.")] = None,
    break_even: Annotated[bool | None, typer.Option("--break-even/--no-break-even", help="Whatever the back-ends.")] = None,
    input_shape: Annotated[str | None, typer.Option("--input", metavar="SHAPE", help="Of a sample, e.g. 1,28,28.")] = None,
    classes: Annotated[int, typer.Option("--classes", min=1, help="Outputs of models by name.")] = 10,
    settings: Setting = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of each back-end.")] = 1,
    seconds: Annotated[float, typer.Option("--seconds", min=0.001, help="Of each timing.")] = 0.3,
    clock: Annotated[Literal["wall", "processor"], typer.Option(help="processor: others on the machine do not disturb.")] = "wall",
    folder: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Also write bench.json, bench.csv and figures.")] = None,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Where data sets lie, for runs.")] = None,
    allow: Allow = None,
) -> None:
    """Compare networks: bytes in each format, multiply-adds, latency on each back-end; the first is what the others are compared with."""
    sizes = _numbers(batch_sizes, int, "--batch-sizes", "whole numbers, e.g. 1,64")
    tried = None if levels is None else _numbers(levels, float, "--levels", "fractions removed, e.g. 0.5,0.9")
    shape = None if input_shape is None else tuple(_numbers(input_shape, int, "--input", "the shape of a sample, e.g. 1,28,28"))
    from prunescope.config import parse_override
    from prunescope.experiments.opening import Building, opened
    from prunescope.measures.breakeven import LEVELS
    from prunescope.measures.comparison import bench as measured

    building = Building(shape, classes, dict(parse_override(s) for s in settings or []))
    found = [one for what in models for one in opened(what, building, data_dir, allow=allow or ())]
    names = _distinct([one.name for one in found])
    with out.status("measuring") as status:
        result = measured(
            {n: o.model for n, o in zip(names, found, strict=True)}, {n: o.x for n, o in zip(names, found, strict=True)},
            backends=backends if backends in ("quick", "all") else [b.strip() for b in backends.split(",")],
            batch_sizes=sizes, break_even=break_even, levels=LEVELS if tried is None else tried, threads=threads, seconds=seconds,
            clock=clock, progress=lambda what: status.update(escape(what)),
        )  # fmt: skip
    _show(result)
    if folder is not None:
        for path in result.save(folder):
            out.print(f"written: {path}", highlight=False, soft_wrap=True, markup=False)


def _numbers(text: str, kind: Any, option: str, expected: str) -> list[Any]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"{option} {text!r}: expected {expected}") from error


def _distinct(names: list[str]) -> list[str]:
    """Names as they are, numbered where one comes twice."""
    return [name if names.count(name) == 1 else f"{name} ({names[:i].count(name) + 1})" for i, name in enumerate(names)]


def _show(result: Bench) -> None:
    _print(*_size_table(result))
    for size, reference in result.reference.items():
        rows = [_time_row(row) for row in result.rows if row.batch_size == size and row.latency_ms is not None]
        title = f"batch {size}, {result.setting['threads']} thread(s), {result.setting['clock']} clock; speed-up over {reference}"
        _print(title, ("network", "back-end", "ms", "95 %", "speed-up", "95 %", "error"), rows)
    reasons = dict.fromkeys(f"{row.model}: {row.reason}" if len(result.sizes) > 1 else row.reason for row in result.rows if row.reason)
    for reason in reasons:
        out.print(f"not timed: {reason}", highlight=False, markup=False, soft_wrap=True)
    if result.break_evens:
        title = f"break-even of {next(iter(result.sizes))}: the sparsity from which on the sparse back-end beats the best dense one"
        kept = [_break_even_row(one) for one in result.break_evens if one.points]
        _print(title, ("what", "rows", "sparse", "best dense", "break-even", "95 %", "at the highest level"), kept)
        for reason in dict.fromkeys(f"{one.backend} on {one.what}: {one.reason}" for one in result.break_evens if not one.points):
            out.print(f"no break-even: {reason}", highlight=False, markup=False, soft_wrap=True)


def _print(title: str, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    out.print(title, style="italic", highlight=False, markup=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    text = ("network", "back-end", "what", "sparse", "best dense", "")
    for column in header:
        table.add_column(column, justify="left" if column in text else "right", no_wrap=column not in ("network", "what"))
    for row in rows:
        table.add_row(*map(escape, row))
    out.print(table, "", width=max(out.width, 100))


def _size_table(result: Bench) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    names = list(result.sizes)
    dense = result.sizes[names[0]]["bytes"]
    rows = []
    for metric in result.sizes[names[0]]:
        values = [result.sizes[name][metric] for name in names]
        share = metric.startswith("bytes")
        label = {"bytes": "bytes dense", "macs": "multiply-adds", "macs_nonzero": "  with non-zero weights"}
        what = label.get(metric, metric.replace("bytes_", "  ").replace("_", "-"))
        rows.append((what, *(f"{v:,}" + (f" ({100 * v / dense:.0f} %)" if share and dense else "") for v in values)))
    return f"sizes (per cent of the dense bytes of {names[0]}; multiply-adds of one sample)", ("", *names), rows


def _time_row(row: Row) -> tuple[str, ...]:
    speed = ("", "") if row.speedup is None else (f"{row.speedup:.2f}", f"{row.speedup_low:.2f} to {row.speedup_high:.2f}")
    error = "" if row.error is None else f"{row.error:.0e}" if row.error else "0"
    return row.model, row.backend, f"{row.latency_ms:.3f}", f"{row.low:.3f} to {row.high:.3f}", *speed, error


def _break_even_row(one: BreakEven) -> tuple[str, ...]:
    last, first = one.points[-1], one.points[0]
    if one.sparsity is None:
        at = "never" if len(one.points) > 1 else "slower"
    elif one.sparsity <= first.sparsity:
        at = f"below {100 * first.sparsity:g} %" if len(one.points) > 1 else "faster"
    else:
        at = f"{100 * one.sparsity:.0f} %"
    ends = ["" if end is None else f"{100 * end:.0f}" for end in one.interval]
    spread = " to ".join(end or "beyond" for end in ends) if any(ends) else ""
    what = f"{one.what}, batch {one.batch_size}"
    return what, str(one.rows), one.backend, one.dense, at, spread, f"{last.ratio:.2f} of its time at {100 * last.sparsity:g} %"
