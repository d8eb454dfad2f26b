"""Information of a layer with Gaussian noise (nats): the pairwise bounds on a mixture's entropy, in tiles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from prunescope.information.discrete import label_entropy
from prunescope.information.partition import float32_products_exact
from prunescope.information.raw import Raw
from prunescope.information.reference import Reference
from prunescope.registry import estimators
from prunescope.types import EstimateError

TILE = 512
FEW = 1 << 21  # numbers gathered at a time where only few pairs of a tile matter
NEGLIGIBLE = 45.0  # exp(-45) beside a sample's own term of 1 is lost in float64's rounding of any sum that matters
EXACT_ENOUGH = 2e-3  # largest error of an exponent that float32 distances may have; above, float64 is used

Bound = Literal["upper", "lower"]


@dataclass(frozen=True)
class KernelSums:
    """Sums over all samples, and over those of the same class, of exp(-KL) and exp(-Bhattacharyya) between the components (n,) each.

    Samples are sorted by class; `sizes` are the classes' numbers of samples.
    """

    kl: Tensor
    kl_within: Tensor
    bhattacharyya: Tensor
    bhattacharyya_within: Tensor
    sizes: Tensor

    def information(self, bound: Bound) -> float:
        """I(X; T + noise) in nats: -mean log(sum / n), from KL an upper, from Bhattacharyya a lower bound."""
        sums = self.kl if bound == "upper" else self.bhattacharyya
        return float(-(sums / len(sums)).log().mean())

    def given_label(self, bound: Bound) -> float:
        """I(X; T + noise | Y) in nats, the same mean inside the classes weighted by their share."""
        sums = self.kl_within if bound == "upper" else self.bhattacharyya_within
        own = torch.repeat_interleave(self.sizes, self.sizes)
        return float(-(sums / own).log().mean())


def kernel_sums(x: Tensor, labels: Tensor | None, variance: float, *, tile: int = TILE) -> KernelSums:
    """Pairwise kernel sums (unitless) of `x` (n, d) under Gaussian noise of `variance`, one Gram product for everything.

    Columns are centred in float64 first. A float32 product finds the pairs that matter. Where these are few their distances are
    computed in float64; else the tile is, in float32 for float32 input whose exponents then err by less than 0.002, or in
    float64. Sums are float64. Memory: the samples and a few tiles, whatever n is.
    """
    n = len(x)
    labels = torch.zeros(n, dtype=torch.int64) if labels is None else labels.cpu()
    labels, order = labels.sort(stable=True)
    _, sizes = labels.unique_consecutive(return_counts=True)
    z = x.detach()[order.to(x.device)].to(torch.float64, copy=True)
    z.sub_(z.mean(0)).div_(math.sqrt(8 * variance))
    pairs = _Pairs.of(z, labels.to(x.device), x.dtype == torch.float64, [0, *sizes.cumsum(0).tolist()])
    for rows, cols in _tiles(n, tile):
        pairs.add(rows, cols)
    kl, kl_within, weak, weak_within = pairs.sums
    return KernelSums(kl, kl_within, weak, weak_within, sizes.to(x.device))


def _tiles(n: int, tile: int) -> Iterator[tuple[slice, slice]]:
    starts = range(0, n, tile)
    return ((slice(i, min(i + tile, n)), slice(j, min(j + tile, n))) for i in starts for j in starts if j >= i)


@dataclass(frozen=True)
class _Pairs:
    """Scaled samples sorted by class, in both precisions, and the four sums (4, n) that tiles are added to."""

    exact: Tensor
    quick: Tensor
    norms: Tensor
    labels: Tensor
    ends: list[int]
    error: float  # largest error of a float32 exponent
    quick_enough: bool
    sums: Tensor

    @staticmethod
    def of(z: Tensor, labels: Tensor, wide: bool, ends: list[int]) -> _Pairs:
        norms = z.square().sum(1)
        error = 16 * float(norms.max()) * torch.finfo(torch.float32).eps
        sums = torch.ones(4, len(z), dtype=torch.float64, device=z.device)  # every sample's own term
        quick = z.float() if float32_products_exact() else z
        return _Pairs(z, quick, norms, labels, ends, error, not wide and error < EXACT_ENOUGH, sums)

    def add(self, rows: slice, cols: slice) -> None:
        """Adds the pairs of one tile to the sums of their rows and columns."""
        exponent = self._exponents(self.quick, rows, cols)
        close = exponent > -(NEGLIGIBLE + self.error)
        count = int(close.sum())
        if count == 0:
            return
        if count * 32 < close.numel():
            i, j = close.nonzero(as_tuple=True)
            self._add_few(i + rows.start, j + cols.start, twice=rows != cols)
            return
        if not self.quick_enough:
            exponent = self._exponents(self.exact, rows, cols)
        self._add_all(exponent.clamp_(-80.0, 0.0).exp_(), rows, cols)

    def _exponents(self, z: Tensor, rows: slice, cols: slice) -> Tensor:
        """-|z_i - z_j|^2 of a tile, -inf on the diagonal."""
        lengths = (self.norms[rows, None] + self.norms[None, cols]).to(z.dtype)
        exponent = torch.addmm(lengths, z[rows], z[cols].mT, beta=-1, alpha=2)
        return exponent.fill_diagonal_(-math.inf) if rows == cols else exponent

    def _add_few(self, i: Tensor, j: Tensor, *, twice: bool) -> None:
        step = max(1, FEW // self.exact.shape[1])
        for k in range(0, len(i), step):
            a, b = i[k : k + step], j[k : k + step]
            weak = (self.exact[a] - self.exact[b]).square_().sum(1).neg_().exp_()
            same = (self.labels[a] == self.labels[b]).double()
            strong = weak.square().square_()  # KL is four times Bhattacharyya between Gaussians of one covariance
            for into, values in zip(self.sums, (strong, strong * same, weak, weak * same), strict=True):
                into.index_add_(0, a, values)
                if twice:
                    into.index_add_(0, b, values)

    def _add_all(self, weak: Tensor, rows: slice, cols: slice) -> None:
        """Adds a whole tile; kernels below 1e-35 are raised to it, since denormal numbers would take ten times as long."""
        shared = _shared_classes(self.ends, rows, cols)
        _add_kernel(self.sums[2:], weak, rows, cols, shared)
        _add_kernel(self.sums[:2], weak.clamp_min_(1e-9).square_().square_(), rows, cols, shared)


def _add_kernel(sums: Tensor, kernel: Tensor, rows: slice, cols: slice, shared: list[tuple[slice, slice]]) -> None:
    for into, parts in ((sums[0], [(rows, cols)]), (sums[1], shared)):
        for r, c in parts:
            part = kernel[r.start - rows.start : r.stop - rows.start, c.start - cols.start : c.stop - cols.start]
            into[r] += part.sum(1)
            if rows != cols:
                into[c] += part.sum(0)


def _shared_classes(ends: list[int], rows: slice, cols: slice) -> list[tuple[slice, slice]]:
    """The blocks of a tile whose two samples are of the same class."""
    blocks = []
    for low, high in itertools.pairwise(ends):
        r = slice(max(low, rows.start), min(high, rows.stop))
        c = slice(max(low, cols.start), min(high, cols.stop))
        if r.start < r.stop and c.start < c.stop:
            blocks.append((r, c))
    return blocks


def noise_variance(t: Tensor, noise: float, relative: bool) -> float:
    """Variance of the assumed noise (square units of t): as given, or as a share of the mean variance of t's columns."""
    if not (noise > 0 and math.isfinite(noise)):
        raise EstimateError(f"noise={noise!r}: expected a positive variance, such as 0.001 for activations in [-1, 1]")
    scale = float(t.double().var(0, correction=0).mean()) if relative else 1.0
    if scale == 0:
        raise EstimateError("relative noise: expected activations that vary, got constant ones; give an absolute variance")
    return noise * scale


