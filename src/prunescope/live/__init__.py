"""Live: a page that shows curves growing while a run works, from its folder alone, served on the loopback interface only."""

from prunescope.live.board import Board
from prunescope.live.server import Watch

__all__ = ["Board", "Watch"]
