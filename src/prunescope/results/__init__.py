"""Results: the records of a run, where they are stored, and their statistics."""

from prunescope.results.schema import Record
from prunescope.results.store import Run, load

__all__ = ["Record", "Run", "load"]
