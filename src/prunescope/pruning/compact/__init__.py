"""Compaction: a masked network becomes a smaller dense one that computes the same function."""

from __future__ import annotations

from prunescope.pruning.compact.report import CompactReport
from prunescope.pruning.compact.saving import load_compact, save_compact
from prunescope.pruning.compact.shrinking import CompactError, compact

__all__ = ["CompactError", "CompactReport", "compact", "load_compact", "save_compact"]
