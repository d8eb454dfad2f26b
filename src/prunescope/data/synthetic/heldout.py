"""Tasks that no rule, constant or threshold of this package was chosen with: what is said of intervals is tested on them.

They were written down before any estimator was run on them. Families that the other groups lack: one-sided copulas (Clayton, Frank,
Farlie-Gumbel-Morgenstern), sums of gamma variables, a sine with noise, Laplace noise, skewed tables of counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy import special
from torch import Generator, Tensor

from prunescope.data.synthetic import truth
from prunescope.data.synthetic.task import Task
from prunescope.rng import numpy_generator

Pairs = Callable[[int, Generator], tuple[Tensor, Tensor]]


def _uniforms(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
    both = torch.rand(2, n, 1, dtype=torch.float64, generator=generator).clamp(1e-12, 1 - 1e-12)
    return both[0], both[1]


def _normals(n: int, generator: Generator) -> Tensor:
    return torch.randn(n, 1, dtype=torch.float64, generator=generator)


def _clayton(theta: float) -> Pairs:
    def draw(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        u, w = _uniforms(n, generator)
        return u, ((w ** (-theta / (1 + theta)) - 1) * u**-theta + 1) ** (-1 / theta)

    return draw


def _frank(theta: float) -> Pairs:
    def draw(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        u, w = _uniforms(n, generator)
        return u, -torch.log1p(w * math.expm1(-theta) / (w + (1 - w) * torch.exp(-theta * u))) / theta

    return draw


def _morgenstern(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
    u, w = _uniforms(n, generator)
    a = 1 - 2 * u
    return u, 2 * w / (1 + a + ((1 + a) ** 2 - 4 * a * w).sqrt())


def _gammas(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """X ~ Gamma(2) as a sum of two exponentials, Y = X + Exp(1)."""
    waits = -torch.rand(3, n, 1, dtype=torch.float64, generator=generator).clamp_min(1e-300).log()
    return waits[0] + waits[1], waits.sum(0)


def _sine(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
    x = 2 * _uniforms(n, generator)[0] - 1
    return x, (2 * math.pi * x).sin() + 0.3 * _normals(n, generator)


def _laplace(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
    u, _ = _uniforms(n, generator)
    x = _normals(n, generator)
    return x, x - 0.5 * (u - 0.5).sign() * (1 - 2 * (u - 0.5).abs()).log()


def _repeated(name: str, pairs: Pairs, mi: float, times: int, source: str, *, turned: bool = False, scored: bool = False) -> Task:
    """`times` independent pairs side by side; `scored` makes uniform columns normal, `turned` rotates x and y (fixed rotations)."""
    random = numpy_generator(0, "held-out", name)
    turns = [torch.from_numpy(np.linalg.qr(random.standard_normal((times, times)))[0]) for _ in range(2)]

    def draw(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        drawn = [pairs(n, generator) for _ in range(times)]
        x, y = (torch.cat(side, 1) for side in zip(*drawn, strict=True))
        if scored:
            x, y = torch.special.ndtri(x), torch.special.ndtri(y)
        return (x @ turns[0], y @ turns[1]) if turned else (x, y)

    return Task(name, draw, times * mi, times, times, source=source)


def _continuous() -> list[Task]:
    rule = "trapezium rule on normal scores, to 1e-4"
    clayton, frank, fgm = truth.clayton(2.0), truth.frank(6.0), truth.morgenstern()
    gammas, sine, laplace = truth.gamma_sum(2.0, 1.0), truth.sine(0.3), truth.normal_plus_laplace(0.5)
    return [
        _repeated("clayton-1x1", _clayton(2.0), clayton, 1, rule),
        _repeated("frank-1x1", _frank(6.0), frank, 1, rule),
        _repeated("morgenstern-1x1", _morgenstern, fgm, 1, rule),
        _repeated("gamma-sum-1x1", _gammas, gammas, 1, "closed form: h(X + Z) - h(Z)"),
        _repeated("sine-1x1", _sine, sine, 1, "quadrature to 1e-6"),
        _repeated("laplace-1x1", _laplace, laplace, 1, "quadrature to 1e-6"),
        _repeated("gamma-sum-2x2", _gammas, gammas, 2, "closed form: h(X + Z) - h(Z)"),
        _repeated("frank-2x2", _frank(6.0), frank, 2, rule),
        _repeated("sine-2x2", _sine, sine, 2, "quadrature to 1e-6"),
        _repeated("clayton-3x3-turned", _clayton(2.0), clayton, 3, rule, turned=True, scored=True),
        _repeated("laplace-5x5-turned", _laplace, laplace, 5, "quadrature to 1e-6", turned=True),
        _repeated("morgenstern-8x8", _morgenstern, fgm, 8, rule),
    ]


def _table(name: str, joint: np.ndarray) -> Task:
    """Labels x and y with the joint probabilities `joint`; exact enumeration, nats."""
    flat = torch.from_numpy(joint.ravel())
    entropies = [float(special.entr(p).sum()) for p in (joint.sum(1), joint.sum(0), joint)]

    def draw(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        cell = torch.multinomial(flat, n, replacement=True, generator=generator)
        return cell // joint.shape[1], cell % joint.shape[1]

    mi = entropies[0] + entropies[1] - entropies[2]
    return Task(name, draw, mi, 1, 1, ("discrete", "discrete"), "exact enumeration")


def _labelled() -> list[Task]:
    def gammas(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        y = torch.randint(3, (n,), generator=generator)
        waits = -torch.rand(5, n, dtype=torch.float64, generator=generator).clamp_min(1e-300).log()
        counted = torch.arange(5)[:, None] <= 2 * y
        return (waits * counted).sum(0)[:, None], y

    z = np.array([[0.5, 0.0], [0.15, 0.35]])
    skewed = 0.7 ** np.arange(12.0)
    steps = np.abs(np.arange(12)[:, None] - np.arange(12))
    chain = skewed[:, None] * np.exp(-1.5 * steps)
    random = numpy_generator(0, "held-out", "table").dirichlet(np.full(64, 0.5)).reshape(8, 8)
    source = "quadrature to 1e-6"
    return [
        Task("gamma-classes-3", gammas, truth.gamma_classes((1, 3, 5)), 1, 1, ("continuous", "discrete"), source),
        _table("z-channel", z),
        _table("skewed-chain-12", chain / chain.sum()),
        _table("random-table-8", random),
    ]


def held_out() -> list[Task]:
    """All tasks of the group, mutual information in nats."""
    return [*_continuous(), *_labelled()]
