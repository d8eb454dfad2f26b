"""Injective maps of x and y: they compose and leave the mutual information as it was (Czyz et al. 2023, theorem 2.1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from prunescope.data.synthetic.task import Sampler, Task
from prunescope.types import ConfigError, DataError


@dataclass(frozen=True)
class Map:
    """An injective map for x and one for y; `adds` are the columns that each gains."""

    x: Callable[[Tensor], Tensor]
    y: Callable[[Tensor], Tensor]
    adds: tuple[int, int] = (0, 0)
    least: tuple[int, int] = (1, 1)


def half_cube(x: Tensor) -> Tensor:
    """x |x|^(1/2), no unit: a monotone map that lengthens tails.

    >>> half_cube(torch.tensor([-4.0, 9.0])).tolist()
    [-8.0, 27.0]
    """
    return x * x.abs().sqrt()


def wiggly_x(x: Tensor) -> Tensor:
    """A rising curve with waves (slope at least 0.16), no unit. Source: Czyz et al. 2023, task list."""
    return x + 0.4 * x.sin() + 0.2 * (1.7 * x + 1).sin() + 0.03 * (3.3 * x - 2.5).sin()


def wiggly_y(y: Tensor) -> Tensor:
    """Another rising curve with waves (slope at least 0.53), no unit. Source: Czyz et al. 2023, task list."""
    return y - 0.4 * (0.4 * y).sin() + 0.17 * (1.3 * y + 3.5).sin() + 0.02 * (4.3 * y - 2.5).sin()


def swiss_roll(x: Tensor) -> Tensor:
    """A number in [0, 1] laid on a two-dimensional spiral, (n, 1) -> (n, 2)."""
    t = 1.5 * math.pi * (1 + 2 * x[:, :1])
    return torch.cat([t * t.cos(), t * t.sin()], dim=1) / 21


def spiral(x: Tensor, *, plane: tuple[int, int], speed: float = 1.0) -> Tensor:
    """`x` turned in one plane by an angle (radians) that grows with its squared length: speed |x|^2 / d.

    Lengths do not change, so the map is undone by turning back; its Jacobian has determinant 1.
    """
    first, second = plane
    angle = speed / x.shape[1] * (x * x).sum(1)
    turned = x.clone()
    turned[:, first] = angle.cos() * x[:, first] - angle.sin() * x[:, second]
    turned[:, second] = angle.sin() * x[:, first] + angle.cos() * x[:, second]
    return turned


def bimodal(x: Tensor, *, weight: float, low: float, high: float) -> Tensor:
    """A standard normal column moved onto weight N(low, 1) + (1 - weight) N(high, 1), quantile to quantile (bisection to 1e-12)."""
    target = torch.special.ndtr(x)
    left, right = torch.full_like(x, low - 12), torch.full_like(x, high + 12)
    for _ in range(60):
        middle = (left + right) / 2
        below = weight * torch.special.ndtr(middle - low) + (1 - weight) * torch.special.ndtr(middle - high) < target
        left, right = torch.where(below, middle, left), torch.where(below, right, middle)
    return (left + right) / 2


def _identity(x: Tensor) -> Tensor:
    return x


MAPS: dict[str, Map] = {
    "cdf": Map(torch.special.ndtr, torch.special.ndtr),
    "half-cube": Map(half_cube, half_cube),
    "asinh": Map(torch.asinh, torch.asinh),
    "wiggly": Map(wiggly_x, wiggly_y),
    "spiral": Map(lambda x: spiral(x, plane=(0, 1)), lambda y: spiral(y, plane=(1, 2)), least=(2, 3)),
    "swiss-roll": Map(swiss_roll, _identity, adds=(1, 0)),
    "bimodal": Map(lambda x: bimodal(x, weight=0.3, low=0, high=5), lambda y: bimodal(y, weight=0.5, low=-1, high=3)),
}


def transformed(task: Task, *maps: str) -> Task:
    """`task` under the named maps, applied from left to right, with the same mutual information in nats.

    >>> from prunescope.data.synthetic import tasks
    >>> both = transformed(tasks()["normal-1x1"], "cdf", "swiss-roll")
    >>> both.name, both.dx, both.mi == tasks()["normal-1x1"].mi
    ('swiss-roll @ cdf @ normal-1x1', 2, True)
    """
    for name in maps:
        task = _apply(task, name)
    return task


def _apply(task: Task, name: str) -> Task:
    if name not in MAPS:
        raise ConfigError(f"unknown map {name!r}: known are {', '.join(MAPS)}")
    chosen = MAPS[name]
    if task.kinds != ("continuous", "continuous"):
        raise DataError(f"map {name!r} needs continuous columns: task {task.name!r} has kinds {task.kinds}")
    if task.dx < chosen.least[0] or task.dy < chosen.least[1]:
        raise DataError(f"map {name!r} needs at least {chosen.least} columns: task {task.name!r} has {(task.dx, task.dy)}")
    return Task(
        f"{name} @ {task.name}", _mapped(task.sampler, chosen), task.mi, task.dx + chosen.adds[0], task.dy + chosen.adds[1],
        task.kinds, f"{task.source}; map {name}: Czyz et al. 2023",
    )  # fmt: skip


def _mapped(sampler: Sampler, chosen: Map) -> Sampler:
    def draw(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x, y = sampler(n, generator)
        return chosen.x(x), chosen.y(y)

    return draw
