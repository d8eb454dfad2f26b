"""Experiments: presets and configs, their trials, and the engines that carry them out."""

from prunescope.experiments.planning import in_shard, plan
from prunescope.experiments.run import run

__all__ = ["in_shard", "plan", "run"]
