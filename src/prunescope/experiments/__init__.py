"""Experiments: presets and configs, their trials, and the engines that carry them out."""

from prunescope.experiments.run import plan, run

__all__ = ["plan", "run"]
