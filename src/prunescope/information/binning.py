"""Mutual information by binning: activations become cells of a grid, samples in the same cell one symbol."""

from __future__ import annotations

import math
from typing import Any, Literal

from torch import Tensor

from prunescope.information.discrete import Correction, groups_entropy, groups_mi
from prunescope.information.grid import Per, Range, cell_keys, cells
from prunescope.information.partition import Floats, Groups, entropies_with_labels, group_keys, joint_entropy, symbols
from prunescope.information.raw import Raw
from prunescope.information.reference import Reference, plane_raws, plane_values
from prunescope.registry import estimators
from prunescope.types import EstimateError


def binning_plane(
    t: Tensor,
    ref: Reference,
    *,
    bounds: tuple[float, float] | None = None,
    bins: int = 30,
    range: Range | Literal["auto", "given"] = "auto",
    width: float | None = None,
    per: Per = "layer",
    correction: Correction = "none",
) -> dict[str, Raw]:
    """H(T), I(X; T) and I(T; Y) (nats) of a layer's binned activations `t` (B, n, d).

    range   as in `grid`, or "auto": `bounds`, the layer's natural range, where the caller knows one, else the layer's own range;
            "given": `bounds`, an error where there are none
    A deterministic network's I(X; T) is H(T) at this resolution: a statement about the bins.
    """
    if range in ("auto", "given"):
        if range == "given" and bounds is None:
            raise EstimateError("range='given': expected a range for this layer, got none; pass it in `ranges` or use range='data'")
        range = "data" if bounds is None else bounds
    keys, made = cell_keys(t, bins=bins, range=range, width=width, per=per)
    capacity = math.inf if width is not None else t.shape[-1] * math.log(made[0].bins)
    texts = [g.text for g in made]
    if correction == "none" and ref.distinct and (found := entropies_with_labels(keys, ref.label_groups.ids[0])) is not None:
        entropy, both = found
        return plane_values(ref, capacity, entropy, entropy + ref.label_entropy - both, entropy, texts)
    groups = group_keys(keys)

    def h(g: Groups) -> Floats:
        return groups_entropy(g, correction)

    def mi(a: Groups, b: Groups) -> Floats:
        if correction == "none":
            return a.entropy() + b.entropy() - joint_entropy(a, b)
        value: Floats = groups_mi(a, b, correction, (len(a.ids),)).value.numpy()
        return value

    return plane_raws(groups, ref, capacity, mi, h, texts)


@estimators(
    "binning",
    source="Shwartz-Ziv & Tishby 2017, sec. 3.1 (equal bins); plug-in entropy, Paninski 2003, eq. 3",
    x="any",
    y="any",
    symmetric=True,
    invariant=("shift", "scale", "permutation"),
    batched=True,
    consistent=False,
    quantities=("mi",),
    plane=binning_plane,
)
def binning(
    x: Tensor,
    y: Tensor,
    *,
    bins: int = 30,
    range: Range = "data",
    width: float | None = None,
    per: Per = "layer",
    correction: Correction = "none",
) -> Raw:
    """Mutual information (nats) of the binned variables, H(X) + H(Y) - H(X, Y) over the cells that samples fall in.

    x, y: (..., n, d) floating, binned by one grid each, or (..., n) labels, taken as they are.
    Fails: with bins^d cells above about n / 10 it tends to log n whatever the dependence (see the "saturated" flag), with few bins it
    misses detail finer than a bin; the value speaks about this resolution, never about the continuous variables.
    Source: Shwartz-Ziv & Tishby 2017, sec. 3.1 (equal bins); plug-in entropy, Paninski 2003, eq. 3.
    See docs/science/estimators/binning.md#binning. Errors: EstimateError for a grid that cannot be made.

    >>> import torch
    >>> t = torch.tensor([[-0.9], [-0.8], [0.8], [0.9]])
    >>> round(float(binning(t, torch.tensor([0, 0, 1, 1]), bins=2, range=(-1.0, 1.0)).value) / math.log(2), 12)
    1.0
    """
    options = {"bins": bins, "range": range, "width": width, "per": per}
    (gx, tx), (gy, ty) = (_binned(v, options) for v in (x, y))
    text = tx or ty
    ceiling = min(math.log(gx.n), *(_capacity(v, g, bins, width) for v, g in ((x, gx), (y, gy))))
    raw = groups_mi(gx, gy, correction, x.shape[:-2] if x.is_floating_point() else x.shape[:-1])
    return Raw(raw.value, raw.stderr, ceiling, raw.flags, {**raw.detail, "resolution": text})


def _binned(x: Tensor, options: dict[str, Any]) -> tuple[Groups, str]:
    if not x.is_floating_point():
        return symbols(x), ""
    groups, made = cells(x, **options)
    return groups, made[0].text


def _capacity(x: Tensor, groups: Groups, bins: int, width: float | None) -> float:
    """Largest entropy in nats that the cells of one variable can hold."""
    if not x.is_floating_point():
        return float(groups.entropy().max())
    return math.inf if width is not None else x.shape[-1] * math.log(bins)
