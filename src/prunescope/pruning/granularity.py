"""Granularity: what is removed as one piece. A granularity names the dimensions of a weight that a piece spans."""

from __future__ import annotations

from torch import Tensor

from prunescope.pruning.targets import Target
from prunescope.registry import granularities
from prunescope.types import ConfigError


@granularities("weight", source="single connections: LeCun et al. 1989", kinds=("linear", "convolution", "other"))
def weight(target: Target) -> tuple[int, ...]:
    """Every weight by itself: no dimension is spanned."""
    return ()


@granularities("neuron", source="output units: Li et al. 2017, arXiv:1608.08710", kinds=("linear", "convolution"))
def neuron(target: Target) -> tuple[int, ...]:
    """Output units of linear layers and convolutions: a neuron's incoming weights, a filter; other layers are left alone."""
    return tuple(d for d in range(target.parameter.ndim) if d != target.out_dim)


@granularities("filter", source="filters: Li et al. 2017, arXiv:1608.08710", kinds=("convolution",))
def filter_(target: Target) -> tuple[int, ...]:
    """Filters of convolutions; layers of other kinds are left alone."""
    return neuron(target)


def piece_scores(scores: Tensor, spans: tuple[int, ...], *, how: str, norm: str) -> Tensor:
    """Scores of the pieces, flattened in index order: (pieces,).

    how="norm" reduces the scores over the spanned dimensions by `norm` ("l1": sum of absolute values, "l2": root of the sum of squares);
    how="draw" takes the first one (for scores that are random numbers, whose norm would not be uniform).
    """
    if not spans:
        return scores.flatten()
    if how == "draw":
        for d in sorted(spans, reverse=True):
            scores = scores.select(d, 0)
        return scores.flatten()
    if norm == "l1":
        return scores.abs().sum(spans).flatten()
    if norm == "l2":
        return scores.square().sum(spans).sqrt().flatten()
    raise ConfigError(f"norm {norm!r}: expected l1 or l2")


def expand(kept: Tensor, target: Target, spans: tuple[int, ...]) -> Tensor:
    """The mask of the whole weight from that of its pieces: boolean, shape of the weight."""
    shape = [1 if d in spans else size for d, size in enumerate(target.parameter.shape)]
    return kept.view(shape).expand(target.parameter.shape).contiguous()
