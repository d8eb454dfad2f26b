"""Sensitivity: what the loss on the calibration set does when one layer alone is pruned, level by level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prunescope.pruning.groups import Group, masks_of
from prunescope.pruning.select import highest
from prunescope.pruning.signals.calibration import Calibration, count, forward, undisturbed
from prunescope.pruning.streams import Scores, stream_of
from prunescope.types import PruningError

LEVELS = (0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)


@dataclass(frozen=True)
class Scan:
    """Mean loss on the calibration set: `dense` as the network is, and of each group at the sparsities (levels,) that were tried."""

    dense: float
    levels: tuple[float, ...]
    losses: Mapping[str, tuple[float, ...]]

    def increases(self, name: str) -> tuple[float, ...]:
        """What the loss grew by at each level, never falling: 0 where it fell, and at least what a lower level cost."""
        found, most = [], 0.0
        for loss in self.losses[name]:
            most = max(most, loss - self.dense)
            found.append(most)
        return tuple(found)


@torch.no_grad()
def scan(groups: Sequence[Group], scores: Scores, calibration: Calibration, *, levels: Sequence[float] = LEVELS) -> Scan:
    """The mean loss with each group alone pruned to each of `levels` by its scores; Han et al. 2015, arXiv:1506.02626, fig. 6.

    The network is left bit for bit as it was. PruningError without calibration data and where the loss is not a number.
    """
    with undisturbed(calibration):
        dense = mean_loss(calibration)
        losses = {g.name: tuple(_pruned_loss(g, scores, level, calibration) for level in levels) for g in groups}
    return Scan(dense, tuple(levels), losses)


def _pruned_loss(group: Group, scores: Scores, level: float, calibration: Calibration) -> float:
    stream = stream_of(scores[group.name])
    kept = highest({group.name: stream}, round(level * stream.numel()))
    masks = masks_of([group], kept, calibration.model, companions=True)
    parameters = dict(calibration.model.named_parameters(remove_duplicate=False))
    before = {name: parameters[name].detach().clone() for name in masks}
    try:
        for name, mask in masks.items():
            parameters[name].masked_fill_(~mask.to(parameters[name].device), 0.0)
        return mean_loss(calibration)
    finally:
        for name, value in before.items():
            parameters[name].copy_(value)


def mean_loss(calibration: Calibration) -> float:
    """The mean loss over the calibration set, each batch weighted by its samples, in the loss function's unit."""
    total, samples = 0.0, 0
    for inputs, labels in calibration.chunks("a sensitivity scan"):
        n = count((inputs, labels))
        value = float(calibration.loss(forward(calibration.model, inputs), labels))
        total, samples = total + n * value, samples + n
    if not total < float("inf"):  # NaN and infinity alike
        raise PruningError("the loss on the calibration set is not a finite number: check the network, the data and loss_fn")
    return total / samples


def levels_for(found: Scan, sizes: Mapping[str, int], sparsity: float, *, least: int = 1) -> dict[str, float]:
    """The sparsity of each group at which all have raised the loss by the same amount and `sparsity` of all pieces are gone.

    Between the levels that were tried the increase is taken as straight; beyond the last as straight up to a layer that keeps `least`.
    """
    most = {n: max(0.0, 1 - least / sizes[n]) for n in sizes}
    total = sum(sizes.values())
    if sparsity > sum(most[n] * sizes[n] for n in sizes) / total:
        raise PruningError(f"sparsity {sparsity} cannot be met where every layer keeps {least}: ask for less or lower least")
    curves = {n: _curve(found, n, most[n]) for n in sizes}
    low, high = 0.0, 1.0 + max(float(c[1][-1]) for c in curves.values())
    for _ in range(200):
        middle = (low + high) / 2
        reached = sum(_level(curves[n], middle) * sizes[n] for n in sizes) / total
        low, high = (middle, high) if reached < sparsity else (low, middle)
    return {n: min(_level(curves[n], high), most[n]) for n in sizes}


def _curve(found: Scan, name: str, most: float) -> tuple[Tensor, Tensor]:
    """Sparsities and strictly rising increases (points,), from (0, 0) to the most that may go."""
    inside = [(s, i) for s, i in zip(found.levels, found.increases(name), strict=True) if s < most]
    last = inside[-1][1] if inside else 0.0
    end = max(last, found.increases(name)[-1]) + 1.0  # beyond what was tried each further step counts
    points = [(0.0, 0.0), *inside, (most, end)]
    x, y = (torch.tensor(v, dtype=torch.float64) for v in zip(*points, strict=True))
    return x, y + 1e-9 * torch.arange(len(y))  # strictly rising, so that levels that cost nothing are told apart


def _level(curve: tuple[Tensor, Tensor], increase: float) -> float:
    x, y = curve
    i = int(torch.searchsorted(y, torch.tensor(increase, dtype=torch.float64)))
    if i == 0:
        return float(x[0])
    if i == len(y):
        return float(x[-1])
    share = (increase - float(y[i - 1])) / (float(y[i]) - float(y[i - 1]))
    return float(x[i - 1]) + share * (float(x[i]) - float(x[i - 1]))