def _finite(t: Tensor) -> None:
    bad = int((~torch.isfinite(t)).sum())
    if bad:
        raise EstimateError(f"activations: expected finite numbers, got {bad} NaN or infinite ones; drop or mend those samples")


def kde_plane(
    t: Tensor, ref: Reference, *, noise: float = 1e-3, relative: bool = False, bound: Bound = "upper", tile: int = TILE
) -> dict[str, Raw]:
    """I(X; T + noise) and I(T + noise; Y) (nats) of a layer `t` (B, n, d) of a deterministic network, both bounds in `detail`."""
    _finite(t)
    other: Bound = "lower" if bound == "upper" else "upper"
    found = [kernel_sums(one, ref.labels, noise_variance(one, noise, relative), tile=tile) for one in t]
    kind = "of the layer's variance" if relative else "variance"
    text = f"Gaussian noise of {noise:g} {kind}, {bound} bound"
    known = min(math.log(ref.n), ref.input_entropy)

    def raw(name: str, ceiling: float) -> Raw:
        value = {b: [_value(sums, name, b) for sums in found] for b in ("upper", "lower")}
        detail = {"resolution": text, other: value[other] if len(t) > 1 else value[other][0]}
        return Raw(torch.tensor(value[bound], dtype=torch.float64), None, ceiling, (), detail)

    return {"mi_label": raw("mi_label", min(known, ref.label_entropy)), "mi_input": raw("mi_input", known)}


