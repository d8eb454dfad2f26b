"""Figures of the bench: latencies with their intervals, and break-even curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prunescope.measures.breakeven import WHOLE, BreakEven

if TYPE_CHECKING:
    import matplotlib.figure


PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6a51a3", "#6b6f76")  # Okabe and Ito 2008, yellow replaced
MARKERS = "osD^vP*X"
STYLE: dict[Any, Any] = {
    "font.size": 9, "axes.titlesize": 9.5, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.spines.top": False,
    "axes.spines.right": False, "axes.edgecolor": "#b5b8b4", "axes.grid": True, "grid.color": "#ecedea", "axes.axisbelow": True,
    "legend.frameon": False, "svg.fonttype": "path", "svg.hashsalt": "prunescope", "figure.constrained_layout.use": True,
}  # fmt: skip
MOST_PANELS = 12
SOFT = "#5b626c"


def latencies(found: Any) -> matplotlib.figure.Figure:
    """Median milliseconds with 95 % intervals (points with bars, logarithmic) by back-end; colours are networks, panels batch sizes."""
    import matplotlib.pyplot as plt

    timed = [r for r in found.rows if r.latency_ms is not None]
    sizes = list(dict.fromkeys(r.batch_size for r in timed))
    backends, names = (list(dict.fromkeys(getattr(r, key) for r in timed)) for key in ("backend", "model"))
    with plt.rc_context(STYLE):
        height = 0.17 * len(backends) * (len(names) + 0.8) + 1.3
        figure, axes = plt.subplots(1, len(sizes), figsize=(3.2 * len(sizes) + 1.8, height), squeeze=False, sharey=True)
        for axis, size in zip(axes[0], sizes, strict=True):
            for row in (r for r in timed if r.batch_size == size):
                _dot(axis, row, backends.index(row.backend), names.index(row.model), len(names))
            axis.set_xscale("log")
            axis.set_title(f"batch {size}")
            axis.set_xlabel("milliseconds")
            axis.grid(False, axis="y")
            _plain_ticks(axis.xaxis, [v for r in timed if r.batch_size == size for v in (r.low, r.high) if v])
            best = [r.latency_ms for r in timed if f"{r.model} on {r.backend}" == found.reference.get(size) and r.batch_size == size]
            for value in best:
                axis.axvline(value, color=SOFT, linewidth=1, linestyle="--", label="best dense back-end of the first")
        axes[0, 0].set_yticks(range(len(backends)), backends)
        axes[0, 0].set_ylim(len(backends) - 0.4, -0.6)
        _legend(figure, axes.flat)
    return figure


def _dot(axis: Any, row: Any, place: int, number: int, names: int) -> None:
    median, low, high = row.latency_ms or 0.0, row.low or 0.0, row.high or 0.0
    y = place + (number - (names - 1) / 2) * 0.7 / max(1, names)
    spread = [[median - low], [high - median]]
    style = {"color": PALETTE[number % 8], "marker": MARKERS[number % 8], "linestyle": "none"}
    axis.errorbar([median], [y], xerr=spread, markersize=5, elinewidth=1.4, capsize=2, label=row.model, **style)


def break_even_curves(found: Sequence[BreakEven]) -> matplotlib.figure.Figure:
    """Time of each sparse back-end over the best dense one's, with 95 % bands, against sparsity; a panel a layer size and batch.

    Below 1 the sparse back-end is faster; the vertical line stands at the break-even. At most twelve panels: whole networks, then the
    largest layers.
    """
    import matplotlib.pyplot as plt

    panels: dict[tuple[str, int, int], list[BreakEven]] = {}
    for one in found:
        if one.points:
            panels.setdefault((one.what, one.rows, one.batch_size), []).append(one)
    shown = sorted(panels, key=_importance)[:MOST_PANELS]
    shown = [key for key in panels if key in shown]
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    names = list(dict.fromkeys(one.backend for one in found if one.points))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=(3.0 * columns + 0.4, 2.4 * rows + 0.5), squeeze=False, sharey=True)
        for axis in axes.flat[len(shown) :]:
            axis.set_visible(False)
        for axis, key in zip(axes.flat, shown, strict=False):
            _curves(axis, key, panels[key], names)
        for axis in axes[:, 0]:
            axis.set_ylabel("time / best dense")
        _legend(figure, axes.flat)
    return figure


def _curves(axis: Any, key: tuple[str, int, int], curves: list[BreakEven], names: list[str]) -> None:
    what, rows, batch = key
    for one in curves:
        number = names.index(one.backend)
        colour, x = PALETTE[number % 8], [100 * p.sparsity for p in one.points]
        style = {"color": colour, "marker": MARKERS[number % 8], "markersize": 3.5, "linewidth": 1.3}
        axis.plot(x, [p.ratio for p in one.points], label=one.backend, **style)
        axis.fill_between(x, [p.low for p in one.points], [p.high for p in one.points], color=colour, alpha=0.15, linewidth=0)
        if one.sparsity is not None and one.points[0].ratio >= 1:
            axis.axvline(100 * one.sparsity, color=colour, linewidth=1, linestyle=":")
            axis.annotate(f"{100 * one.sparsity:.0f} %", (100 * one.sparsity, 0.03), xycoords=("data", "axes fraction"), color=colour,
                          ha="right", fontsize=8, xytext=(-2, 0), textcoords="offset points")  # fmt: skip
    axis.axhline(1, color=SOFT, linewidth=1, linestyle="--")
    axis.set_yscale("log")
    _plain_ticks(axis.yaxis, [v for one in curves for p in one.points for v in (p.low, p.high)])
    of = f"batch {batch}" if what == WHOLE else f"{rows} row{'s' if rows != 1 else ''}"
    axis.set_title(f"{what}, {of}\n(best dense: {curves[0].dense})", fontsize=8.5)
    axis.set_xlabel("sparsity [%]")


def _importance(key: tuple[str, int, int]) -> tuple[bool, int]:
    what, rows, _ = key
    return what != WHOLE, -math.prod(int(n) for n in what.removeprefix("Linear ").split(" x ")) * rows if what != WHOLE else 0


def _plain_ticks(axis: Any, values: Sequence[float]) -> None:
    """Numbers as people write them on a logarithmic axis, few enough to be read."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    wide = max(values, default=1.0) / max(min(values, default=1.0), 1e-12) > 300
    axis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_formatter(NullFormatter())


def _legend(figure: Any, axes: Any) -> None:
    """One legend for all panels, above them."""
    seen: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            seen.setdefault(label, handle)
    figure.legend(seen.values(), seen.keys(), loc="outside upper left", ncols=min(4, len(seen)))
