"""Everything the page shows, as one JSON-ready dictionary of columns: numbers to five significant digits, NaN as null."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from prunescope.report import curves, tables
from prunescope.report.caveats import caveats
from prunescope.report.convergence import MEANING, STILL, convergence
from prunescope.report.estimates import parameters
from prunescope.report.gradients import gradient_curves
from prunescope.report.overview import overview
from prunescope.report.pareto import pareto
from prunescope.report.planes import Planes, planes
from prunescope.results import stats

if TYPE_CHECKING:
    from prunescope.results.store import Run

Payload = dict[str, Any]
MOST_MASK_BYTES = 200_000
MOST_HISTOGRAM_NUMBERS = 120_000
MOST_REFUSED = 200
ABOUT = ("name", "title", "question", "notes", "faults", "data_notes", "versions", "command", "baseline", "created", "machine", "toml")


def payload(run: Run) -> Payload:
    """The page's data. Parts without records are None, and the page leaves their sections out."""
    table = tables.summary_table(run)
    found = planes(run.records)
    known = tables.cells(run)
    settling = convergence(run)
    return {
        "about": {key: run.experiment.get(key) for key in ABOUT},
        "problems": [str(p) for p in run.problems],
        "pruned": bool((table["reached"] > 0).any()),
        "overview": [list(line) for line in overview(run, table, found)],
        "caveats": caveats(run, table, found, settling),
        "cells": _cells(run, known),
        "summary": _summary(table),
        "unfinished": _records(tables.unfinished(run)),
        "plane": None if found is None else _plane(found, known),
        "convergence": _convergence(settling),
        "epochs": _epochs(run),
        "gradients": _gradients(run),
        "levels": _levels(run),
        "pareto": _pareto(run),
        "histograms": histograms(run, known),
        "layers": _layers(run, known),
        "masks": _masks(run, known),
        "seconds": number(tables.seconds(run)),
    }


def number(value: float) -> float | int | None:
    """A number with five significant digits for JSON; None where it is not finite.

    >>> number(0.123456789), number(3.0), number(float("nan"))
    (0.12346, 3, None)
    """
    if not math.isfinite(value):
        return None
    if value == int(value) and abs(value) < 1e15:
        return int(value)
    return float(f"{value:.5g}")


def numbers(values: Iterable[float]) -> list[float | int | None]:
    """Each of `values` as `number` gives it."""
    return [number(v) for v in values]


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): number(v) if isinstance(v, float) else v for k, v in row.items()} for row in frame.to_dict("records")]


def _cells(run: Run, known: pd.DataFrame) -> Payload:
    name = tables.baseline(run)
    return {
        "group": known["group"].tolist(),
        "variant": known["variant"].tolist(),
        "sparsity": numbers(known["sparsity"]),
        "label": known["label"].tolist(),
        "baseline": [v == name for v in known["variant"]],
    }


def _summary(table: pd.DataFrame) -> Payload:
    """Columns of the summary table, without those in which nothing was recorded."""
    numeric = [c for c in table.columns if c not in ("group", "variant", "label")]
    return {c: numbers(table[c].astype(float)) for c in numeric if table[c].notna().any()}


def _plane(found: Planes, known: pd.DataFrame) -> Payload:
    """Per estimate and trial: x and y as [layer][moment]; saturated as [layer], each 0, 1 (all) or the list of moments.

    exceeds is two like saturated, of x and of y, and absent where nothing exceeds.
    """
    entropy = np.nanmax(np.abs(found.h - found.x), initial=0.0, where=np.isfinite(found.h - found.x)) > 0.01
    series = []
    for e in range(len(found.estimates)):
        for t in range(len(found.trials)):
            if not np.isfinite(found.x[e, t]).any():
                continue
            one = {"estimate": e, "trial": t, "x": _rows(found.x[e, t]), "y": _rows(found.y[e, t])}
            one["saturated"] = [_marked(row) for row in found.saturated[e, t]]
            if found.exceeds[:, e, t].any():
                one["exceeds"] = [[_marked(row) for row in rows] for rows in found.exceeds[:, e, t]]
            if entropy:
                one["h"] = _rows(found.h[e, t])
            series.append(one)
    return {
        "unit": found.unit,
        "estimates": found.estimates,
        "layers": found.layers,
        "phase": found.moments["phase"].tolist(),
        "epoch": numbers(found.moments["epoch"]),
        "recorded": found.recorded,
        "trials": {"cell": tables.cell_numbers(found.trials, known).tolist(), "seed": found.trials["seed"].tolist()},
        "series": series,
        "refused": _refused(found, known),
    }


