"""Samples whose mutual information is known: what estimators are checked against (`prunescope mi --check`)."""

from prunescope.data.synthetic.catalogue import GROUPS, tasks
from prunescope.data.synthetic.task import Task
from prunescope.data.synthetic.transforms import MAPS, transformed

__all__ = ["GROUPS", "MAPS", "Task", "tasks", "transformed"]
