"""How information planes, information against epochs and convergence are drawn with matplotlib."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from prunescope.report.drawing import SOFT, columns_of, fitted, grid, is_narrow, legend, marks, styles, wrapped
from prunescope.report.planes import Planes

BEYOND = 1.25  # values this many times their ceiling get an axis of their own: they would squeeze the other panels into a corner
SYMBOLS = {"mi_input": "I(X;T)", "mi_label": "I(T;Y)", "entropy": "H(T)"}


@dataclass(frozen=True)
class Panel:
    """Medians over the trials of one cell: I(X;T) and I(T;Y), shape (layers, moments), saturated (hollow) and above an earlier layer's.

    x_quartiles, y_quartiles   first and third quartile (2, layers, moments); None where fewer than three trials have a spread to show
    """

    title: str
    estimate: int
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    hollow: NDArray[np.bool_]
    above: NDArray[np.bool_]
    x_quartiles: NDArray[np.float64] | None = None
    y_quartiles: NDArray[np.float64] | None = None


def panel(title: str, found: Planes, estimate: int, trials: NDArray[np.bool_]) -> Panel:
    """The panel of `trials`; a point is marked where at least half of them are."""
    x, y = found.median(estimate, trials)
    above = found.exceeds[:, estimate, trials].mean(axis=1) >= 0.5
    spread = found.quartiles(estimate, trials) if trials.sum() >= 3 else (None, None)
    return Panel(title, estimate, x, y, found.saturated[estimate, trials].mean(axis=0) >= 0.5, above.any(axis=0), *spread)


def planes(found: Planes, panels: list[Panel]) -> Any:
    """One information plane a panel: colour = moment, layers of a moment joined, hollow = saturated, triangle = above an earlier layer.

    Grey bars: quartiles over the trials at the last moment.
    """
    import matplotlib as mpl

    several = len({p.estimate for p in panels}) > 1
    figure, axes = grid(len(panels), (3.1, 2.6) if several else (2.9, 2.5))
    last = max(1, len(found.moments) - 1)
    shades = mpl.colormaps["viridis"](0.92 * np.arange(len(found.moments)) / last)
    for axis, p in zip(axes, panels, strict=True):
        about = found.estimates[p.estimate]
        _paths(axis, p, shades)
        _name_layers(axis, found, p.estimate, p.x, p.y)
        _ceilings(axis, about["ceilings"])
        title = p.title + (" (not Shannon's)" if several and about["not_shannon"] else "")
        axis.set_title(wrapped(title, columns_of(len(panels), 3)))
        axis.set(xlabel=f"I(X;T) [{found.unit}]", ylabel=f"I(T;Y) [{found.unit}]")
        if several:
            _resolution(axis, about)
    _share(axes, found, panels)
    cut = mpl.colors.ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.92, 128)))
    bar = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, last), cut)
    ticks = np.unique(np.linspace(0, last, min(5, len(found.moments))).round().astype(int))
    shown = figure.colorbar(bar, ax=axes, ticks=ticks, label="epoch", pad=0.02, aspect=30 * max(1, math.ceil(len(panels) / 3)), shrink=0.8)
    shown.ax.set_yticklabels([_moment(found.moments.iloc[min(t, len(found.moments) - 1)]) for t in ticks])
    shown.outline.set_visible(False)
    return figure


def _paths(axis: Any, p: Panel, shades: Any) -> None:
    import matplotlib as mpl

    paths = [np.column_stack([p.x[:, m], p.y[:, m]]) for m in range(p.x.shape[1])]
    lines = [path[np.isfinite(path).all(axis=1)] for path in paths]
    axis.add_collection(mpl.collections.LineCollection(lines, colors=shades, alpha=0.35, linewidths=0.8))
    if p.x_quartiles is not None and p.y_quartiles is not None:  # how far the networks lie apart in the end
        for low, high, at in zip(*p.y_quartiles[..., -1], p.x[:, -1], strict=True):
            axis.plot([at, at], [low, high], color=SOFT, linewidth=1.0, zorder=2)
        for low, high, at in zip(*p.x_quartiles[..., -1], p.y[:, -1], strict=True):
            axis.plot([low, high], [at, at], color=SOFT, linewidth=1.0, zorder=2)
    tints = np.broadcast_to(shades, (*p.x.shape, 4)).reshape(-1, 4)
    inside = np.where(p.hollow.reshape(-1, 1), 1.0, tints)
    for mark, of in (("o", ~p.above.ravel()), ("^", p.above.ravel())):
        look = {"s": marks(marks(13 if mark == "o" else 18)), "marker": mark, "linewidths": marks(0.8), "zorder": 3, "plotnonfinite": False}
        axis.scatter(p.x.ravel()[of], p.y.ravel()[of], c=inside[of], edgecolors=tints[of], **look)


def _resolution(axis: Any, about: dict[str, Any]) -> None:
    n = " to ".join(f"{v:,}" for v in dict.fromkeys((about["n"] or [0])[:: max(1, len(about["n"]) - 1)]))
    text = about["resolution"].split(";")[0]
    lines = textwrap.wrap(f"{text}, n = {n}", 32)
    axis.annotate("\n".join(lines), (0.03, 0.03), xycoords="axes fraction", fontsize=5.5, color=SOFT)


def _share(axes: list[Any], found: Planes, panels: list[Panel]) -> None:
    """Shared limits, save for panels of other estimates whose values leave their ceilings far behind."""
    several = len({p.estimate for p in panels}) > 1
    for key, names in (("x", ("H(X)", "log2 N")), ("y", ("H(Y)",))):
        tops = [max((found.estimates[p.estimate]["ceilings"].get(n, 0.0) for n in names), default=0.0) for p in panels]
        ends = [(_least(getattr(p, key)), _most(getattr(p, key))) for p in panels]
        own = [several and 0 < BEYOND * top < high for top, (_, high) in zip(tops, ends, strict=True)]
        shared = [(low, max(high, top)) for (low, high), top, o in zip(ends, tops, own, strict=True) if not o]
        for axis, (low, high), top, alone in zip(axes, ends, tops, own, strict=True):
            low, high = (low, max(high, top)) if alone else (min(v for v, _ in shared), max(v for _, v in shared))
            air = 0.05 * (high - low or 1.0)
            axis.set(**{f"{key}lim": (low - air, high + 1.6 * air)})
            if alone:
                axis.tick_params(axis=key, colors="#b03a00")  # in another colour: this axis is not that of the neighbours


def _least(values: Any) -> float:
    return min(0.0, float(np.nanmin(values)))


def _most(values: Any) -> float:
    return float(np.nanmax(values))


def _moment(row: pd.Series) -> str:
    return f"{'+' if row['phase'] == 'finetune' else ''}{row['epoch']:g}"


def _name_layers(axis: Any, found: Planes, e: int, x: Any, y: Any) -> None:
    """Names at the last points; layers that end on (nearly) the same point share one label."""
    from matplotlib import patheffects

    reach = [(0.1 if is_narrow() else 0.04) * max(1e-9, float(np.ptp(v[np.isfinite(v)]))) for v in (found.x[e], found.y[e])]
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
        right = at_x > np.nanmean(found.x[e]) and len(names) > 1
        offset = (2 if right else 0, -11 if number % 2 == 0 else 6)
        look = {"textcoords": "offset points", "fontsize": 5.5 if is_narrow() else 6.5}
        label = axis.annotate(", ".join(names), (at_x, at_y), xytext=offset, **look)
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


def information(found: Planes, panels: list[Panel]) -> Any:
    """I(X;T) and I(T;Y) against epochs, one column a panel: medians and quartiles over seeds, ceilings dashed, epochs as on the page."""
    import matplotlib.pyplot as plt

    columns = columns_of(len(panels), 4)
    rows = 2 * math.ceil(len(panels) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=fitted((2.5 * columns + 0.8, 2.0 * rows + 0.4)), squeeze=False, sharex=True)
    colours = styles(found.layers)
    ceilings = found.estimates[panels[0].estimate]["ceilings"]
    trained = found.moments.loc[found.moments["phase"] == "train", "epoch"].max()
    epochs = np.where(found.moments["phase"] == "finetune", found.moments["epoch"] + trained, found.moments["epoch"])
    tops = [_top([getattr(p, key) for p in panels], ceilings.get(name)) for key, name in (("x", "H(X)"), ("y", "H(Y)"))]
    for axis in axes.flat[:]:
        axis.set_visible(False)
    for number, p in enumerate(panels):
        for k, (symbol, values, band) in enumerate((("I(X;T)", p.x, p.x_quartiles), ("I(T;Y)", p.y, p.y_quartiles))):
            axis = axes[2 * (number // columns) + k, number % columns]
            axis.set_visible(True)
            for layer, name in enumerate(found.layers):
                axis.plot(epochs, values[layer], color=colours[name][0], linestyle=colours[name][1], linewidth=marks(1.4), label=name)
                if band is not None:
                    axis.fill_between(epochs, *band[:, layer], color=colours[name][0], alpha=0.18, linewidth=0)
            ceiling = ceilings.get(("H(X)", "H(Y)")[k])
            if ceiling is not None:
                axis.axhline(ceiling, color=SOFT, linestyle=(0, (2, 3)), linewidth=0.8)
            axis.tick_params(labelbottom=k == 1)
            axis.set(ylim=tops[k], ylabel=f"{symbol} [{found.unit}]")
            axis.set(**({"title": wrapped(p.title, columns)} if k == 0 else {"xlabel": "epoch"}))
            _epoch_axis(axis, epochs, trained)
    legend(figure, axes)
    return figure


def is_logarithmic(epochs: NDArray[np.float64], trained: float) -> bool:
    """Whether `epochs` were recorded at ever larger steps, which is meant for a logarithmic axis; not with fine-tuning behind them.

    >>> is_logarithmic(np.array([0, 1, 2, 3, 5, 9, 17, 33, 65, 129.0]), 129.0), is_logarithmic(np.arange(20.0), 19.0)
    (True, False)
    """
    inside = np.unique(epochs[epochs > 0])
    return bool(len(inside) > 8 and inside[len(inside) // 2] < 0.15 * inside[-1] and epochs.max() <= trained)


def _epoch_axis(axis: Any, epochs: NDArray[np.float64], trained: float) -> None:
    """Logarithmic where `is_logarithmic` says so; epoch 0 stands apart at the left edge."""
    if not is_logarithmic(epochs, trained):
        return
    from matplotlib import ticker

    first, last = float(epochs[epochs > 0].min()), float(epochs.max())
    decades = [10.0**k for k in range(math.ceil(math.log10(first)), math.floor(math.log10(last)) + 1)]
    axis.set_xscale("symlog", linthresh=first, linscale=0.3)
    axis.xaxis.set_major_locator(ticker.FixedLocator([0.0, *decades] if (epochs == 0).any() else decades))
    axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(ticker.NullLocator())
    if axis.get_xlabel():
        axis.set_xlabel("epoch (log)")


def _top(values: list[Any], ceiling: float | None) -> tuple[float, float]:
    return min(map(_least, values)), 1.06 * max(*map(_most, values), ceiling or 0.0, 0.1)


def convergence(lines: pd.DataFrame) -> Any:
    """Values of the final networks against sample counts (bits, medians over the seeds): a row a quantity, a column an estimate.

    Where the page is too narrow for all estimates, those that are left come in further rows below.
    """
    import matplotlib.pyplot as plt
    from matplotlib import ticker

    metrics, estimates = [m for m in SYMBOLS if (lines["metric"] == m).any()], list(dict.fromkeys(lines["estimate"]))
    columns = columns_of(len(estimates), len(estimates), 1.3)
    rows = len(metrics) * math.ceil(len(estimates) / columns)
    size = fitted((2.3 * columns + 0.6, 1.9 * rows + 0.6))
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, sharex=True)
    colours = styles(list(dict.fromkeys(lines["layer"])))
    for axis in axes.flat:
        axis.set_visible(False)
    for line in lines.to_dict("records"):
        number = estimates.index(line["estimate"])
        axis = axes[len(metrics) * (number // columns) + metrics.index(line["metric"]), number % columns]
        colour, dash, marker = colours[line["layer"]]
        axis.set_visible(True)
        look = {"color": colour, "linestyle": dash, "marker": marker, "markersize": 3.5, "linewidth": 1.2}
        axis.plot(line["n"], line["value"], label=line["layer"], **look)
        axis.set(xscale="log", xlabel="samples", ylabel=f"{SYMBOLS[line['metric']]} [bits]", title=wrapped(line["estimate"], columns))
    counts = sorted({n for found in lines["n"] for n in found})
    for axis in axes.flat:
        axis.tick_params(labelbottom=True)  # the panel below may be empty
        middle, half = np.mean(axis.get_ylim()), max(0.25, np.ptp(axis.get_ylim()) / 2)
        axis.set_ylim(middle - half, middle + half)  # at least half a bit: noise must not look like a trend
        axis.xaxis.set_major_locator(ticker.FixedLocator(counts))
        axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.xaxis.set_minor_locator(ticker.NullLocator())
    legend(figure, axes)
    return figure
