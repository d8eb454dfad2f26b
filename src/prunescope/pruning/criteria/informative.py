"""Criteria of information, in bits: what a unit says of the label, what it says beyond the other units, and its entropy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from prunescope.information import mutual_information
from prunescope.information.discrete import groups_entropy
from prunescope.information.grid import cells
from prunescope.pruning.redundancy import conditional_label_information, spread_over_rest
from prunescope.pruning.signals.units import UnitSamples
from prunescope.registry import criteria
from prunescope.types import LN2, PruningError

Correction = Literal["none", "miller-madow", "chao-shen", "shrinkage", "nsb"]


@criteria("information-label", needs=("unit_samples",), source="I(T_j;Y); estimators as in `prunescope list estimators`", level="unit")
def information_label(
    weight: Tensor, unit_samples: UnitSamples, *, estimator: str = "gao-mixed", settings: Mapping[str, Any] | None = None
) -> Tensor:
    """Mutual information between each unit's activation and the label, in bits, (units,) float64; negative estimates stay.

    estimator   a name of `prunescope list estimators` that takes numbers and labels, settings: its parameters. A constant unit has 0.
    Errors: PruningError where the calibration data have no labels.

    >>> samples = UnitSamples(torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), torch.tensor([0, 0, 1, 1]))
    >>> information_label(torch.ones(2, 3), samples, estimator="binning", settings={"bins": 2}).tolist()
    [1.0, 0.0]
    """
    return _label_information(unit_samples.values.T.contiguous()[..., None], _labels(unit_samples), estimator, settings)


@criteria(
    "information-conditional",
    needs=("unit_samples",),
    source="min over kept units s of I(T_j;Y|T_s): Fleuret 2004, JMLR 5; as CMIM in Brown et al. 2012, JMLR 13",
    level="unit",
)
def information_conditional(
    weight: Tensor,
    unit_samples: UnitSamples,
    *,
    estimator: str = "binning",
    bins: int = 4,
    settings: Mapping[str, Any] | None = None,
) -> Tensor:
    """What each unit says of the label beyond any one unit that is kept before it, in bits, (units,) float64: a copy has about 0.

    Units are taken greedily: next the one whose least I(T_j;Y|T_s) over the units s taken so far is greatest (at first I(T_j;Y));
    that value, which never rises along the order, is its score. Ties go to the unit with the lower index.
    estimator   "binning": plug-in over `bins` quantiles a unit with the Miller-Madow correction; else a name of `prunescope list
                estimators`, with I((T_j, T_s);Y) - I(T_s;Y), which takes units^2 / 2 estimates of two columns; settings: its parameters

    Negative values are bias corrections of units that say nothing.

    >>> t = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    >>> samples = UnitSamples(t, torch.tensor([0, 0, 1, 1]))
    >>> [round(v, 3) for v in information_conditional(torch.ones(3, 2), samples, bins=2).tolist()]
    [1.18, 0.0, -0.18]
    """
    labels = _labels(unit_samples)
    values = unit_samples.values.T.contiguous()[..., None]
    if estimator == "binning" and settings is None:
        alone, given = conditional_label_information(values, labels, bins)
        return spread_over_rest(alone, lambda s: given[:, s])
    alone = _label_information(values, labels, estimator, settings)

    def beyond(s: int) -> Tensor:
        pairs = torch.cat([values, values[s].expand_as(values)], -1)
        value = _label_information(pairs, labels, estimator, settings) - alone[s]
        value[s] = 0.0
        return value

    return spread_over_rest(alone, beyond)


@criteria("information-input", needs=("unit_samples",), source="H(T_j) at a resolution: Shwartz-Ziv & Tishby 2017, sec. 3.1", level="unit")
def information_input(weight: Tensor, unit_samples: UnitSamples, *, bins: int = 30, correction: Correction = "none") -> Tensor:
    """Entropy of each unit's activation in equal bins over its layer's range, in bits, (units,) float64.

    For a deterministic network this is I(T_j;X) at that resolution, a statement about the bins. correction: of the plug-in's bias.

    >>> samples = UnitSamples(torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.1, 2.0], [0.1, 3.0]]), None)
    >>> information_input(torch.ones(2, 3), samples, bins=4).tolist()
    [0.0, 2.0]
    """
    if bins < 2:
        raise PruningError(f"bins = {bins}: expected at least 2")
    values = unit_samples.values
    low, high = float(values.min()), float(values.max())
    if low == high:
        return torch.zeros(values.shape[1], dtype=torch.float64)
    groups, _ = cells(values.T.contiguous()[..., None], bins=bins, range=(low, high))
    return torch.from_numpy(groups_entropy(groups, correction)) / LN2


def _labels(samples: UnitSamples) -> Tensor:
    if samples.labels is None:
        raise PruningError("information about the label needs labels and the calibration data have none: pass data=(inputs, labels)")
    return samples.labels


def _label_information(values: Tensor, labels: Tensor, estimator: str, settings: Mapping[str, Any] | None) -> Tensor:
    found = mutual_information(values, labels, estimator, uncertainty=None, **(settings or {}))
    assert isinstance(found, list)
    return torch.tensor([e.value for e in found], dtype=torch.float64)


