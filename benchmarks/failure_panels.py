"""Panels of known truth: what is varied, which estimators are measured there, and how the figure is drawn. See estimator_failures.py."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from torch import Tensor

from failing_samples import Samples
from prunescope.information import mutual_information
from prunescope.types import Estimate, EstimateError

Measure = Callable[[Tensor, Tensor, float, int], tuple[float, tuple[str, ...]]]
Along = Callable[[float], float]


@dataclass(frozen=True)
class Curve:
    """One line of a panel: an estimator with fixed parameters, on the panel's samples or its own; `measure` replaces the verb."""

    label: str
    estimator: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    samples: Samples | None = None
    measure: Measure | None = None
    over: bool = False  # coincides with an earlier curve for the most part: drawn dashed, so that both show


@dataclass(frozen=True)
class Panel:
    """What is varied along x, which samples that gives, which curves are measured on them and what is true (bits).

    vary       name of the estimators' parameter that x sets, beside or in place of the samples
    harmless   a flag that says nothing against the values here, such as "ties" for codes
    """

    title: str
    xlabel: str
    at: Sequence[float]
    samples: Samples
    curves: Sequence[Curve]
    truth: Along | None = None
    ceiling: tuple[str, Along] | None = None
    seeds: int = 5
    vary: str = ""
    log: bool = True
    ylabel: str = "bits"
    limits: tuple[float, float] | None = None
    harmless: str = ""


def measured(panel: Panel, curve: Curve, x: float, seed: int) -> tuple[float, tuple[str, ...]]:
    """One value in bits and its flags; nan and "refused" where the estimator refuses the samples."""
    a, b = (curve.samples or panel.samples)(x, seed)
    if curve.measure is not None:
        return curve.measure(a, b, x, seed)
    options = curve.parameters | ({panel.vary: x} if panel.vary else {})
    try:
        found = mutual_information(a, b, curve.estimator, seed=seed, **options)
    except EstimateError:
        return math.nan, ("refused",)
    assert isinstance(found, Estimate)
    return found.value, tuple(flag for flag in found.flags if flag != panel.harmless)


def rows(name: str, panel: Panel) -> list[dict[str, Any]]:
    """The panel's numbers: one row for each curve and position."""
    found = []
    for curve in panel.curves:
        for x in panel.at:
            each = [measured(panel, curve, x, seed) for seed in range(panel.seeds)]
            values = [v for v, _ in each]
            found.append(
                {
                    "figure": name, "panel": panel.title, "curve": curve.label, "x": float(f"{x:.4g}"), "median": statistics.median(values),
                    "lowest": min(values), "highest": max(values), "truth": panel.truth(x) if panel.truth else math.nan,
                    "seeds": panel.seeds, "flagged": sum(bool(f) for _, f in each),
                    "flags": " ".join(dict.fromkeys(flag for _, flags in each for flag in flags)),
                }
            )  # fmt: skip
    return found


def curves(*names: str, **parameters: Any) -> list[Curve]:
    """A curve for each named estimator, all with the same parameters."""
    return [Curve(name, name, parameters) for name in names]


def drawn(panels: Sequence[Panel], numbers: pd.DataFrame) -> Any:
    """The figure: medians with the band from the lowest to the highest seed, hollow markers where flagged, the truth dashed."""
    import matplotlib.pyplot as plt

    from prunescope.report.drawing import MARKERS, PALETTE, legend

    sets = [[curve.label for curve in panel.curves] for panel in panels]
    one_legend = all(set(a) & set(b) for a in sets for b in sets)
    figure, axes = plt.subplots(1, len(panels), figsize=(3.3 * len(panels) + 0.4, 3.0 if one_legend else 3.4), squeeze=False)
    for axis, panel, own in zip(axes[0], panels, sets, strict=True):
        names = list(dict.fromkeys(numbers["curve"])) if one_legend else own
        for name in own:
            part = numbers[(numbers["panel"] == panel.title) & (numbers["curve"] == name)]
            colour, marker = PALETTE[names.index(name) % 8], MARKERS[names.index(name) % 8]
            size = max(3.5, 6.5 - own.index(name))  # curves that coincide show as rings
            dash = (0, (3, 2.5)) if next(c.over for c in panel.curves if c.label == name) else "-"
            look = {"color": colour, "marker": marker, "markersize": size, "linewidth": size / 3.2, "linestyle": dash}
            axis.plot(part["x"], part["median"], label=name, zorder=3, **look)
            axis.fill_between(part["x"], part["lowest"], part["highest"], color=colour, alpha=0.14, linewidth=0)
            hollow = part[part["flagged"] * 2 > part["seeds"]]
            axis.plot(hollow["x"], hollow["median"], zorder=4, **look | {"linestyle": "", "markerfacecolor": "white"})
        _lines(axis, panel)
        if not one_legend:
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=8, columnspacing=1.2, handlelength=1.8)
    if one_legend:
        legend(figure, axes)
    return figure


def _lines(axis: Any, panel: Panel) -> None:
    """Truth, ceiling, names and scales."""
    from matplotlib import ticker

    if panel.truth is not None:
        axis.plot(panel.at, [panel.truth(x) for x in panel.at], color="#1b1e22", linestyle="--", linewidth=1.3, label="truth", zorder=5)
    if panel.ceiling is not None:
        name, level = panel.ceiling
        axis.plot(panel.at, [level(x) for x in panel.at], color="#6b6f76", linestyle=":", linewidth=1.2, label=name, zorder=2.4)
    axis.set(title=panel.title, xlabel=panel.xlabel, ylabel=panel.ylabel)
    if panel.limits:
        axis.set_ylim(*panel.limits)
    if panel.log:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(ticker.FixedLocator(panel.at[:: math.ceil(len(panel.at) / 7)]))
        axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda v, _: f"{v:,.0f}" if v >= 1000 else f"{v:g}"))
        axis.xaxis.set_minor_locator(ticker.NullLocator())
