"""Training: one loop with six events, optimisers, checkpoints."""

from prunescope.training.checkpoint import load_weights, save_weights
from prunescope.training.events import State
from prunescope.training.loop import train

__all__ = ["State", "load_weights", "save_weights", "train"]