def _refused(found: Planes, known: pd.DataFrame) -> list[Payload]:
    """Values that could not be had, those with the same reason in one line: how many, and from which to which epoch."""
    key = ["estimate", "cell", "layer", "metric", "phase", "flags", "why"]
    cell = found.refused["trial"].map(dict(zip(found.trials["trial"], tables.cell_numbers(found.trials, known), strict=True)))
    lines = found.refused.assign(cell=cell).groupby(key, sort=False)["epoch"].agg(["size", "min", "max"]).reset_index()
    lines = lines.rename(columns={"size": "count", "min": "first", "max": "last"})
    return _records(lines.sort_values("count", ascending=False, kind="stable").head(MOST_REFUSED))


def _convergence(found: pd.DataFrame | None) -> Payload | None:
    if found is None:
        return None
    lines = found.assign(value=found["value"].map(numbers))
    return {"meaning": MEANING, "still": STILL, "lines": _records(lines), "estimates": list(dict.fromkeys(found["estimate"]))}


def _rows(table: np.ndarray) -> list[list[float | int | None]]:
    return [numbers(row) if np.isfinite(row).any() else [] for row in table.tolist()]


def _marked(row: np.ndarray) -> int | list[int]:
    return int(row.all()) if row.all() or not row.any() else np.flatnonzero(row).tolist()


def _epochs(run: Run) -> Payload | None:
    found, timeline = curves.epoch_curves(run)
    if not found:
        return None
    lines = [
        {"cell": c.cell, "metric": c.metric, "split": c.split, "seeds": c.seeds, "x": numbers(c.x)}
        | {"mean": numbers(c.mean), "low": numbers(c.low), "high": numbers(c.high)}
        for c in found
    ]
    return {"curves": lines, "trained": timeline.trained, "finetuned": timeline.finetuned} | {
        "recorded": timeline.recorded,
        "shown": timeline.shown,
    }


def _gradients(run: Run) -> Payload | None:
    found = gradient_curves(run)
    if found is None:
        return None
    lines: list[Payload] = []
    for c in found.curves:
        band = {"low": numbers(c.low), "high": numbers(c.high)} if c.seeds > 1 else {}
        lines.append({"cell": c.cell, "metric": c.metric, "layer": c.layer, "seeds": c.seeds, "median": numbers(c.median)} | band)
    return {"epoch": numbers(found.epochs), "recorded": found.recorded, "layers": found.layers, "curves": lines}


def _levels(run: Run) -> Payload | None:
    points = curves.sparsity_points(run)
    if points.empty:
        return None
    numeric = {c: numbers(points[c].astype(float)) for c in ("cell", "x", "mean", "low", "high", "n")}
    named = {c: points[c].tolist() for c in ("metric", "moment", "split")}
    return {**numeric, **named, "values": [numbers(v) for v in points["values"]], "chance": _chance(run)}


def _pareto(run: Run) -> Payload | None:
    points = pareto(run)
    if points is None:
        return None
    numeric = {c: numbers(points[c].astype(float)) for c in ("x", "mean", "low", "high", "n")}
    return {"cell": points["cell"].astype(int).tolist(), **{c: points[c].tolist() for c in ("cost", "stage", "front")}, **numeric}


def _chance(run: Run) -> float | int | None:
    values = stats.select(run.records, "chance")["value"]
    return number(float(values.median())) if len(values) else None


def histograms(run: Run, known: pd.DataFrame) -> list[Payload] | None:
    """Weights of the first seed of each cell: zero is the share exactly zero, and these are taken out of the counts."""
    rows = stats.select(run.records, "weight_histogram")
    rows = rows[rows["seed"] == rows.groupby(tables.CELL, dropna=False)["seed"].transform("min")]
    rows = rows.sort_values("epoch", na_position="first", kind="stable").sort_index(level=0, sort_remaining=False)
    rows = rows.assign(cell=tables.cell_numbers(rows, known), moment=_weight_moments(rows), n=rows["n"].astype(float))
    rows = rows.drop_duplicates(["cell", "moment", "layer"], keep="last")
    found, spent = [], 0
    for row in rows.to_dict("records"):
        details = parameters(row["parameters"])
        edges, counts = details.get("edges") or [], details.get("counts") or []
        if not _are_bins(edges, counts) or spent > MOST_HISTOGRAM_NUMBERS:
            continue
        spent += len(counts)
        outside = _without_zeros(np.asarray(edges, float), np.asarray(counts, float), row["value"], row["n"])
        edges, outside = _merged(np.asarray(edges, float), outside, row["n"])
        about = {"cell": row["cell"], "seed": row["seed"], "moment": row["moment"], "layer": row["layer"], "zero": number(row["value"])}
        found.append(about | {"edges": numbers(edges), "counts": numbers(outside), "n": number(row["n"])})
    return [h for h in found if not (h["moment"] == "final" and _repeats(h, found))] or None


