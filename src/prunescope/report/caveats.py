"""What the estimates of a run can and cannot say, in plain sentences that depend on what was recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from prunescope.report.convergence import sentence
from prunescope.report.planes import Planes
from prunescope.types import LN2

if TYPE_CHECKING:
    from prunescope.results.store import Run

SYMBOLS = ("I(X;T)", "I(T;Y)")
DETERMINISTIC = (
    "A trained network is a deterministic function of its input, so I(X;T) is the entropy H(T) of the activations AT THE STATED "
    "RESOLUTION and nothing else: without bins or noise it would be infinite for continuous inputs, or H(X) for a "
    "finite sample. A smaller value says that more samples fall into the same cells, which may mean compression, saturation, "
    "or simply bins that are too coarse. It is a statement about network and estimator together."
)
CEILINGS = (
    "No estimate that counts cells of N samples can exceed log2 N, nor H(X); I(T;Y) cannot exceed H(Y). Points within 0.1 bit of their "
    "ceiling are drawn hollow: there the estimator has run out of samples, and differences between layers or variants mean nothing."
)
EXCEEDS = (
    "They are drawn as triangles. Each layer is computed from the one before it, so by the data-processing inequality it cannot know more "
    "about X or Y: true information never rises with depth. Where an estimate does, the estimator is wrong by at least that much, "
    "or what it measures is not Shannon's information or not at the same resolution in both layers (bins that adapt to each layer)."
)


def caveats(run: Run, table: pd.DataFrame, planes: Planes | None, settling: pd.DataFrame | None = None) -> list[str]:
    """Paragraphs for the report: about information first, then about intervals, single runs and size."""
    found = [] if planes is None else [DETERMINISTIC, CEILINGS, *_estimates(planes), *_found_in(planes)]
    found += sentence(settling)
    found += _replicates(table)
    found.append(
        "Differences are paired: each pruned trial is compared with the reference of the same seed. The variants are compared many at a "
        "time without correction, so about one interval in twenty misses the truth by chance."
    )
    if (table["bytes"].nunique() == 1) and table["nonzero"].nunique() > 1:
        found.append("Bytes and latency are those of the dense network, in which masked weights are stored as zeros.")
    return found


def _estimates(planes: Planes) -> list[str]:
    sentences = []
    for estimate in planes.estimates:
        n = " to ".join(f"{v:,}" for v in dict.fromkeys((estimate["n"] or [0])[:: max(1, len(estimate["n"]) - 1)]))
        resolution = f", resolution: {estimate['resolution']}" if estimate["resolution"] else ""
        split = f" of split “{estimate['split']}”" if estimate["split"] else ""
        doubts = f" Its values are flagged: {', '.join(estimate['flags'])}." if estimate["flags"] else ""
        other = f" Mark: {estimate['not_shannon']}." if estimate["not_shannon"] else ""
        told = f"Estimate “{estimate['label']}”: {n} samples{split}{resolution}.{doubts}{other} {_coarse_input(estimate)}"
        sentences.append(told.strip())
    if any("binning" in e["estimator"] for e in planes.estimates):
        sentences.append(
            "Binned estimates depend on the bins. A fixed range fits bounded activations such as tanh; unbounded ones such as ReLU "
            "that leave it pile up in the outermost bin and seem to compress. Compare values only at equal bins and equal N."
        )
    return sentences


def _coarse_input(estimate: dict[str, Any]) -> str:
    h_x, log2_n = estimate["ceilings"].get("H(X)"), estimate["ceilings"].get("log2 N")
    if h_x is None or log2_n is None or h_x > log2_n - 0.01:
        return ""
    return (
        f"The input itself was quantised or repeats: H(X) is {h_x:.2f} where {log2_n:.2f} would tell all samples apart, so no layer can "
        "show more than that."
    )


def _found_in(planes: Planes) -> list[str]:
    sentences = []
    x = planes.x[np.isfinite(planes.x)]
    share = planes.saturated[np.isfinite(planes.x)].mean() if x.size else 0.0
    if share > 0:
        sentences.append(f"Here {100 * share:.0f} % of the I(X;T) values are saturated.")
    both = np.concatenate([x, planes.y[np.isfinite(planes.y)]])
    if (negative := int((both < 0).sum())) > 0:
        sentences.append(
            f"{negative:,} of {both.size:,} estimates are negative: mutual information is not, so they show the estimator's error; "
            "they are kept as they came."
        )
    sentences += _exceeding(planes) + _beyond(planes)
    if len(planes.refused):
        sentences.append(
            f"{len(planes.refused):,} values could not be had; they are left out of the planes and listed below them with their reasons."
        )
    if planes.recorded > len(planes.moments):
        sentences.append(
            f"The page shows {len(planes.moments)} of {planes.recorded} recorded moments (first, last and evenly between); "
            "the records hold all of them."
        )
    return sentences


def _exceeding(planes: Planes) -> list[str]:
    told = []
    for e, estimate in enumerate(planes.estimates):
        both = [(symbol, mark[e], values[e]) for symbol, mark, values in zip(SYMBOLS, planes.exceeds, (planes.x, planes.y), strict=True)]
        shares = [f"{_share(m.sum() / np.isfinite(v).sum())} of {symbol}" for symbol, m, v in both if m.any()]
        if shares:
            told.append(f"“{estimate['label']}” ({', '.join(shares)})")
    return [f"Values above that of an earlier layer: {', '.join(told)}. {EXCEEDS}"] if told else []


def _share(part: float) -> str:
    return "under 1 %" if part < 0.01 else f"{100 * part:.0f} %"


def _beyond(planes: Planes) -> list[str]:
    """Estimates that are not bound to their ceilings and went past them."""
    bits = LN2 if planes.unit == "nats" else 1.0
    told = []
    for e, estimate in enumerate(planes.estimates):
        for symbol, name, values in zip(SYMBOLS, ("H(X)", "H(Y)"), (planes.x[e], planes.y[e]), strict=True):
            top = estimate["ceilings"].get(name, np.inf) * bits
            if (over := values[np.isfinite(values) & (values > top + 0.1)]).size:
                told.append(f"“{estimate['label']}” puts {symbol} at up to {over.max():.2f} where {name} is {top:.2f}")
    return [f"{'; '.join(told)}: more than these samples hold, so such values are the estimator's extrapolation or error."] if told else []


def _replicates(table: pd.DataFrame) -> list[str]:
    seeds = table["seeds"].fillna(0)
    most = int(seeds.max()) if len(seeds) else 0
    if most <= 1:
        return ["Every setting was run ONCE: there are no intervals, and a difference between two settings may be the seed's doing."]
    sentences = [
        "Square brackets and bands are 95 % bootstrap intervals of the mean over seeds (percentile method with the small-sample "
        "correction of Hesterberg 2015). They speak of new seeds on the same data split, not of new data."
    ]
    if most < 5:
        sentences.append(
            f"With {most} seeds such an interval cannot lie outside the values seen and covers the truth at most "
            f"{100 * (1 - 2.0 ** (1 - most)):.0f} % of the time, whatever its label says."
        )
    if (seeds == 1).any():
        sentences.append("Settings with a single finished seed show no interval.")
    return sentences
