"""Fewer columns before estimating, as a step that is named in the result: principal components or a random projection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from prunescope.rng import torch_generator
from prunescope.types import ConfigError, EstimateError


def pca(x: Tensor, *, dimensions: int) -> Tensor:
    """Scores (units of x) of `x` (..., n, d) on its first principal components, (..., n, dimensions); Hotelling 1933.

    Computed from the d x d or the n x n product, whichever is smaller, in float64; signs make each component's largest loading
    positive. Information can only be lost: what the estimator then gives is a lower bound on its value for all columns.
    """
    centred: Tensor = x.double() - x.double().mean(-2, keepdim=True)
    n, d = x.shape[-2:]
    if d <= n:
        axes = torch.linalg.eigh(centred.mT @ centred)[1][..., -dimensions:].flip(-1)
        scores = centred @ (axes * _signs(axes))
    else:
        values, left = torch.linalg.eigh(centred @ centred.mT)
        roots = values[..., -dimensions:].flip(-1).clamp_min(0).sqrt()
        left = left[..., -dimensions:].flip(-1)
        signs = _signs(centred.mT @ left)
        scores = left * roots[..., None, :] * signs
    kept: Tensor = scores.to(x.dtype)
    return kept


def _signs(axes: Tensor) -> Tensor:
    largest = axes.gather(-2, axes.abs().argmax(-2, keepdim=True))
    return torch.where(largest < 0, -1.0, 1.0).to(axes)


def random_projection(x: Tensor, *, dimensions: int, seed: int = 0) -> Tensor:
    """Projection (units of x) of `x` (..., n, d) on random orthonormal directions, (..., n, dimensions).

    The directions depend on d, `dimensions` and the seed alone: every epoch and every network of that width is seen through the same.
    """
    d = x.shape[-1]
    normal = torch.randn(d, dimensions, generator=torch_generator(seed, "projection", d, dimensions), dtype=torch.float64)
    axes: Tensor = torch.linalg.qr(normal)[0]
    return x @ axes.to(x)


def reduced(x: Tensor, step: Any) -> tuple[Tensor, str]:
    """`x` (..., n, d) after the named step, and the step in words; untouched where it has no more columns than asked for.

    step   {"name": "pca" | "random-projection", "dimensions": k}, or None

    >>> reduced(torch.eye(4), {"name": "pca", "dimensions": 2})[1]
    'pca of 4 columns to 2'
    """
    if step is None:
        return x, ""
    known: dict[str, Callable[..., Tensor]] = {"pca": pca, "random-projection": random_projection}
    options = dict(step) if isinstance(step, dict) else {}
    name, dimensions = options.pop("name", None), options.get("dimensions")
    if name not in known or not isinstance(dimensions, int):
        raise ConfigError(f"reduce={step!r}: expected a table with name 'pca' or 'random-projection' and a whole number of dimensions")
    d = x.shape[-1]
    if dimensions < 1:
        raise EstimateError(f"reduce to {dimensions} dimensions: expected at least 1")
    if d <= dimensions:
        return x, ""
    return known[name](x, **options), f"{name} of {d} columns to {dimensions}"
