"""Experiments: presets and configs, their trials, and the engines that carry them out."""

from prunescope.experiments.run import in_shard, plan, run

__all__ = ["in_shard", "plan", "run"]
