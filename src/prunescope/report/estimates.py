"""Which estimate a record belongs to: an estimator with its settings, named so that a reader can tell it from the run's others."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import pandas as pd

METRICS = ("mi_input", "mi_label", "entropy")
# What a record says beside the settings of its estimator; `layer_order` is the layer's number.
STATED = frozenset(["ceiling", "flags", "layer_order", "resolution", "h_x", "h_y", "log2_n", "input", "why", "uncertainty", "quantity"])
FIRST = ("bins", "width", "noise", "relative", "scale", "k")  # the resolution itself: told wherever an estimator comes more than once
SETTINGS = (*FIRST, "bound", "range", "metric", "draws", "reduce")
NOT_SHANNON = {
    "renyi": "matrix-based Renyi information is not Shannon's: its bits depend on the kernel and cannot be compared with the others'",
    "sliced": "sliced information is not Shannon's: it is the mean over one-dimensional projections and lower, the more so the more units",
}
COMMON_FLAGS = ("saturated", "exceeds-earlier-layer", "refused", "not-finite")  # marked point by point


@lru_cache(maxsize=65536)
def parameters(text: str) -> dict[str, Any]:
    """The `parameters` of a record; what is no JSON object (damage, another program's file) gives none."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def labels(rows: pd.DataFrame) -> pd.Series:
    """The name of each row's estimate: the estimator's, with its split or settings only where that name stands for several estimates.

    One estimate is one entry of the experiment's list of estimators: what it says of its resolution may differ from layer to layer.
    """
    label = rows["estimator"].astype(str)
    place = rows[["trial", "phase", "epoch", "layer", "metric"]].assign(n=rows["n"].where(rows["phase"] == "convergence"))
    for name in label[_mixed(place, label)].unique():
        mine = label == name
        found = label[mine]
        if rows.loc[mine, "split"].nunique() > 1:
            found = found + " · " + rows.loc[mine, "split"].astype(str)
        if _mixed(place[mine], found).any():
            found = _told_apart(rows[mine], place[mine], found)
        label = label.where(~mine, found)
    return label


def _mixed(place: pd.DataFrame, label: pd.Series) -> pd.Series:
    return place.assign(label=label).duplicated(keep=False)


def _told_apart(rows: pd.DataFrame, place: pd.DataFrame, label: pd.Series) -> pd.Series:
    """Labels with the settings; then the resolution, if that is the same for all layers; what is still alike is numbered as it came."""
    details = rows["parameters"].map(parameters)
    for key in _settings(rows, details, int(place.assign(label=label).value_counts(dropna=False).max())):
        label = label + details.map(lambda d, key=key: words(key, d[key]) if key in d else "")
    left = _mixed(place, label)
    resolution = details.map(lambda d: str(d.get("resolution", "")))
    if left.any() and _same_everywhere(rows[left], resolution[left]):
        label = label.where(~left, label + ", " + resolution)
    left = _mixed(place, label)
    count = place.assign(label=label).groupby([*place.columns, "label"], dropna=False).cumcount() + 1
    return label.where(~left, label + " (" + count.astype(str) + ")")


def _settings(rows: pd.DataFrame, details: pd.Series, several: int) -> list[str]:
    """Keys that tell the `several` estimates apart: what a layer, an epoch or a trial brought in by itself is no setting."""
    keys = dict.fromkeys([*SETTINGS, *sorted({key for d in details for key in d})])
    found = []
    for key in keys:
        values = details.map(lambda d, key=key: json.dumps(d[key], sort_keys=True) if key in d else "")
        count = values.nunique()
        if key in STATED or count > several or (count < 2 and (key not in FIRST or not values.iloc[0])):
            continue
        if _same_everywhere(rows, values):
            found.append(key)
    return found


def _same_everywhere(rows: pd.DataFrame, values: pd.Series) -> bool:
    """Whether every layer has the same set of values, for I(X;T) and for I(T;Y)."""
    both = rows["metric"].isin(METRICS[:2])
    sets = values[both].groupby([rows.loc[both, "layer"], rows.loc[both, "metric"]]).agg(frozenset)
    return sets.nunique() == 1


def words(key: str, value: Any) -> str:
    """A setting as the end of a label.

    >>> words("bins", 6), words("noise", 0.01), words("bound", "lower"), words("range", [-1, 1]), words("relative", False)
    (', 6 bins', ', noise 0.01', ', lower', ', range [-1, 1]', '')
    """
    if value is None or value is False:
        return ""
    if isinstance(value, dict):
        value = " ".join(_plain(v) for v in value.values())
    if key == "bins":
        return f", {_plain(value)} bins"
    if value is True:
        return f", {key}"
    return f", {_plain(value)}" if key in ("bound", "range", "method") and isinstance(value, str) else f", {key} {_plain(value)}"


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_plain, value))}]"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def describe(label: str, rows: pd.DataFrame) -> dict[str, Any]:
    """What is told of an estimate: label, estimator, resolution, split, n, ceilings (bits), flags, and why it is no Shannon information."""
    of_input = rows[rows["metric"] == "mi_input"].drop_duplicates("parameters")
    details = [parameters(text) for text in of_input["parameters"]] or [{}]
    both = rows.loc[rows["metric"].isin(METRICS[:2]), "parameters"].drop_duplicates().map(parameters)
    ceilings = {"H(X)": _largest(details, "h_x"), "H(Y)": _largest(details, "h_y"), "log2 N": _largest(details, "log2_n")}
    resolutions = list(dict.fromkeys(str(d["resolution"]) for d in details if d.get("resolution")))
    estimator = str(rows["estimator"].iloc[0])
    return {
        "label": label,
        "estimator": estimator,
        "resolution": "; ".join(resolutions[:2]) + (" and others" if len(resolutions) > 2 else ""),
        "split": ", ".join(dict.fromkeys(map(str, rows["split"]))),
        "n": sorted({int(n) for n in rows["n"].dropna().unique()}),
        "ceilings": {name: value for name, value in ceilings.items() if value is not None},
        "flags": sorted({flag for d in both for flag in d.get("flags") or () if flag not in COMMON_FLAGS}),
        "not_shannon": NOT_SHANNON.get(estimator, ""),
    }


def _largest(details: Iterable[dict[str, Any]], key: str) -> float | None:
    """The largest value under `key`: trials on other samples differ by little, and a ceiling must not be drawn too low."""
    found = [float(d[key]) for d in details if isinstance(d.get(key), int | float)]
    return max(found, default=None)
