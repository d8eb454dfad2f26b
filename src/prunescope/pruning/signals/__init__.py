"""Signals: costly quantities that criteria need (gradients, activations, ...), computed once for all of them over a stated calibration set.

A signal is a function of the `Calibration` that returns one tensor (or record) for each target, by the target's name; its keyword-only
parameters are options of the user's. It sums over the batches and divides by the count once, in float64 where sums are long, with the
model in evaluation mode, and leaves the model as it found it, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import prunescope.pruning.signals.curvature
import prunescope.pruning.signals.flow
import prunescope.pruning.signals.gradients
import prunescope.pruning.signals.inputs
import prunescope.pruning.signals.parameters
import prunescope.pruning.signals.units  # noqa: F401  (each family registers its signals)
from prunescope.pruning.signals.calibration import Batch, Calibration, LossFunction, batches_of
from prunescope.registry import signals

__all__ = ["Batch", "Calibration", "LossFunction", "batches_of", "compute"]


def compute(names: Iterable[str], calibration: Calibration, options: Mapping[str, Any] | None = None) -> dict[str, Mapping[str, Any]]:
    """The signals called `names`, each by target name, computed once; of `options` each takes those that it knows."""
    found: dict[str, Mapping[str, Any]] = {}
    for name in dict.fromkeys(names):
        entry = signals.get(name)
        found[name] = entry.function(calibration, **{k: v for k, v in (options or {}).items() if k in entry.options})
    return found
