"""How each figure is drawn with matplotlib. Functions take what tables, planes and curves give and return a Figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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


def grid(count: int, each: tuple[float, float] = (2.9, 2.5), **options: Any) -> tuple[Any, list[Any]]:
    """A figure and its `count` panels, three a row, each of the given size in inches."""
    import matplotlib.pyplot as plt

    columns = min(count, 3 if count != 4 else 2)
    rows = math.ceil(count / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(each[0] * columns + 0.5, each[1] * rows), squeeze=False, **options)
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
    size = (3.1 * len(names) + 0.4, 2.1 * len(cells) + 0.6)
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

    size = (3.7 * len(metrics), 2.5 * len(splits) + 0.5)
    figure, axes = plt.subplots(len(splits), len(metrics), figsize=size, squeeze=False, sharex=True, sharey="col")
    for curve in found:
        axis = axes[splits.index(curve.split), metrics.index(curve.metric)]
        colour, dash, _ = looks[known["variant"][curve.cell]]
        axis.plot(curve.x, curve.mean, color=colour, linestyle=dash, linewidth=1.3, label=known["variant"][curve.cell])
        axis.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
        axis.set(title=f"{curve.split} {curve.metric}")
    for axis in axes.flat:
        if timeline.finetuned:
            axis.axvline(timeline.trained, color=SOFT, linestyle=(0, (2, 3)), linewidth=0.8)
    for axis in axes[-1]:
        axis.set_xlabel("epoch (dashed: pruning, then fine-tuning)" if timeline.finetuned else "epoch")
    legend(figure, axes)
    return figure


def legend(figure: Any, axes: Any) -> None:
    """One legend below all panels: each name once, in as many columns as the figure's width holds."""
    named: dict[str, Any] = {}
    for axis in np.ravel(axes):
        named |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True) if label not in named}
    fitting = int(min(110, 13 * figure.get_figwidth())) // (6 + max(map(len, named), default=1))
    figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=max(1, min(len(named), fitting)))


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
        axis.plot(part["x"], part["mean"], color=colour, marker=marker, markersize=4, linewidth=1.4, label=variant)
        axis.vlines(part["x"], part["low"], part["high"], color=colour, linewidth=1.2)
        for x, values in zip(part["x"], part["values"], strict=True):
            axis.plot([x] * len(values), values, ".", color=colour, markersize=2.5, alpha=0.4)
    elif variant != plain:
        axis.plot(part["x"], part["mean"], color=colour, linestyle=":", linewidth=1.2, label=f"{variant}, right after pruning")


def histograms(found: list[dict[str, Any]], looks: Styles) -> Any:
    """Weights that are not zero at each recorded moment, one outline a layer; shares that are exactly zero stand in the legend."""
    names = {"initial": "at initialisation", **PHASES}
    moments = [m for m in names if any(h["moment"] == m for h in found)]
    figure, axes = grid(len(moments), (3.0, 2.5), sharex=True, sharey=True)
    for axis, moment in zip(axes, moments, strict=True):
        for h in (h for h in found if h["moment"] == moment):
            widths = np.diff(h["edges"])
            density = np.asarray(h["counts"], float) / (h["n"] or 1) / np.where(widths > 0, widths, 1.0)
            colour, dash, _ = looks[h["layer"]]
            label = f"{h['layer']} ({100 * h['zero']:.3g} % zero)"
            axis.stairs(density, h["edges"], color=colour, linestyle=dash, linewidth=1.2, label=label)
            axis.stairs(density, h["edges"], color=colour, alpha=0.12, fill=True)
        axis.set(title=names[moment], xlabel="weight (zeros left out)")
        axis.legend(fontsize=6, loc="upper left", handlelength=1)
    axes[0].set_ylabel("density")
    return figure


def layer_bars(found: pd.DataFrame, known: pd.DataFrame) -> Any:
    """Share of each tensor that is exactly zero at the end (bar), and right after pruning (line) where that differs."""
    cells = list(dict.fromkeys(found["cell"]))
    layers = list(dict.fromkeys(found["layer"]))
    figure, axes = grid(len(cells), (2.9, 0.5 + 0.24 * len(layers)), sharex=True, sharey=True)
    for axis, cell in zip(axes, cells, strict=True):
        mine = found[found["cell"] == cell]
        end = mine[mine["phase"] == "final"]
        axis.barh([layers.index(v) for v in end["layer"]], end["value"], color=PALETTE[0], height=0.62)
        pruned = mine[mine["phase"] == "pruned"]
        look = {"color": PALETTE[1], "markersize": 9, "markeredgewidth": 1.8, "label": "right after pruning"}
        axis.plot(pruned["value"], [layers.index(v) for v in pruned["layer"]], "|", **look)
        axis.set(title=known["label"][cell], yticks=range(len(layers)), yticklabels=layers, xlim=(0, 1))
        axis.grid(axis="y", visible=False)
    axes[0].invert_yaxis()
    for axis in axes[-3:]:
        axis.set_xlabel("sparsity")
    if (found["phase"] == "pruned").any():
        legend(figure, axes)
    return figure
