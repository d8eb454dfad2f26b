"""Pruning: what is unimportant (criteria), in which pieces (granularity), from where (allocation), when (schedules)."""

from prunescope.pruning import allocation, coupled, criteria, granularity, schedules, signals
from prunescope.pruning.coupling import couple
from prunescope.pruning.latency import layer_times
from prunescope.pruning.masks import Masks
from prunescope.pruning.oneshot import prune, reached
from prunescope.pruning.pruner import Pruner
from prunescope.pruning.targets import prunable

__all__ = [
    "Masks",
    "Pruner",
    "allocation",
    "couple",
    "coupled",
    "criteria",
    "granularity",
    "layer_times",
    "prunable",
    "prune",
    "reached",
    "schedules",
    "signals",
]
