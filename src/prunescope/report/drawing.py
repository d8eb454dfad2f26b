"""How each figure is drawn with matplotlib. Functions take what tables, planes and curves give and return a Figure."""

from __future__ import annotations

import contextlib
import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np
import pandas as pd

from prunescope.report.curves import EpochCurve, Timeline
from prunescope.report.gradients import NAMES as GRADIENT_NAMES
from prunescope.report.gradients import GradientCurve, Gradients
from prunescope.report.tables import PHASES

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6a51a3", "#6b6f76")  # Okabe and Ito 2008, yellow replaced
MARKERS = "osD^vP*X"
DASHES = ("-", "--", ":", "-.")
STYLE = {
    "font.size": 9, "axes.titlesize": 9.5, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.spines.top": False,
    "axes.spines.right": False, "axes.edgecolor": "#b5b8b4", "axes.grid": True, "grid.color": "#ecedea", "grid.linewidth": 0.8,
    "axes.axisbelow": True, "xtick.color": "#5b626c", "ytick.color": "#5b626c", "axes.labelcolor": "#33373d", "legend.frameon": False,
    "svg.fonttype": "path", "pdf.fonttype": 42, "svg.hashsalt": "prunescope", "figure.constrained_layout.use": True, "savefig.dpi": 160,
    "axes.unicode_minus": True, "text.parse_math": False,
}  # fmt: skip
Styles = dict[str, tuple[str, str, str]]
NAMES = {"nonzero": "non-zero parameters", "latency_ms": "latency [ms]"}
SOFT = "#5b626c"


_WIDTH: ContextVar[float | None] = ContextVar("width", default=None)  # inches of the page's column, where one was asked for
NARROW = 5.0
SMALL = {
    "font.size": 7, "axes.titlesize": 7.5, "legend.fontsize": 6.5, "xtick.labelsize": 6.5, "ytick.labelsize": 6.5, "lines.linewidth": 1.1,
    "axes.labelpad": 2, "xtick.major.size": 2.5, "ytick.major.size": 2.5, "savefig.dpi": 300,
}  # fmt: skip


def style(width: float | None) -> dict[str, Any]:
    """matplotlib's settings for figures of a width in inches: in a narrow column letters as small as a paper's captions."""
    if width is None:
        return dict(STYLE)
    return {**STYLE, "savefig.dpi": 300} if width >= NARROW else {**STYLE, **SMALL}


@contextlib.contextmanager
def page_width(width: float | None) -> Iterator[None]:
    """Figures drawn inside are exactly `width` inches wide; None lets each take what its panels need."""
    token = _WIDTH.set(width)
    try:
        yield
    finally:
        _WIDTH.reset(token)


def is_narrow() -> bool:
    """Whether the width asked for is that of a column rather than of a page."""
    width = _WIDTH.get()
    return width is not None and width < NARROW


def marks(size: float) -> float:
    """A marker's size in points: in a narrow column three fifths of what it is elsewhere."""
    return 0.6 * size if is_narrow() else size


def wrapped(title: str, columns: int) -> str:
    """A panel's title in lines as wide as the panel, where a width was asked for."""
    width = _WIDTH.get()
    if width is None:
        return title
    a_line = int((13.5 if is_narrow() else 11.5) * (width - 0.5) / columns)  # bold letters an inch
    return textwrap.fill(title.replace(" %", "\u00a0%"), max(10, a_line))


def fitted(size: tuple[float, float]) -> tuple[float, float]:
    """A figure's size in inches at the width asked for. Height shrinks by less than width: letters and legends do not shrink with it."""
    width = _WIDTH.get()
    return size if width is None else (width, max(1.4, size[1] * min(1.6, width / size[0]) ** 0.6))


def columns_of(count: int, most: int, least: float = 1.55) -> int:
    """Panels in a row: up to `most`, fewer where the page leaves each less than `least` inches."""
    width = _WIDTH.get()
    wanted = min(count, most)
    return wanted if width is None else max(1, min(wanted, int(width / least)))


def grid(count: int, each: tuple[float, float] = (2.9, 2.5), **options: Any) -> tuple[Any, list[Any]]:
    """A figure and its `count` panels, up to three a row, each of the given size in inches where no width was asked for."""
    import matplotlib.pyplot as plt

    columns = columns_of(count, 3 if count != 4 else 2)
    rows = math.ceil(count / columns)
    size = fitted((each[0] * columns + 0.5, each[1] * rows))
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, **options)
    flat = list(axes.flat)
    for empty in flat[count:]:
        empty.set_visible(False)
    return figure, flat[:count]


