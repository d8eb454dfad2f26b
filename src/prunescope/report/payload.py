"""Everything the page shows, as one JSON-ready dictionary of columns: numbers to five significant digits, NaN as null."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from prunescope.report import citation, searching, tables
from prunescope.report.backends import backend_points, batch_size, crossings
from prunescope.report.caveats import caveats
from prunescope.report.convergence import MEANING, STILL
from prunescope.report.curves import EpochCurve, Timeline
from prunescope.report.digest import Digest, digest
from prunescope.report.gradients import gradient_curves
from prunescope.report.numbers import number, numbers
from prunescope.report.overview import overview
from prunescope.report.planes import Planes
from prunescope.report.weights import histograms, mask_pictures
from prunescope.results import stats

if TYPE_CHECKING:
    from prunescope.results.store import Run

Payload = dict[str, Any]
MOST_REFUSED = 200
ABOUT = ("name", "title", "question", "notes", "faults", "data_notes", "versions", "command", "baseline", "created", "machine", "toml")


def payload(run: Run | Digest) -> Payload:
    """The page's data. Parts without records are None, and the page leaves their sections out."""
    whole = digest(run)
    run = whole.run
    table = tables.summary_table(run)
    found, known, settling = whole.planes, whole.cells, whole.convergence
    masks, unread = mask_pictures(run, known)
    search, damaged = searching.searched(run)
    return {
        "about": {key: run.experiment.get(key) for key in ABOUT},
        "problems": [str(p) for p in [*run.problems, *unread, *damaged]],
        "pruned": bool((table["reached"] > 0).any()),
        "overview": [list(line) for line in overview(run, table, found, search)],
        "caveats": caveats(run, table, found, settling),
        "cells": _cells(run, known),
        "summary": _summary(table),
        "unfinished": _records(tables.unfinished(run)),
        "collapsed": _collapsed(run, known),
        "search": None if search is None else searching.payload(search),
        "plane": None if found is None else _plane(found, known),
        "convergence": _convergence(settling),
        "epochs": _epochs(*whole.epochs),
        "gradients": _gradients(run),
        "levels": _levels(run, whole.levels),
        "pareto": _pareto(whole.pareto),
        "backends": _backends(run),
        "histograms": histograms(run, known),
        "layers": _layers(run, known),
        "masks": masks or None,
        "citation": _citation(run),
        "seconds": number(tables.seconds(run)),
    }


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


def _epochs(found: list[EpochCurve], timeline: Timeline) -> Payload | None:
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


def _levels(run: Run, points: pd.DataFrame) -> Payload | None:
    if points.empty:
        return None
    numeric = {c: numbers(points[c].astype(float)) for c in ("cell", "x", "mean", "low", "high", "n")}
    named = {c: points[c].tolist() for c in ("metric", "moment", "split")}
    return {**numeric, **named, "values": [numbers(v) for v in points["values"]], "chance": _chance(run)}


def _pareto(points: pd.DataFrame | None) -> Payload | None:
    if points is None:
        return None
    numeric = {c: numbers(points[c].astype(float)) for c in ("x", "mean", "low", "high", "n")}
    return {"cell": points["cell"].astype(int).tolist(), **{c: points[c].tolist() for c in ("cost", "stage", "front")}, **numeric}


def _backends(run: Run) -> Payload | None:
    points = backend_points(run)
    if points is None:
        return None
    numeric = {c: numbers(points[c].astype(float)) for c in ("x", "mean", "low", "high", "n")}
    named = {"cell": points["cell"].astype(int).tolist(), "stage": points["stage"].tolist(), "backend": points["backend"].tolist()}
    found = crossings(run)
    return {**numeric, **named, "crossings": None if found is None else _records(found), "batch": batch_size(run)}


def _chance(run: Run) -> float | int | None:
    values = stats.select(run.records, "chance")["value"]
    return number(float(values.median())) if len(values) else None


def _layers(run: Run, known: pd.DataFrame) -> Payload | None:
    found = tables.layer_sparsity(run)
    if found.empty:
        return None
    cell = tables.cell_numbers(found, known).tolist()
    return {"cell": cell, "phase": found["phase"].tolist(), "layer": found["layer"].tolist()} | {
        "value": numbers(found["value"]),
        "n": numbers(found["n"].astype(float)),
    }


def _collapsed(run: Run, known: pd.DataFrame) -> list[Payload]:
    """Trials that ended at chance, each with its accuracy and what chance is."""
    found = stats.collapsed(run.records)
    found = found[found["collapsed"]]
    cell = tables.cell_numbers(found, known)
    return _records(found.assign(cell=cell)[["cell", "seed", "accuracy", "chance", "trial"]])


def _citation(run: Run) -> Payload:
    """The papers behind what the run used, for reading and as BibTeX, and what no paper is named for."""
    entries, without = citation.cited(run)
    papers = [{"text": citation.readable(r), "of": ", ".join(" ".join(part) for part in parts)} for r, parts in entries]
    return {"papers": papers, "without": [" ".join(part) for part in without], "bibtex": citation.cite(run)}