def _value(sums: KernelSums, name: str, bound: Bound) -> float:
    return sums.information(bound) - (sums.given_label(bound) if name == "mi_label" else 0.0)


@estimators(
    "kde",
    source="Kolchinsky & Tracey 2017, eq. 13 (KL, upper) and eq. 14 (Bhattacharyya, lower); plane as Saxe et al. 2018, app. C",
    x="continuous",
    y="discrete",
    symmetric=False,
    invariant=("shift", "permutation", "rotation"),
    batched=True,
    consistent=False,
    quantities=("mi",),
    plane=kde_plane,
)
def kde(
    x: Tensor, y: Tensor, *, noise: float = 1e-3, relative: bool = False, bound: Bound = "upper", tile: int = TILE
) -> Raw:
    """Mutual information (nats) of x + Gaussian noise with labels y: entropy bound of the mixture minus those of its classes.

    x (..., n, d), y (..., n) int64. H(T) = -mean_i log mean_j exp(-D_ij) + const with D = |x_i - x_j|^2 / 2s^2 (bound="upper", from
    KL) or / 8s^2 ("lower", Bhattacharyya). A difference of two bounds of one kind is what the literature plots, and no bound itself;
    `detail["rigorous"]` is the interval between the two that are (upper minus lower, lower minus upper).
    Fails: the value follows the noise variance assumed; for noise far below the samples' distances it is H(Y) whatever the
    dependence ("saturated"). Source: Kolchinsky & Tracey 2017, eq. 13 (KL, upper) and eq. 14 (Bhattacharyya, lower); plane as Saxe et
    al. 2018, app. C. See docs/science/estimators/kde.md#kde. Errors: EstimateError for a variance that is not positive.

    >>> far = torch.tensor([[0.0], [0.0], [9.0], [9.0]])
    >>> round(float(kde(far, torch.tensor([0, 0, 1, 1]), noise=0.1).value) / math.log(2), 9)
    1.0
    """
    shape = x.shape[:-2]
    each = list(zip(x.reshape(-1, *x.shape[-2:]), y.expand(*shape, y.shape[-1]).reshape(-1, y.shape[-1]), strict=True))
    found = [kernel_sums(t, labels, noise_variance(t, noise, relative), tile=tile) for t, labels in each]
    value = torch.tensor([_value(s, "mi_label", bound) for s in found], dtype=torch.float64).reshape(shape)
    high = [s.information("upper") - s.given_label("lower") for s in found]
    low = [s.information("lower") - s.given_label("upper") for s in found]
    ceiling = torch.tensor([label_entropy(labels) for _, labels in each], dtype=torch.float64).reshape(shape)
    rigorous = (low[0], high[0]) if len(found) == 1 else tuple(zip(low, high, strict=True))
    return Raw(value, None, ceiling, (), {"rigorous": rigorous, "rigorous_unit": "nats"})
