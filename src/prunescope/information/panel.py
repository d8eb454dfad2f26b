"""A panel: the same samples under every estimator that applies, and whether they agree."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunescope.information.estimate import Uncertainty, fits, mutual_information
from prunescope.information.samples import pair
from prunescope.registry import estimators
from prunescope.types import LN2, Estimate, EstimateError, PrunescopeError, Unit

NEAR_BITS, NEAR_SHARE = 0.1, 0.1  # values this near to the middle one, in bits or as a share of it, are said to agree
NOT_SHANNON = ("renyi",)  # another quantity of its own: listed, never counted as agreeing or not
DOUBTFUL = {
    "degenerate", "unreliable", "undersampled", "high-dimension", "saturated", "above-ceiling", "refused", "unconverged", "few-samples",
    "not-gaussian", "not-elliptical", "overfit",
}  # fmt: skip


@dataclass(frozen=True)
class PanelRow:
    """One estimator's word: an estimate in the unit asked for, or the reason why it gave none; `seconds` is what it took."""

    estimator: str
    estimate: Estimate | None
    reason: str
    seconds: float

    @property
    def counts(self) -> bool:
        """Whether the value takes part in the agreement: Shannon's quantity, and nothing flagged as doubtful."""
        return self.estimate is not None and self.estimator not in NOT_SHANNON and not DOUBTFUL & set(self.estimate.flags)


def applicable(x: Any, y: Any) -> list[str]:
    """Names of the estimators of mutual information (bits or nats) that take variables of these kinds, in either order."""
    kinds = [part.kind for part in pair(("x", x), ("y", y))]
    giving = [e for e in estimators if "mi" in e.traits.get("quantities", ("mi",))]
    return [e.name for e in giving if fits(e, *kinds) or fits(e, *kinds[::-1])]


def panel(
    x: Any,
    y: Any,
    names: Sequence[str] | None = None,
    *,
    unit: Unit = "bits",
    seed: int = 0,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    uncertainty: Uncertainty = "auto",
) -> list[PanelRow]:
    """Mutual information in bits (or nats) of x and y by each of `names`; None takes all that apply.

    parameters   {estimator: {parameter: value}}; an estimator that refuses the samples is a row with its reason
    """
    rows = []
    for name in applicable(x, y) if names is None else names:
        started = time.perf_counter()
        found: Estimate | None = None
        reason = ""
        try:
            made = mutual_information(x, y, name, unit=unit, seed=seed, uncertainty=uncertainty, **(parameters or {}).get(name, {}))
            if isinstance(made, list):
                raise EstimateError("a panel takes one pair of samples, got a batch: call it once for each")
            found = made
        except PrunescopeError as error:
            if names is not None and len(names) == 1:
                raise  # the one that was asked for: its own sentence is the answer
            reason = str(error)
        rows.append(PanelRow(name, found, reason, time.perf_counter() - started))
    return rows


def agreement(rows: Sequence[PanelRow]) -> str:
    """One sentence: how many estimators stand within max(0.1 bit, 10 %) of the middle value, and which do not."""
    counted = [(r.estimator, r.estimate) for r in rows if r.counts and r.estimate is not None]
    if len(counted) < 2:
        return "fewer than two estimators gave a value that is not flagged: nothing to compare"
    unit = counted[0][1].unit
    middle = statistics.median(e.value for _, e in counted)
    near = max(NEAR_BITS * (1 if unit == "bits" else LN2), NEAR_SHARE * abs(middle))
    apart = [name for name, e in counted if abs(e.value - middle) > near]
    if not apart:
        return f"all {len(counted)} estimators without flags agree within {near:.3g} {unit} of {middle:.4g}"
    return (
        f"{len(counted) - len(apart)} of {len(counted)} estimators without flags agree within {near:.3g} {unit} of {middle:.4g}; "
        f"apart: {', '.join(apart)}"
    )