def _repeats(last: Payload, found: list[Payload]) -> bool:
    """Whether the final weights are those after fine-tuning, or after training where nothing followed: one picture serves both."""
    same = ("cell", "layer", "edges", "counts")
    return any(h["moment"] in ("train", "finetune") and all(h[key] == last[key] for key in same) for h in found)


def _weight_moments(rows: pd.DataFrame) -> list[str]:
    at_start = (rows["phase"] == "train") & (rows["epoch"] == 0)
    return ["initial" if start else str(phase) for start, phase in zip(at_start, rows["phase"], strict=True)]


def _are_bins(edges: Any, counts: Any) -> bool:
    lists = isinstance(edges, list) and isinstance(counts, list)
    return lists and bool(counts) and len(edges) == len(counts) + 1 and all(isinstance(v, int | float) for v in edges + counts)


def _merged(edges: np.ndarray, counts: np.ndarray, n: float) -> tuple[np.ndarray, np.ndarray]:
    """Neighbouring bins joined until there are about 2 n^(1/3) (Rice's rule), at least 8: small layers would show nothing but noise."""
    wanted = max(8.0, 2 * n ** (1 / 3)) if n > 0 else len(counts)
    step = max(1, round(len(counts) / wanted))
    starts = np.linspace(0, len(counts), -(-len(counts) // step) + 1).round().astype(int)[:-1]
    return np.append(edges[starts], edges[-1]), np.add.reduceat(counts, starts)


def _without_zeros(edges: np.ndarray, counts: np.ndarray, zero: float, n: float) -> np.ndarray:
    """The counts without the weights that are exactly zero, which would hide all others; unchanged where the counts do not hold them."""
    if not (0 < zero <= 1 and n > 0) or not edges[0] <= 0 <= edges[-1]:
        return counts
    near = 1e-6 * (edges[-1] - edges[0])  # an edge at zero is rarely exactly there: of the bins that touch it, zeros fill the fullest
    touching = np.flatnonzero((edges[:-1] <= near) & (edges[1:] >= -near))
    bin_of_zero = touching[counts[touching].argmax()]
    left = counts.copy()
    left[bin_of_zero] -= round(zero * n)
    return left if left[bin_of_zero] >= 0 else counts


def _layers(run: Run, known: pd.DataFrame) -> Payload | None:
    found = tables.layer_sparsity(run)
    if found.empty:
        return None
    cell = tables.cell_numbers(found, known).tolist()
    return {"cell": cell, "phase": found["phase"].tolist(), "layer": found["layer"].tolist()} | {
        "value": numbers(found["value"]),
        "n": numbers(found["n"].astype(float)),
    }


def _masks(run: Run, known: pd.DataFrame) -> list[Payload] | None:
    """Pictures of the first seed's masks: shape and packed bits, checked here so that the page can trust them."""
    rows = stats.select(run.records, "mask")
    rows = rows[rows["seed"] == rows.groupby(tables.CELL, dropna=False)["seed"].transform("min")]
    rows = rows.assign(cell=tables.cell_numbers(rows, known)).drop_duplicates(["cell", "layer"], keep="last")
    found, spent = [], 0
    for row in rows.to_dict("records"):
        details = parameters(row["parameters"])
        shape, kept = details.get("shape"), details.get("kept") or ""
        if not _is_picture(shape, kept) or (spent := spent + len(kept)) > MOST_MASK_BYTES:
            continue
        found.append({"cell": row["cell"], "layer": row["layer"], "seed": row["seed"], "shape": shape, "kept": kept})
    return found or None


def _is_picture(shape: Any, kept: Any) -> bool:
    if not (isinstance(shape, list) and len(shape) == 2 and all(isinstance(s, int) and s > 0 for s in shape) and isinstance(kept, str)):
        return False
    try:
        bits = 8 * len(base64.b64decode(kept, validate=True))
    except (binascii.Error, ValueError):
        return False
    return 0 <= bits - math.prod(shape) < 8
