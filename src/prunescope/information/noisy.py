"""Noisy networks (nats): noise added to every layer makes I(X; T) finite, and sampling the noise estimates it."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Generator, Tensor

from prunescope.information.discrete import label_entropy
from prunescope.information.kernel import EXACT_ENOUGH, noise_variance
from prunescope.information.partition import float32_products_exact
from prunescope.information.raw import Raw
from prunescope.information.reference import Reference
from prunescope.registry import estimators
from prunescope.rng import torch_generator
from prunescope.types import EstimateError

TILE = 512
DRAWN = 512  # noisy samples whose noise is drawn at a time: a number of its own, so that the tile's size does not change the draws
SMALLEST = 1e-30  # share of the largest term below which float32 may have lost a sum


def _log_densities(t: Tensor, labels: Tensor, variance: float, draws: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """log of the mixture's density over one component's peak at noisy samples: of all components, of the own class, and the noise's own.

    Each is (n * draws,) float64. Distances are float32 for float32 input where the exponents then err by less than 0.002.
    """
    n, d = t.shape
    labels, order = labels.sort(stable=True)
    ends = [0, *labels.unique_consecutive(return_counts=True)[1].cumsum(0).tolist()]
    z = (t.double() - t.double().mean(0))[order] / math.sqrt(2 * variance)
    error = 16 * float(z.square().sum(1).max()) * torch.finfo(torch.float32).eps
    if t.dtype != torch.float64 and error < EXACT_ENOUGH and float32_products_exact():
        z = z.float()
    norms = z.square().sum(1)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, n * draws, DRAWN):
        centres = torch.arange(start, min(start + DRAWN, n * draws)) // draws
        drawn = torch.randn(len(centres), d, generator=generator, dtype=torch.float64).to(z) / math.sqrt(2)
        for centre, noise in zip(centres.split(TILE), drawn.split(TILE), strict=True):
            point = z[centre] + noise
            exponent = torch.addmm(point.square().sum(1)[:, None] + norms[None], point, z.mT, beta=-1, alpha=2)
            parts.append((*_log_means(exponent, centre, ends), -noise.double().square().sum(1)))
    total, within, own = (torch.cat(p) for p in zip(*parts, strict=True))
    return total, within, own


def _log_means(exponent: Tensor, centre: Tensor, ends: list[int]) -> tuple[Tensor, Tensor]:
    """log mean exp over all components and over those of the row's class; rows and components are sorted by class."""
    n = exponent.shape[1]
    within = torch.empty(len(exponent), dtype=torch.float64, device=exponent.device)
    peak = exponent.amax(1)
    weights = (exponent - peak[:, None]).exp_()
    bounds = torch.searchsorted(centre, torch.tensor(ends)).tolist()
    for (low, high), (first, last) in zip(itertools.pairwise(bounds), itertools.pairwise(ends), strict=True):
        if low == high:
            continue
        share = weights[low:high, first:last].sum(1, dtype=torch.float64)
        within[low:high] = peak[low:high].double() + share.log() - math.log(last - first)
        lost = (share < SMALLEST).nonzero()[:, 0] + low  # the own class lies far below the peak: sum it on its own
        within[lost] = torch.logsumexp(exponent[lost, first:last].double(), 1) - math.log(last - first)
    total = peak.double() + weights.sum(1, dtype=torch.float64).log() - math.log(n)
    return total, within


def _information(
    t: Tensor, labels: Tensor, noise: float, draws: int, generator: Generator, relative: bool
) -> dict[str, tuple[float, float]]:
    """I(X; T) and I(T; Y) in nats, each with the standard error of the noise draws."""
    if draws < 1:
        raise EstimateError(f"draws={draws}: expected at least one noise draw for every sample")
    variance = noise_variance(t, noise, relative)
    total, within, own = _log_densities(t, labels.to(t.device), variance, draws, generator)
    found = {"mi_input": own - total, "mi_label": within - total}
    return {name: (float(v.mean()), float(v.std() / math.sqrt(len(v)))) for name, v in found.items()}


def noisy_plane(
    t: Tensor, ref: Reference, *, noise: float = 1e-2, relative: bool = False, draws: int = 1, generator: Generator | None = None
) -> dict[str, Raw]:
    """I(X; T + noise) and I(T + noise; Y) (nats) of a layer t (B, n, d), exact for that noise up to sampling."""
    if not bool(torch.isfinite(t).all()):
        raise EstimateError("activations: expected finite numbers, got NaN or infinite ones; drop or mend those samples")
    generator = generator or torch_generator(0, "noisy")
    found = [_information(one, ref.labels, noise, draws, generator, relative) for one in t]
    text = f"Gaussian noise of {noise:g} {'of the variance' if relative else 'variance'}, {draws} draw{'s' * (draws > 1)} a sample"
    known = min(math.log(ref.n), ref.input_entropy)
    ceilings = {"mi_label": min(known, ref.label_entropy), "mi_input": known}
    return {
        name: Raw(
            torch.tensor([f[name][0] for f in found], dtype=torch.float64),
            torch.tensor([f[name][1] for f in found], dtype=torch.float64),
            ceiling,
            (),
            {"resolution": text},
        )
        for name, ceiling in ceilings.items()
    }


@estimators(
    "noisy",
    source="Goldfeld et al. 2019, eq. 9 to 12 (sample propagation), sec. 5.2 (Monte Carlo integration)",
    x="continuous",
    y="discrete",
    symmetric=False,
    invariant=("shift",),
    batched=False,
    consistent=False,
    quantities=("mi",),
    plane=noisy_plane,
)
def noisy(
    x: Tensor, y: Tensor, *, noise: float = 1e-2, relative: bool = False, draws: int = 1, generator: Generator | None = None
) -> Raw:
    """Mutual information (nats) of x + Gaussian noise of variance `noise` with labels y: mean log p(t | y) / p(t) at noisy samples t.

    x (n, d), y (n,) int64; p are the mixtures of Gaussians around the samples, integrated by `draws` noise draws a sample, whose
    standard error is given. Exact for the samples at hand and that noise. Fails for the population: biased upwards, by a
    constant^d / sqrt n; with noise far below the samples' distances it is H(Y) whatever the dependence ("saturated").
    Source: Goldfeld et al. 2019, eq. 9 to 12 (sample propagation), sec. 5.2 (Monte Carlo integration).
    See docs/science/estimators/noisy.md#noisy. Errors: EstimateError for a variance or a number of draws that is not positive.

    >>> far = torch.tensor([[0.0], [0.0], [9.0], [9.0]])
    >>> round(float(noisy(far, torch.tensor([0, 0, 1, 1])).value) / math.log(2), 9)
    1.0
    """
    value, stderr = _information(x, y, noise, draws, generator or torch_generator(0, "noisy"), relative)["mi_label"]
    return Raw(torch.tensor(value, dtype=torch.float64), torch.tensor(stderr, dtype=torch.float64), label_entropy(y))