def styles(names: Sequence[str], plain: str | None = None) -> Styles:
    """Colour, dash and marker of each name; `plain` (the baseline) is dark grey."""
    others = [n for n in dict.fromkeys(names) if n != plain]
    found = {n: (PALETTE[i % 8], DASHES[i // 8 % 4], MARKERS[i % 8]) for i, n in enumerate(others)}
    return found | ({plain: ("#33373d", "--", "o")} if plain is not None else {})


def gradients(found: Gradients, curves: list[GradientCurve], known: pd.DataFrame) -> Any:
    """Norms of the gradients' mean and standard deviation and their ratio (columns) against epochs, log-log, one row a cell.

    Medians over the seeds with the band from the smallest to the largest, one line a layer.
    """
    import matplotlib.pyplot as plt

    cells, names = list(dict.fromkeys(c.cell for c in curves)), [m for m in GRADIENT_NAMES if any(c.metric == m for c in curves)]
    size = fitted((3.1 * len(names) + 0.4, 2.1 * len(cells) + 0.6))
    figure, axes = plt.subplots(len(cells), len(names), figsize=size, squeeze=False, sharex=True, sharey="col")
    colours = styles(found.layers)
    mark = "o" if len(found.epochs) < 2 else ""
    for c in curves:
        axis, (colour, dash, _) = axes[cells.index(c.cell), names.index(c.metric)], colours[c.layer]
        axis.plot(found.epochs, c.median, color=colour, linestyle=dash, marker=mark, markersize=4, linewidth=1.3, label=c.layer)
        axis.fill_between(found.epochs, c.low, c.high, color=colour, alpha=0.15, linewidth=0)
    for axis, cell in zip(axes[:, 0], cells, strict=True):
        axis.set_ylabel(known["label"][cell])
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(GRADIENT_NAMES[name])
    for axis in axes[-1]:
        axis.set_xlabel("epoch")
    for axis in axes.flat:
        _logarithmic(axis)
    legend(figure, axes)
    return figure


def _logarithmic(panel: Any) -> None:
    panel.set(xscale="log", yscale="log")
    _plain_ticks(panel.xaxis, *panel.get_xlim())
    _plain_ticks(panel.yaxis, *panel.get_ylim())


def logarithmic_x(panel: Any, tell: Callable[[float], str]) -> None:
    """A logarithmic axis of x alone, its ticks as `tell` writes them."""
    panel.set(xscale="log")
    low, high = panel.get_xlim()
    _plain_ticks(panel.xaxis, low, high, tell)


def plain_y(panel: Any) -> None:
    """Plain numbers at the ticks of a logarithmic y, 2 and 5 among them."""
    low, _ = panel.get_ylim()
    _plain_ticks(panel.yaxis, low, low)


def _plain_ticks(axis: Any, low: float, high: float, tell: Callable[[float], str] = "{:g}".format) -> None:
    from matplotlib import ticker

    plain = ticker.FuncFormatter(lambda value, _: tell(value))  # matplotlib's own is math text, which names from the run forbid
    axis.set_major_formatter(plain)
    axis.set_minor_locator(ticker.LogLocator(subs=(2, 5)))
    axis.set_minor_formatter(plain if high < 30 * low else ticker.NullFormatter())


def epochs(found: list[EpochCurve], known: pd.DataFrame, looks: Styles, timeline: Timeline) -> Any:
    """Accuracy and loss (columns) on train and validation (rows) against epochs, mean and 95 % band over the seeds, one line a cell."""
    metrics = [m for m in ("accuracy", "loss") if any(c.metric == m for c in found)]
    splits = list(dict.fromkeys(c.split for c in found))
    import matplotlib.pyplot as plt

    size = fitted((3.7 * len(metrics), 2.5 * len(splits) + 0.5))
    figure, axes = plt.subplots(len(splits), len(metrics), figsize=size, squeeze=False, sharex=True, sharey="col")
    for curve in found:
        axis = axes[splits.index(curve.split), metrics.index(curve.metric)]
        colour, dash, _ = looks[known["variant"][curve.cell]]
        axis.plot(curve.x, curve.mean, color=colour, linestyle=dash, linewidth=1.3, label=known["variant"][curve.cell])
        axis.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
        axis.set(title=f"{curve.split} {curve.metric}")
    for axis in axes.flat:
        if timeline.finetuned:
            look = {"color": SOFT, "linestyle": (0, (2, 3)), "linewidth": 0.8, "label": "pruning, then fine-tuning"}
            axis.axvline(timeline.trained, **look)
    for axis in axes[-1]:
        axis.set_xlabel("epoch")
    legend(figure, axes)
    return figure


def legend(figure: Any, axes: Any) -> None:
    """One legend below all panels: each name once, in as many columns as the figure's width holds."""
    named: dict[str, Any] = {}
    for axis in np.ravel(axes):
        named |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True) if label not in named}
    fitting = int(min(110, (21 if is_narrow() else 13) * figure.get_figwidth())) // (6 + max(map(len, named), default=1))
    columns = max(1, min(len(named), fitting))
    if _WIDTH.get() is not None:  # the panels keep their height
        figure.set_figheight(figure.get_figheight() + (0.14 if is_narrow() else 0.2) * math.ceil(len(named) / columns))
    figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=columns)


