"""Pruning: what is unimportant (criteria), in which pieces (granularity), from where (allocation), when (schedules)."""

from prunescope.pruning import allocation, criteria, granularity, schedules, signals
from prunescope.pruning.masks import Masks
from prunescope.pruning.oneshot import prune, reached
from prunescope.pruning.pruner import Pruner
from prunescope.pruning.targets import prunable

__all__ = ["Masks", "Pruner", "allocation", "criteria", "granularity", "prunable", "prune", "reached", "schedules", "signals"]
