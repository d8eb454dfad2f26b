"""Execution back-ends: ways to run a network that is done with training, each checked against eager torch before it is used."""

from __future__ import annotations

from prunescope.measures.backends import eager, onnx, quantised, sparse, vino  # noqa: F401 (importing them registers their back-ends)
from prunescope.measures.backends.preparation import BackendError, Call, Job, Prepared, absence, agreement, exact, prepare

__all__ = ["BackendError", "Call", "Job", "Prepared", "absence", "agreement", "exact", "prepare"]
