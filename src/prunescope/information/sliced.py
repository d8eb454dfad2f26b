"""Sliced mutual information (nats): what one-dimensional projections of x and y know of each other, on average over directions."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from prunescope.information.knn import ksg, ross
from prunescope.information.raw import Raw
from prunescope.registry import estimators
from prunescope.rng import torch_generator
from prunescope.types import EstimateError


@estimators(
    "sliced", source="Goldfeld & Greenewald 2021, eq. 2 and sec. 4.1", x="continuous", y="any", symmetric=False, batched=True,
    consistent=False, invariant=("shift",), quantities=("mi",),
)  # fmt: skip
def sliced(x: Tensor, y: Tensor, *, slices: int = 100, k: int = 3, generator: Generator | None = None) -> Raw:
    """Sliced mutual information in nats: the mean of I(a.x; b.y) over directions a and b even on their spheres.

    x (..., n, dx), y (..., n, dy) or labels (..., n), which are not projected. Each of `slices` random pairs of directions is one
    problem of two columns for Kraskov's estimator (Ross's with labels), so the number of columns costs nothing in accuracy. It is 0 just
    where x and y are independent. Fails as a measure of Shannon's information, which it is NOT: it is lower, by the more the more columns
    there are (5 pairs of correlation 0.7: 0.05 of 1.68 nats); a rotation leaves it alone, a change of scale of one column does not.
    Standard error: over the slices, to which the samples' own is added. Errors: fewer than 2 slices.
    Source: Goldfeld & Greenewald 2021, eq. 2 and sec. 4.1. See docs/science/estimators/sliced.md#sliced.
    """
    if slices < 2:
        raise EstimateError(f"sliced: an average over directions needs at least 2 slices, {slices} came")
    draw = generator if generator is not None else torch_generator(0, "sliced")
    batch, labelled = x.shape[:-2], not y.is_floating_point()
    results = []
    for a, b in zip(x.reshape(-1, *x.shape[-2:]), y.reshape(-1, *y.shape[len(batch) :]), strict=True):
        left = _projections(a, slices, draw)
        right = b.expand(slices, -1) if labelled else _projections(b, slices, draw)
        found = ross(left, right, k=k) if labelled else ksg(left, right, k=k)
        between = found.value.std() / math.sqrt(slices)
        within = torch.zeros(()) if found.stderr is None else found.stderr.mean()  # all slices share the samples: it does not average out
        results.append((found.value.mean(), torch.hypot(between.double(), within.double())))
    value, error = (torch.stack([r[i] for r in results]).reshape(batch) for i in (0, 1))
    return Raw(value, error, detail={"quantity": "sliced information, a lower quantity than Shannon's"})


def _projections(values: Tensor, slices: int, generator: Generator) -> Tensor:
    """Values (n, d) along random directions: (slices, n, 1) float64."""
    directions = torch.randn(values.shape[1], slices, dtype=torch.float64, generator=generator)
    centred = values.detach().cpu().double()
    projected: Tensor = (centred - centred.mean(0)) @ (directions / directions.norm(dim=0))
    return projected.T[..., None]
