"""A task: a way to draw (x, y) and the mutual information that they have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Generator, Tensor

from prunescope.rng import torch_generator
from prunescope.types import DataError

Kind = Literal["continuous", "discrete", "mixed"]
Sampler = Callable[[int, Generator], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Task:
    """A joint distribution with known mutual information `mi` in NATS.

    sampler   draws n pairs: x (n, dx) float64, or (n,) int64 labels where the kind is "discrete"
    kinds     the kinds of x and of y
    source    where the distribution and its mutual information come from, and how exact the latter is
    """

    name: str
    sampler: Sampler
    mi: float
    dx: int
    dy: int
    kinds: tuple[Kind, Kind] = ("continuous", "continuous")
    source: str = ""

    def sample(self, n: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
        """`n` pairs (x, y); the same for the same (name, n, seed) wherever they are drawn.

        >>> from prunescope.data.synthetic import tasks
        >>> x, y = tasks()["normal-1x1"].sample(5)
        >>> x.shape, x.dtype
        (torch.Size([5, 1]), torch.float64)
        """
        if n < 1:
            raise DataError(f"task {self.name!r}: expected at least 1 sample, {n} were asked for")
        return self.sampler(n, torch_generator(seed, "task", self.name))
