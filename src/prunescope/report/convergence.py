"""Does an estimate settle with more samples? Values of the final network at several sample counts, per layer and estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from prunescope.report import tables
from prunescope.report.estimates import METRICS, labels, parameters
from prunescope.results.columns import plain
from prunescope.types import LN2

if TYPE_CHECKING:
    from prunescope.results.store import Run

STILL = 0.1  # bits from half the samples to all: what counts as still moving (saturated is within as much of the ceiling)
MEANING = (
    "A value that still moves between N/2 and N is not yet an estimate of anything: it tells how many samples there were. "
    "One that stands still may have settled, or stuck at a ceiling that does not depend on N, such as H(Y)."
)


def convergence(run: Run) -> pd.DataFrame | None:
    """Medians over the seeds at each sample count, or None where none were recorded: one (cell, estimate, metric, layer) a row.

    Columns: cell, estimate, metric, layer, n (list, rising), value (list, bits), change (bits, last minus last but one),
    moving (by more than 0.1 bit), seeds.
    """
    rows = run.records
    rows = plain(rows[(rows["phase"] == "convergence") & rows["metric"].isin(METRICS) & rows["n"].notna()])
    if rows.empty:
        return None
    order = rows["parameters"].map(lambda text: parameters(text).get("layer_order", 0))
    bits = np.where(rows["unit"] == "nats", rows["value"] / LN2, rows["value"])
    rows = rows.assign(estimate=labels(rows), cell=tables.cell_numbers(rows, tables.cells(run)), order=order, bits=bits)
    found = []
    key = ["cell", "estimate", "metric", "layer"]
    for where, part in rows.sort_values("order", kind="stable").groupby(key, sort=False):
        median = part[np.isfinite(part["bits"])].groupby("n")["bits"].median().reindex(sorted(part["n"].unique()))
        value = median.to_numpy(float)
        change = float(value[-1] - value[-2]) if len(value) > 1 else np.nan
        about = dict(zip(key, where, strict=True)) | {"n": [int(n) for n in median.index], "value": value.tolist()}
        found.append(about | {"change": change, "moving": bool(abs(change) > STILL), "seeds": int(part["trial"].nunique())})
    return pd.DataFrame(found)


def sentence(found: pd.DataFrame | None) -> list[str]:
    """How many estimates still move, for the caveats; nothing where the question was not put."""
    if found is None or not (judged := found[found["change"].notna()]).size:
        return []
    moving = int(judged["moving"].sum())
    share = f"{moving:,} of {len(judged):,} values of the final networks"
    return [f"{share} still move by more than {STILL} bit from N/2 to N samples. {MEANING}"]
