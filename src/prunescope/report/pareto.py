"""What accuracy costs: test accuracy against non-zeros, bytes and latency of each setting at each stage, and what nothing beats in both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from prunescope.report import drawing, tables
from prunescope.report.numbers import size
from prunescope.results import stats
from prunescope.results.columns import plain

if TYPE_CHECKING:
    from prunescope.results.store import Run

STAGES = {"final": "as trained", "compacted": "compacted", "quantised": "int8"}  # phases of the records, in the order they are made
COSTS = {"nonzero": "non-zero parameters", "bytes": "size of the parameters", "latency_ms": "latency [ms]"}
MARKERS = {"final": "o", "compacted": "s", "quantised": "^"}
COLUMNS = ["cell", "cost", "stage", "x", "mean", "low", "high", "n", "front"]


def pareto(run: Run) -> pd.DataFrame | None:
    """Points of each cell, cost and stage: cell, cost, stage, x (the cost's mean), mean, low, high of test accuracy, n seeds, front.

    `front` is True where no other point of the same group and cost has at least that accuracy for at most that cost, and more or less of
    one. Bytes and latency are told where a stage beyond training was measured (before, zeros in place change neither), non-zeros where
    they vary. None for runs with neither.
    """
    whole = plain(run.records[(run.records["layer"] == "") & run.records["phase"].isin(STAGES)])
    known = tables.cells(run)
    kept = whole.loc[(whole["metric"] == "nonzero") & (whole["phase"] == "final"), "value"]
    measured = ["nonzero"] if kept.nunique() > 1 else []
    measured += [c for c in COSTS if c != "nonzero" and (whole.loc[whole["metric"] == c, "phase"] != "final").any()]
    found = [frame for cost in measured for stage in _stages(cost) if (frame := _points(whole, cost, stage, known)) is not None]
    if not found:
        return None
    points = pd.concat(found, ignore_index=True)
    group = known["group"].iloc[points["cell"]].to_numpy()
    points["front"] = False
    for _, part in points.groupby([group, points["cost"]], sort=False):
        points.loc[part.index, "front"] = undominated(part["x"].to_numpy(float), part["mean"].to_numpy(float))
    return points[COLUMNS]


def _stages(cost: str) -> list[str]:
    return ["final"] if cost == "nonzero" else list(STAGES)  # later stages have the same zeros, removed or stored as int8


def _points(whole: pd.DataFrame, cost: str, stage: str, known: pd.DataFrame) -> pd.DataFrame | None:
    rows = tables.last_a_trial(stats.select(whole, "accuracy", phase=stage, split="test"))
    costs = tables.last_a_trial(stats.select(whole, cost, phase=stage)).set_index("trial")["value"]
    rows = rows.assign(cell=tables.cell_numbers(rows, known), cost=rows["trial"].map(costs)) if len(rows) else rows
    if rows.empty or rows["cost"].isna().all():
        return None
    made = []
    for cell, part in rows[rows["cost"].notna()].groupby("cell"):
        about = stats.describe(part["value"])
        made.append({"cell": int(str(cell)), "x": float(part["cost"].mean()), **{k: about[k] for k in ("mean", "low", "high", "n")}})
    return pd.DataFrame(made).assign(cost=cost, stage=stage)


def undominated(cost: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Whether each point has no other with at most its cost and at least its gain, one of them strictly.

    >>> undominated(np.array([1.0, 2.0, 2.0, 3.0]), np.array([0.5, 0.9, 0.8, 0.9])).tolist()
    [True, True, False, False]
    """
    no_dearer = cost[None, :] <= cost[:, None]
    no_worse = gain[None, :] >= gain[:, None]
    better = (cost[None, :] < cost[:, None]) | (gain[None, :] > gain[:, None])
    return np.asarray(~(no_dearer & no_worse & better).any(axis=1))


def steps(front: pd.DataFrame) -> tuple[list[float], list[float]]:
    """The front's outline from the cheapest point to the dearest: what accuracy can be had for a cost."""
    ordered = front.sort_values(["x", "mean"])
    x, y = ordered["x"].tolist(), ordered["mean"].tolist()
    corners = [(x[0], y[0])]
    for i in range(1, len(x)):
        corners += [(x[i], y[i - 1]), (x[i], y[i])]
    return [c[0] for c in corners], [c[1] for c in corners]


def figure(points: pd.DataFrame, known: pd.DataFrame, looks: drawing.Styles) -> Any:
    """Test accuracy against each cost (logarithmic): colour by variant, marker by stage, the front as a line with its settings named."""
    costs = [c for c in COSTS if (points["cost"] == c).any()]
    made, axes = drawing.grid(len(costs), (4.6, 3.4))
    for axis, cost in zip(axes, costs, strict=True):
        mine = points[points["cost"] == cost]
        rows: list[Any] = mine.to_dict("records")
        for row in rows:
            variant = known["variant"][row["cell"]]
            colour, x, mean = looks[variant][0], row["x"], row["mean"]
            if np.isfinite(row["low"]):
                axis.vlines(x, row["low"], row["high"], color=colour, linewidth=1, alpha=0.5)
            label = variant if row["stage"] == "final" else None
            axis.plot(x, mean, MARKERS[row["stage"]], color=colour, markersize=drawing.marks(5 if row["front"] else 3.5), label=label)
        axis.plot(*steps(mine[mine["front"]]), color=drawing.SOFT, linewidth=1.2, linestyle="--", label="front", zorder=0)
        drawing.logarithmic_x(axis, {"bytes": size, "nonzero": "{:,.0f}".format}.get(cost, "{:g}".format))
        axis.set(xlabel=COSTS[cost], title=drawing.wrapped(f"test accuracy against {COSTS[cost].partition(' [')[0]}", len(costs)))
    for stage, name in STAGES.items():
        if (points["stage"] == stage).any() and points["stage"].nunique() > 1:
            axes[0].plot([], [], MARKERS[stage], color=drawing.SOFT, markersize=4, label=name)
    drawing.legend(made, axes)
    return made