def against_sparsity(points: pd.DataFrame, known: pd.DataFrame, looks: Styles, plain: str | None) -> Any:
    """Each metric against the sparsity reached: mean, 95 % interval and single seeds; right after pruning dotted where it was measured."""
    varying = [str(m) for m, part in points.groupby("metric", sort=False) if m in ("accuracy", "loss") or part["mean"].nunique() > 1]
    figure, axes = grid(len(varying), (3.4, 2.8))
    points = points.assign(variant=known["variant"].iloc[points["cell"]].to_numpy())
    for axis, metric in zip(axes, varying, strict=True):
        mine = points[points["metric"] == metric]
        for (variant, moment), part in mine.groupby(["variant", "moment"], sort=False):
            _level_line(axis, part.sort_values("x"), str(variant), str(moment), looks, plain)
        final = mine.loc[mine["moment"] == "final", "split"]
        axis.set(title=f"{final.iloc[0] if len(final) else ''} {NAMES.get(metric, metric)}".strip(), xlabel="sparsity (fraction removed)")
        if metric not in ("accuracy", "loss"):
            axis.set_ylim(bottom=0)
    legend(figure, axes)
    return figure


def _level_line(axis: Any, part: pd.DataFrame, variant: str, moment: str, looks: Styles, plain: str | None) -> None:
    colour, dash, marker = looks[variant]
    if variant == plain and moment == "final":
        axis.axhline(part["mean"].iloc[0], color=colour, linestyle=dash, linewidth=1, label=variant)
        axis.axhspan(part["low"].iloc[0], part["high"].iloc[0], color=colour, alpha=0.1, linewidth=0)
    elif moment == "final":
        axis.plot(part["x"], part["mean"], color=colour, marker=marker, markersize=marks(4), linewidth=marks(1.4) + 0.2, label=variant)
        axis.vlines(part["x"], part["low"], part["high"], color=colour, linewidth=1.2)
        for x, values in zip(part["x"], part["values"], strict=True):
            axis.plot([x] * len(values), values, ".", color=colour, markersize=marks(2.5), alpha=0.4)
    elif variant != plain:
        axis.plot(part["x"], part["mean"], color=colour, linestyle=":", linewidth=marks(1.2) + 0.2)
        axis.plot([], [], color=SOFT, linestyle=":", label="right after pruning")


def histograms(found: list[dict[str, Any]], looks: Styles) -> Any:
    """Weights that are not zero at each recorded moment, one outline a layer; shares that are exactly zero stand in the legend."""
    names = {"initial": "at initialisation", **PHASES}
    moments = [m for m in names if any(h["moment"] == m for h in found)]
    figure, axes = grid(len(moments), (3.0, 2.5), sharex=True, sharey=True)
    narrow = is_narrow()
    for axis, moment in zip(axes, moments, strict=True):
        for h in (h for h in found if h["moment"] == moment):
            widths = np.diff(h["edges"])
            density = np.asarray(h["counts"], float) / (h["n"] or 1) / np.where(widths > 0, widths, 1.0)
            colour, dash, _ = looks[h["layer"]]
            label = h["layer"] if narrow else f"{h['layer']} ({100 * h['zero']:.3g} % zero)"
            axis.stairs(density, h["edges"], color=colour, linestyle=dash, linewidth=0.7 if narrow else 1.2, label=label)
            axis.stairs(density, h["edges"], color=colour, alpha=0.12, fill=True)
        axis.set(title=names[moment], xlabel="weight (zeros left out)")
        axis.tick_params(labelbottom=True)  # the panel below may be empty
        if not narrow:
            axis.legend(fontsize=6, loc="upper left", handlelength=1)
    axes[0].set_ylabel("density")
    if narrow:
        legend(figure, axes)
    return figure


def layer_bars(found: pd.DataFrame, known: pd.DataFrame) -> Any:
    """Share of each tensor that is exactly zero at the end (bar), and right after pruning (line) where that differs."""
    cells = list(dict.fromkeys(found["cell"]))
    layers = list(dict.fromkeys(found["layer"]))
    figure, axes = grid(len(cells), (2.9, 0.85 + 0.24 * len(layers)), sharex=True, sharey=True)
    for axis, cell in zip(axes, cells, strict=True):
        mine = found[found["cell"] == cell]
        end = mine[mine["phase"] == "final"]
        axis.barh([layers.index(v) for v in end["layer"]], end["value"], color=PALETTE[0], height=0.62)
        pruned = mine[mine["phase"] == "pruned"]
        look = {"color": PALETTE[1], "markersize": 9, "markeredgewidth": 1.8, "label": "right after pruning"}
        axis.plot(pruned["value"], [layers.index(v) for v in pruned["layer"]], "|", **look)
        axis.set(title=wrapped(known["label"][cell], columns_of(len(cells), 3)), yticks=range(len(layers)), yticklabels=layers, xlim=(0, 1))
        axis.grid(axis="y", visible=False)
    axes[0].invert_yaxis()
    for axis in axes[-3:]:
        axis.set_xlabel("sparsity")
    if (found["phase"] == "pruned").any():
        legend(figure, axes)
    return figure
