"""Latency on each back-end against sparsity, and from which sparsity on pruned networks are faster than the dense one at its fastest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from prunescope.crossing import crossing
from prunescope.report import drawing, tables
from prunescope.report.estimates import parameters
from prunescope.report.pareto import MARKERS, STAGES
from prunescope.results import stats

if TYPE_CHECKING:
    from prunescope.results.store import Run

METRIC = "backend_ms"
MARGIN = 0.95  # less than five per cent is within what timings of one network differ by
WAY = ["group", "variant", "stage", "backend"]
POINTS = ["cell", "stage", "backend", "x", "mean", "low", "high", "n"]
CROSSINGS = [*WAY, "sparsity", "first", "last", "crossed", "seeds"]


def backend_points(run: Run) -> pd.DataFrame | None:
    """Milliseconds of a pass, a cell, stage and back-end each: cell, stage, backend, x (sparsity reached), mean, low, high, n seeds.

    None for runs whose stages were not timed on back-ends (config key `deploy.backends`).
    """
    rows = _timed(run)
    if rows is None:
        return None
    rows = rows.assign(cell=tables.cell_numbers(rows, tables.cells(run)))
    found = []
    for (cell, stage, backend), part in rows.groupby(["cell", "stage", "backend"], sort=False):
        about = stats.describe(part["value"])
        named = {"cell": int(str(cell)), "stage": stage, "backend": backend, "x": float(part["x"].mean())}
        found.append(named | {k: about[k] for k in ("mean", "low", "high", "n")})
    return pd.DataFrame(found)[POINTS]


def crossings(run: Run) -> pd.DataFrame | None:
    """From which sparsity on each way is at least 5 % faster than the dense network of the same seed on its fastest dense back-end.

    A row for each group, variant, stage and back-end that was measured at two levels or more: the median over the seeds that cross, the
    first and last of them, how many crossed, and how many seeds there were. Levels between are taken on the straight line. None where
    there is no baseline to compare with.
    """
    rows, base = _timed(run), tables.baseline(run)
    if rows is None or base is None:
        return None
    dense = rows[(rows["variant"] == base) & (rows["stage"] == "final") & ~rows["sparse"]]
    best = dense.groupby(["group", "seed"])["value"].min().rename("best")
    ratios = rows[rows["variant"] != base].merge(best, on=["group", "seed"])
    found = []
    for way, part in ratios.groupby(WAY, sort=False):
        if part["x"].nunique() < 2:
            continue
        part = part.assign(ratio=part["value"] / part["best"] / MARGIN).sort_values("x")
        each = [crossing(one["x"].tolist(), one["ratio"].tolist()) for _, one in part.groupby("seed")]
        known = [c for c in each if c is not None]
        ends = (float(np.median(known)), min(known), max(known)) if known else (np.nan,) * 3
        found.append([*way, *ends, len(known), len(each)])
    return pd.DataFrame(found, columns=CROSSINGS) if found else None


def _timed(run: Run) -> pd.DataFrame | None:
    """The measured times with stage, back-end, whether it is a sparse one, and the sparsity reached."""
    rows = stats.select(run.records, METRIC)
    told: list[Any] = [parameters(text) for text in rows["parameters"]]
    rows = rows.assign(
        stage=rows["phase"], backend=[t.get("backend") for t in told], sparse=[bool(t.get("sparse")) for t in told],
        batch=[t.get("batch_size") for t in told],
    )  # fmt: skip
    rows = rows[rows["value"].notna() & rows["stage"].isin(list(STAGES)) & rows["backend"].notna()]
    if rows.empty:
        return None
    reached = tables.last_a_trial(stats.select(run.records, "sparsity", phase="final", layer="")).set_index("trial")["value"]
    return rows.assign(x=rows["trial"].map(reached).fillna(rows["sparsity"]).fillna(0.0))


def batch_size(run: Run) -> str:
    """The samples of the passes that were timed, as text."""
    rows = _timed(run)
    return "" if rows is None else " or ".join(str(n) for n in sorted({int(b) for b in rows["batch"].dropna()}))


def figure(points: pd.DataFrame, known: pd.DataFrame, looks: drawing.Styles, plain: str | None) -> Any:
    """Milliseconds (logarithmic) against sparsity: colour by variant, dash by back-end, marker by stage; the dense network level."""
    made, (axis,) = drawing.grid(1, (5.6, 3.6))
    backends = list(dict.fromkeys(points["backend"]))
    points = points.assign(variant=known["variant"].iloc[points["cell"]].to_numpy())
    for (variant, stage, backend), part in points.groupby(["variant", "stage", "backend"], sort=False):
        colour = looks[str(variant)][0]
        dash = drawing.DASHES[backends.index(backend) % 4]
        label = f"{variant}, {STAGES[str(stage)]}, {backend}"
        if variant == plain:
            axis.axhline(part["mean"].iloc[0], color=colour, linestyle=dash, linewidth=1, label=label)
            continue
        part = part.sort_values("x")
        look = {"color": colour, "linestyle": dash, "marker": MARKERS[str(stage)], "markersize": drawing.marks(4), "linewidth": 1.4}
        axis.plot(part["x"], part["mean"], label=label, **look)
        axis.vlines(part["x"], part["low"], part["high"], color=colour, linewidth=1)
    axis.set(yscale="log", xlabel="sparsity (fraction removed)", title="latency by back-end [ms]")
    drawing.plain_y(axis)
    drawing.legend(made, [axis])
    return made
