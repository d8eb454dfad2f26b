"""Does an elliptical copula explain how x and y depend on each other? A network, trained on the rest, looks for information it misses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from prunescope.information.critics import Critic
from prunescope.information.elliptical import Elliptical, Floats, Ratio, half_ranks, scores
from prunescope.information.neural import Training, evaluate, standard_error, thirds, train

DIRECTIONS = 5  # canonical directions that the network sees on each side: more only overfit at 10,000 samples
SURE = 3.0  # standard errors of gain that reject the copula


@dataclass(frozen=True)
class Residual:
    """Information in nats, beyond the copula's, that a trained critic finds on samples it has not seen (`gain` +- `stderr`)."""

    gain: float
    stderr: float

    @property
    def rejects(self) -> bool:
        """Whether the copula is surely incomplete."""
        return self.gain > max(SURE * self.stderr, 1e-3)


def residual(x: Floats, y: Floats, fit: Elliptical, *, generator: Generator, training: Training | None = None) -> Residual:
    """The gain in nats of a critic over the fitted copula's log density ratio, both by Donsker and Varadhan's bound on held-out samples.

    The critic starts at the copula's ratio and sees the canonical directions of x and of y that correlate most, and how far each
    sample lies from the centre: what turns, bends or scales the dependence shows there in few columns.
    """
    a, b = features(x, y, fit)
    start_x, start_y = fit.scores(x, y)
    inputs = torch.cat([a, start_x], 1), torch.cat([b, start_y], 1)
    rows, stop, held = thirds(len(x), generator)
    training = training or Training()
    critic = Critic(a.shape[1], b.shape[1], shape="separable", hidden=training.hidden, start=Ratio(fit), generator=generator)
    before = _held_out(critic, inputs, held)
    train(critic, *inputs, rows, stop, objective="donsker-varadhan", training=training, generator=generator)
    after = _held_out(critic, inputs, held)
    return Residual(float(after[0] - before[0]), float(standard_error(after[1] - before[1])))


def _held_out(critic: Critic, inputs: tuple[Tensor, Tensor], held: Tensor) -> tuple[Tensor, Tensor]:
    return evaluate(critic, inputs[0][held], inputs[1][held], "donsker-varadhan")


def features(x: Floats, y: Floats, fit: Elliptical) -> tuple[Tensor, Tensor]:
    """What the network sees of x and y, float32, standardised: leading canonical directions, and the distance from the centre."""
    normal, k = scores(half_ranks(np.concatenate([x, y], axis=1))), fit.dx
    first, second = (_inverse_root(c) for c in (fit.correlation[:k, :k], fit.correlation[k:, k:]))
    left, _, right = np.linalg.svd(first @ fit.correlation[:k, k:] @ second)
    sides = normal[:, :k] @ first @ left, normal[:, k:] @ second @ right.T
    made = (np.column_stack([side[:, :DIRECTIONS], np.sqrt((side**2).sum(axis=1))]) for side in sides)
    one, two = (torch.from_numpy((m - m.mean(axis=0)) / m.std(axis=0)).float() for m in made)
    return one, two


def _inverse_root(matrix: Floats) -> Floats:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(vectors / np.sqrt(values) @ vectors.T)
