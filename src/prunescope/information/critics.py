"""Critics: functions T(x, y), in nats, that neural bounds train to approach the log density ratio ln p(x, y) / p(x) p(y).

A critic starts from a normal fit (or from zero) and learns what that leaves unexplained. Pairs are scored all against all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Generator, Tensor

Shape = Literal["separable", "joint"]
Start = Callable[[Tensor, Tensor], Tensor]
Layers = list[tuple[Tensor, Tensor]]


def layers(widths: Sequence[int], generator: Generator, *, last: float = 1.0) -> Layers:
    """Weights and biases of a network, He-uniform, those of the last layer times `last`."""
    made = []
    for fan_in, fan_out in itertools.pairwise(widths):
        weight = (2 * torch.rand(fan_in, fan_out, generator=generator) - 1) * math.sqrt(6 / fan_in)
        made.append((weight, torch.zeros(fan_out)))
    made[-1] = (made[-1][0] * last, made[-1][1])
    return [(w.requires_grad_(), b.requires_grad_()) for w, b in made]


def network(values: Tensor, parts: Layers) -> Tensor:
    """Outputs (rows, width) of the network on `values` (rows, columns).

    Its hidden units are smooth (SiLU, x / (1 + exp(-x))): a log density ratio bends everywhere, which pieces of planes have to imitate.
    """
    for weight, bias in parts[:-1]:
        values = torch.nn.functional.silu(torch.addmm(bias, values, weight))
    return torch.addmm(parts[-1][1], values, parts[-1][0])


class Critic:
    """T(x_i, y_j) in nats for all pairs of rows: `scores(x, y)` of shape (rows of x, rows of y).

    The networks see the first dx and dy columns; the start sees what columns follow, or the same ones where none do.

    "separable"  f(x) . g(y) + u(x) + v(y): one network for x, one for y, all pairs by a matrix product
    "joint"      a network on (x, y): dearer by the number of pairs, needs no product structure
    """

    def __init__(
        self, dx: int, dy: int, *, shape: Shape, hidden: Sequence[int], embedding: int = 16, start: Start | None, generator: Generator
    ) -> None:
        self.shape, self.start, self.dx, self.dy = shape, start, dx, dy
        if shape == "separable":
            # x's side and v end at zero: before training the critic IS its start
            left = layers([dx, *hidden, embedding + 1], generator, last=0.0)
            right = layers([dy, *hidden, embedding + 1], generator, last=1 / math.sqrt(embedding))
            right[-1][0].data[:, -1] = 0
            self.parts = [left, right]
        else:
            self.parts = [layers([dx + dy, *hidden, 1], generator, last=0.0)]

    @property
    def parameters(self) -> list[Tensor]:
        return [value for part in self.parts for pair in part for value in pair]

    def scores(self, x: Tensor, y: Tensor) -> Tensor:
        learned = self._learned(x[:, : self.dx], y[:, : self.dy])
        if self.start is None:
            return learned
        a, b = (v[:, d:] if v.shape[1] > d else v for v, d in ((x, self.dx), (y, self.dy)))
        return learned + self.start(a, b)

    def _learned(self, x: Tensor, y: Tensor) -> Tensor:
        if self.shape == "separable":
            f, g = network(x, self.parts[0]), network(y, self.parts[1])
            return torch.addmm(f[:, -1:] + g[:, -1], f[:, :-1], g[:, :-1].T)
        first, *rest = self.parts[0]
        # the first layer is linear: its two halves are applied once a row instead of once a pair
        left, right = x @ first[0][: x.shape[1]], y @ first[0][x.shape[1] :]
        joined = torch.nn.functional.silu(left[:, None] + right[None] + first[1])
        return network(joined.reshape(-1, joined.shape[-1]), rest).reshape(len(x), len(y))


class NormalStart:
    """The log density ratio (nats) of the normal distribution fitted to training rows, shrunk so that its covariance is sound."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        both = torch.cat([x, y], 1).double()
        n, d = both.shape
        self.dx, self.mean = x.shape[1], both.mean(0)
        covariance = torch.cov(both.T).reshape(d, d) * (n - 1) / (n + d) + torch.eye(d, dtype=torch.float64) * d / (n + d)
        joint = torch.linalg.inv(covariance)
        sides = torch.block_diag(
            torch.linalg.inv(covariance[: self.dx, : self.dx]), torch.linalg.inv(covariance[self.dx :, self.dx :])
        )
        self.excess = (joint - sides).float()
        self.level = float(
            (covariance[: self.dx, : self.dx].logdet() + covariance[self.dx :, self.dx :].logdet() - covariance.logdet()) / 2
        )

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        a, b = x - self.mean[: self.dx].float(), y - self.mean[self.dx :].float()
        k = self.dx
        own = ((a @ self.excess[:k, :k]) * a).sum(1)[:, None] + ((b @ self.excess[k:, k:]) * b).sum(1)
        ratio: Tensor = self.level - own / 2 - a @ self.excess[:k, k:] @ b.T
        return ratio
