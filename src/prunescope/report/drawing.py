"""How each figure is drawn with matplotlib. Functions take what tables, planes and curves give and return a Figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from prunescope.report.curves import EpochCurve, Timeline
from prunescope.report.gradients import NAMES as GRADIENT_NAMES
from prunescope.report.gradients import GradientCurve, Gradients
from prunescope.report.planes import Planes
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


def planes(found: Planes, estimate: dict[str, Any], panels: list[Any], hollow: list[Any]) -> Any:
    """One information plane a panel: medians over the seeds, colour = moment, layers of a moment joined, hollow = saturated."""
    import matplotlib as mpl

    figure, axes = grid(len(panels), sharex=True, sharey=True)
    last = max(1, len(found.moments) - 1)
    shades = mpl.colormaps["viridis"](0.92 * np.arange(len(found.moments)) / last)
    for axis, (label, x, y), saturated in zip(axes, panels, hollow, strict=True):
        paths = [np.column_stack([x[:, m], y[:, m]]) for m in range(x.shape[1])]
        lines = [path[np.isfinite(path).all(axis=1)] for path in paths]
        axis.add_collection(mpl.collections.LineCollection(lines, colors=shades, alpha=0.35, linewidths=0.8))
        tints = np.broadcast_to(shades, (*x.shape, 4)).reshape(-1, 4)
        inside = np.where(saturated.reshape(-1, 1), 1.0, tints)
        axis.scatter(x.ravel(), y.ravel(), s=13, c=inside, edgecolors=tints, linewidths=0.8, zorder=3, plotnonfinite=False)
        _name_layers(axis, found, x, y)
        _ceilings(axis, estimate["ceilings"])
        axis.set_title(label)
        axis.set(xlabel=f"I(X;T) [{found.unit}]", ylabel=f"I(T;Y) [{found.unit}]")
    cut = mpl.colors.ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.92, 128)))
    bar = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, last), cut)
    ticks = np.unique(np.linspace(0, last, min(5, len(found.moments))).round().astype(int))
    shown = figure.colorbar(bar, ax=axes, ticks=ticks, label="epoch", pad=0.02, aspect=30, shrink=0.8)
    shown.ax.set_yticklabels([_moment(found.moments.iloc[min(t, len(found.moments) - 1)]) for t in ticks])
    shown.outline.set_visible(False)
    return figure


def _moment(row: pd.Series) -> str:
    return f"{'+' if row['phase'] == 'finetune' else ''}{row['epoch']:g}"


def _name_layers(axis: Any, found: Planes, x: Any, y: Any) -> None:
    """Names at the last points; layers that end on (nearly) the same point share one label."""
    from matplotlib import patheffects

    reach = [0.04 * max(1e-9, float(np.ptp(v[np.isfinite(v)]))) for v in (found.x, found.y)]
    places: list[tuple[float, float, list[str]]] = []
    for layer, name in enumerate(found.layers):
        alive = np.flatnonzero(np.isfinite(x[layer]) & np.isfinite(y[layer]))
        if not len(alive):
            continue
        end = (float(x[layer, alive[-1]]), float(y[layer, alive[-1]]))
        near = next((p for p in places if abs(p[0] - end[0]) < reach[0] and abs(p[1] - end[1]) < reach[1]), None)
        if near is None:
            places.append((*end, [name[:14]]))
        else:
            near[2].append(name[:14])
    for number, (at_x, at_y, names) in enumerate(places):
        right = at_x > np.nanmean(found.x) and len(names) > 1
        offset = (2 if right else 0, -11 if number % 2 == 0 else 6)
        label = axis.annotate(", ".join(names), (at_x, at_y), xytext=offset, textcoords="offset points", fontsize=6.5)
        label.set(ha="right" if right else "center", path_effects=[patheffects.withStroke(linewidth=2, foreground="w")])


def _ceilings(axis: Any, ceilings: dict[str, float]) -> None:
    for name, value in ceilings.items():
        line = axis.axhline if name == "H(Y)" else axis.axvline
        line(value, color=SOFT, linestyle=(0, (2, 3)), linewidth=0.8)
    labels: dict[float, str] = {}
    for name in ("H(X)", "log2 N"):
        if name in ceilings:
            near = next((v for v in labels if abs(v - ceilings[name]) < 0.3), ceilings[name])
            labels[near] = f"{labels[near]}, {name}" if near in labels else name
    for value, name in labels.items():
        at, corner = {"xy": (value, 0.02), "xycoords": ("data", "axes fraction")}, {"ha": "right", "va": "bottom"}
        axis.annotate(name, **at, **corner, fontsize=6.5, rotation=90, color=SOFT)
    if "H(Y)" in ceilings:
        axis.annotate("H(Y)", (0.02, ceilings["H(Y)"]), xycoords=("axes fraction", "data"), fontsize=6.5, va="bottom", color=SOFT)


def information(found: Planes, estimate: dict[str, Any], panels: list[Any]) -> Any:
    """I(X;T) and I(T;Y) against epochs, one column a panel, medians over the seeds, ceilings dashed."""
    import matplotlib.pyplot as plt

    columns = min(4, len(panels))
    rows = 2 * math.ceil(len(panels) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.5 * columns + 0.8, 2.0 * rows + 0.4), squeeze=False, sharex=True)
    colours = styles(found.layers)
    trained = found.moments.loc[found.moments["phase"] == "train", "epoch"].max()
    epochs = np.where(found.moments["phase"] == "finetune", found.moments["epoch"] + trained, found.moments["epoch"])
    tops = [_top(values, estimate["ceilings"].get(name)) for values, name in ((found.x, "H(X)"), (found.y, "H(Y)"))]
    for axis in axes.flat[:]:
        axis.set_visible(False)
    for number, (label, *both) in enumerate(panels):
        for k, symbol in enumerate(("I(X;T)", "I(T;Y)")):
            axis = axes[2 * (number // columns) + k, number % columns]
            axis.set_visible(True)
            for layer, name in enumerate(found.layers):
                axis.plot(epochs, both[k][layer], color=colours[name][0], linestyle=colours[name][1], linewidth=1.4, label=name)
            ceiling = estimate["ceilings"].get(("H(X)", "H(Y)")[k])
            if ceiling is not None:
                axis.axhline(ceiling, color=SOFT, linestyle=(0, (2, 3)), linewidth=0.8)
            axis.tick_params(labelbottom=k == 1)
            axis.set(ylim=tops[k], ylabel=f"{symbol} [{found.unit}]", **({"title": label} if k == 0 else {"xlabel": "epoch"}))
    _legend(figure, axes)
    return figure


def _top(values: Any, ceiling: float | None) -> tuple[float, float]:
    low, high = min(0.0, float(np.nanmin(values))), float(np.nanmax(values))
    return low, 1.06 * max(high, ceiling or 0.0, 0.1)


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
    _legend(figure, axes)
    return figure


def _logarithmic(panel: Any) -> None:
    from matplotlib import ticker

    panel.set(xscale="log", yscale="log")
    plain = ticker.FuncFormatter(lambda value, _: f"{value:g}")  # matplotlib's own is math text, which names from the run forbid
    for axis, (low, high) in ((panel.xaxis, panel.get_xlim()), (panel.yaxis, panel.get_ylim())):
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
    _legend(figure, axes)
    return figure


def _legend(figure: Any, axes: Any) -> None:
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
    _legend(figure, axes)
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
        _legend(figure, axes)
    return figure
