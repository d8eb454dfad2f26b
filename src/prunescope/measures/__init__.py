"""Measures: quality, size, speed and what the layers carry."""

from prunescope.measures import quality, size, speed

__all__ = ["quality", "size", "speed"]
