"""The tasks by name, in groups. `continuous` is what estimators are ranked on. All but `held-out` were seen while `auto` was designed."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch

from prunescope.data.synthetic import samplers, truth
from prunescope.data.synthetic.heldout import held_out
from prunescope.data.synthetic.samplers import channel, dense, normal, pairs, student
from prunescope.data.synthetic.task import Task
from prunescope.data.synthetic.transforms import spiral, transformed
from prunescope.types import ConfigError

TWO_PAIRS = 0.8  # the correlation of Czyz et al.'s "2-pair" tasks: strength 2 -> 4 / (1 + 4)


def _one_dimensional() -> list[Task]:
    base = normal("normal-1x1", dense(1, 0.75), 1)
    cauchy = student("student-1x1-dof1", torch.eye(2, dtype=torch.float64), 1, 1)
    return [
        base,
        *(transformed(base, name) for name in ("cdf", "bimodal", "wiggly", "half-cube")),
        samplers.additive_uniform(0.1),
        samplers.additive_uniform(0.75),
        cauchy,
        transformed(cauchy, "asinh"),
        transformed(base, "cdf", "swiss-roll"),
    ]


def _normals() -> list[Task]:
    whole = [normal(f"normal-{d}x{d}", dense(d), d) for d in (2, 3, 5, 25, 50)]
    sparse = [normal(f"two-pairs-{d}x{d}", pairs(d, 2, TWO_PAIRS), d) for d in (2, 3, 5, 25, 50)]
    more = [
        normal("five-pairs-5x5", pairs(5, 5, 0.7), 5),
        normal("hundred-pairs-100x100", pairs(100, 100, 0.2), 100),
        normal("independent-1x1", pairs(1, 0, 0.0), 1),
        normal("independent-5x5", pairs(5, 0, 0.0), 5),
    ]
    stairs = [normal(f"staircase-{mi}", pairs(20, 20, truth.correlation_for(mi, 20)), 20) for mi in (2, 4, 6, 8, 10)]
    return whole + sparse + more + stairs


def _students() -> list[Task]:
    def identity(d: int, dof: int) -> Task:
        return student(f"student-{d}x{d}-dof{dof}", torch.eye(2 * d, dtype=torch.float64), d, dof)

    plain = [identity(d, dof) for d, dof in ((2, 1), (2, 2), (3, 2), (3, 3), (5, 2), (5, 3), (2, 5))]
    return plain + [transformed(identity(d, dof), "asinh") for d, dof in ((2, 1), (3, 2), (5, 2))]


def _transformed() -> list[Task]:
    found = []
    for d in (3, 5, 25):
        base = normal(f"two-pairs-{d}x{d}", pairs(d, 2, TWO_PAIRS), d)
        found += [transformed(base, "cdf"), transformed(base, "half-cube"), transformed(base, "spiral")]
        found += [transformed(base, "cdf", "spiral")]
    wiggly = normal("two-pairs-3x3", pairs(3, 2, TWO_PAIRS), 3)
    return [*found, transformed(wiggly, "wiggly"), transformed(student("student-3x3-dof2", torch.eye(6).double(), 3, 2), "half-cube")]


def _continuous() -> list[Task]:
    return _one_dimensional() + _normals() + _students() + _transformed()


def _mixtures() -> list[Task]:
    def crossed(c: float) -> Task:
        return samplers.mixture("crossed-lines", [(0, 0), (0, 0)], [[[1, c], [c, 1]], [[1, -c], [-c, 1]]], step=0.05)

    wide = [[0.1, 0.0], [0.0, 0.1]]
    blocks = samplers.mixture("blocks", [(1.5 * i, 1.5 * (i % 4)) for i in range(12)], [wide] * 12, step=0.04)
    return [crossed(0.9), blocks, _galaxy(), samplers.inliers("inliers-5x5", 5, TWO_PAIRS, 0.2), _ring(0.3)]


def _galaxy() -> Task:
    """Two balls in three dimensions, one arm each of a galaxy once x is wound up; only the axis through the balls informs on y."""
    half = 1.5
    unit = [[1.0, 0.0], [0.0, 1.0]]
    # along the unit axis (1, 1) / sqrt 2 of x, the centres lie at +-half sqrt 2; across it the two balls are alike
    mi = truth.mixture_2d([0.5, 0.5], [(s * half * math.sqrt(2), s * half) for s in (-1.0, 1.0)], [unit, unit], step=0.1)

    def draw(n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        sign = 2.0 * torch.randint(2, (n, 1), generator=generator) - 1
        both = torch.randn(n, 3, dtype=torch.float64, generator=generator) + sign * half
        return spiral(both[:, :2], plane=(0, 1), speed=1.0), both[:, 2:]

    return Task("galaxy-2x1", draw, mi, 2, 1, source="trapezium rule, to 1e-6; after Czyz et al. 2025 (mixtures)")


def _ring(width: float) -> Task:
    """A point at an even angle a as x = (cos a, sin a) (1 + radial jitter), y its angle plus noise U(-width, width) pi as (cos, sin).

    The noise's share of the circle is `width`, hence I = ln 1 / width exactly.
    """

    def draw(n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        angle, noise, a, b = 2 * torch.rand(4, n, 1, dtype=torch.float64, generator=generator) - 1
        other = (angle + width * noise) * math.pi
        x = torch.cat([(angle * math.pi).cos(), (angle * math.pi).sin()], 1) * (1 + 0.2 * a)
        return x, torch.cat([other.cos(), other.sin()], 1) * (1 + 0.2 * b)

    return Task("ring-2x2", draw, -math.log(width), 2, 2, source="closed form: noise covers a share `width` of the circle")


def _discrete() -> list[Task]:
    cover = "exact enumeration; Cover & Thomas, section 7.1"
    return [
        channel("symmetric-channel-0.11", samplers.symmetric_channel(0.11), cover),
        channel("erasure-channel-0.25", samplers.erasure_channel(0.25), cover),
        channel("noisy-typewriter-26", samplers.noisy_typewriter(26), cover),
        channel("independent-letters-6", torch.full((6, 6), 1 / 6, dtype=torch.float64), "exact enumeration"),
    ]


def _mixed() -> list[Task]:
    poisson = [samplers.zero_inflated_poisson(p) for p in (0.0, 0.15)]
    return [*poisson, samplers.overlapping_uniforms(5), samplers.two_normals(1.0), samplers.half_discrete(0.9, 0.9)]


GROUPS: dict[str, Callable[[], list[Task]]] = {
    "continuous": _continuous,
    "mixtures": _mixtures,
    "discrete": _discrete,
    "mixed": _mixed,
    "held-out": held_out,
}


@cache
def _group(name: str) -> tuple[Task, ...]:
    return tuple(GROUPS[name]())


def tasks(which: str = "all") -> dict[str, Task]:
    """Tasks by name, each with its mutual information in nats: "continuous" (53), "mixtures", "discrete", "mixed", "held-out" or "all".

    >>> len(tasks("continuous")), round(tasks("discrete")["noisy-typewriter-26"].mi, 6) == round(math.log(13), 6)
    (53, True)
    """
    if which != "all" and which not in GROUPS:
        raise ConfigError(f"unknown group of tasks {which!r}: known are all, {', '.join(GROUPS)}")
    names = list(GROUPS) if which == "all" else [which]
    return {task.name: task for name in names for task in _group(name)}
