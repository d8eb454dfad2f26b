"""Quantised networks (nats): activations are codes of few levels, and the information of a layer can be counted exactly."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prunescope.information.discrete import groups_mi
from prunescope.information.partition import Groups, float_rows, group_keys, integer_rows, joint_entropy
from prunescope.information.raw import Raw
from prunescope.information.reference import Reference, plane_raws
from prunescope.registry import estimators
from prunescope.types import EstimateError


def code_groups(t: Tensor, scale: float | None) -> Groups:
    """Groups of the samples (B, n, d) with equal codes: of integers as they are, of numbers / scale rounded, or of equal numbers."""
    if scale is not None:
        if not (scale > 0 and math.isfinite(scale)):
            raise EstimateError(f"scale={scale!r}: expected the positive step between two levels")
        t = (t / scale).round_().to(torch.int64)
    return group_keys([float_rows(one) if one.is_floating_point() else integer_rows(one) for one in t])


def quantised_plane(t: Tensor, ref: Reference, *, scale: float | None = None, bits: int | None = None) -> dict[str, Raw]:
    """H(T), I(X; T) and I(T; Y) (nats) of a layer's codes t (B, n, d), exact for the samples given. Lorenzen et al. 2022, sec. 3.

    scale   step between levels of fake-quantised activations; without it integer codes, or floating numbers compared exactly
    bits    of the quantisation, for the ceiling d * bits
    """
    if t.is_floating_point() and not bool(torch.isfinite(t).all()):
        raise EstimateError("activations: expected finite numbers, got NaN or infinite ones; drop or mend those samples")
    groups = code_groups(t, scale)
    capacity = math.inf if bits is None else t.shape[-1] * bits * math.log(2)
    kind = "true codes" if scale or not t.is_floating_point() else f"equal {str(t.dtype).removeprefix('torch.')} numbers"
    text = kind + (f" of {bits} bits" if bits else "") + (f", step {scale:g}" if scale else "")
    return plane_raws(
        groups, ref, capacity, lambda a, b: a.entropy() + b.entropy() - joint_entropy(a, b), lambda g: g.entropy(), text
    )


@estimators(
    "quantised",
    source="Lorenzen, Igel & Nielsen 2022, sec. 3 (quantised activations); plug-in, Paninski 2003, eq. 3",
    x="any",
    y="any",
    symmetric=True,
    invariant=("permutation",),
    batched=True,
    consistent=False,
    quantities=("mi",),
    plane=quantised_plane,
    codes=True,
)
def quantised(x: Tensor, y: Tensor, *, scale: float | None = None) -> Raw:
    """Mutual information (nats) of codes: plug-in over equal rows, exact for the empirical distribution of the samples.

    x, y (..., n, d) floating, rounded to multiples of `scale` or compared number by number, or labels (..., n): H(x) + H(y) - H(x, y).
    Fails for the population: with more codes than samples it is log n or H(Y) whatever the dependence ("saturated"); with a scale that is
    not the quantiser's, or numbers that were never quantised, it counts rounding noise.
    Source: Lorenzen, Igel & Nielsen 2022, sec. 3 (quantised activations); plug-in, Paninski 2003, eq. 3.
    See docs/science/estimators/quantised.md#quantised. Errors: EstimateError for a scale that is not positive.

    >>> codes = torch.tensor([[0.0], [0.1], [1.0], [1.1]])
    >>> round(float(quantised(codes, torch.tensor([0, 0, 1, 1]), scale=0.5).value) / math.log(2), 9)
    1.0
    """
    gx, gy = _groups(x, scale), _groups(y, scale)
    shape = x.shape[:-2] if x.is_floating_point() else x.shape[:-1]
    raw = groups_mi(gx, gy, "none", shape)
    return Raw(raw.value, raw.stderr, math.log(gx.n))


def _groups(x: Tensor, scale: float | None) -> Groups:
    if x.is_floating_point():
        return code_groups(x.reshape(-1, *x.shape[-2:]), scale)
    return code_groups(x.reshape(-1, x.shape[-1], 1), None)
