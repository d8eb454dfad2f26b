"""Norms over fewer channels than there were, whose statistics go on counting the constants that were removed."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CompactNorm(nn.Module):
    """A layer norm (`groups` None), RMS norm or group norm over the channels that were kept, with the statistics of all that there were.

    Of `width` channels the `kept` remain; each group's removed ones held constants that sum to `total` and whose squares sum to `square`.
    Then mean = (sum of the kept + total) / n and variance = (sum of the kept squared + square) / n - mean^2, computed as the sum of the
    kept deviations squared + square - 2 mean total + removed mean^2, over n.
    """

    member: Tensor
    counts: Tensor
    removed: Tensor

    def __init__(
        self, weight: Tensor | None, bias: Tensor | None, eps: float, dim: int, member: Tensor, counts: Tensor, removed: Tensor,
        *, rms: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.weight = None if weight is None else nn.Parameter(weight.detach().clone(), weight.requires_grad)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), bias.requires_grad)
        self.eps, self.dim, self.rms = eps, dim, rms
        self.register_buffer("member", member)  # (kept channels,): the group of each
        self.register_buffer("counts", counts)  # (groups,): places a group had
        self.register_buffer("removed", removed)  # (3, groups): how many went, the sum of what they held, the sum of its squares

    def extra_repr(self) -> str:
        """The number of channels and what there were."""
        return f"{len(self.member)} of {int(self.counts.sum())} channels, {len(self.counts)} groups, eps={self.eps}, rms={self.rms}"

    def forward(self, x: Tensor) -> Tensor:
        """The normalised kept channels, shaped as `x`."""
        return normalised(x, self.weight, self.bias, self.eps, self.dim, self.member, self.counts, self.removed, rms=self.rms)


def normalised(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, dim: int, member: Tensor, counts: Tensor, removed: Tensor,
    *, rms: bool = False,
) -> Tensor:  # fmt: skip
    """`x` normalised over its groups of channels (dimension `dim`: -1 alone, 1 with all positions behind it), as `CompactNorm` says."""
    if dim == -1 and len(counts) == 1:
        return _one_group(x, weight, bias, eps, counts, removed, rms=rms)
    channels = x.movedim(dim, -1)
    positions = list(range(1, channels.ndim - 1)) if dim == 1 else []
    area = 1
    for d in positions:
        area = area * channels.shape[d]
    gone, total, square = removed.to(x.dtype)
    places = counts.to(x.dtype) * area
    spread = torch.nn.functional.one_hot(member, len(counts)).to(x.dtype)  # (kept, groups)

    def summed(values: Tensor) -> Tensor:
        return (values.sum(positions, keepdim=True) if positions else values) @ spread

    mean = torch.zeros_like(channels[..., :1]) if rms else (summed(channels) + area * total) / places
    centred = channels if rms else channels - mean @ spread.T
    rest = square if rms else square - 2 * mean * total + gone * mean**2
    variance = (summed(centred**2) + area * rest) / places
    out = centred * (torch.rsqrt(variance + eps) @ spread.T)
    if weight is not None:
        out = out * weight
    if bias is not None:
        out = out + bias
    return out.movedim(-1, dim)


def _one_group(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, counts: Tensor, removed: Tensor, *, rms: bool
) -> Tensor:
    """The same for one group over the last dimension: torch's own layer norm of the kept channels, set right by a factor and a shift a row.

    With a the mean and v the variance of the m kept channels, mean = (m a + total) / n and the kept deviations squared sum to
    m (v + (a - mean)^2).
    """
    gone, total, square = removed.to(x.dtype)
    number, kept = counts.to(x.dtype), x.shape[-1]
    if rms:
        out = x * torch.rsqrt((x.square().sum(-1, keepdim=True) + square) / number + eps)
    else:
        own, middle, inverse = torch.native_layer_norm(x, [kept], None, None, eps)
        mean = (kept * middle + total) / number
        shift = middle - mean
        variance = (kept * (inverse**-2 - eps + shift**2) + square - 2 * mean * total + gone * mean**2) / number
        scale = torch.rsqrt(variance + eps)
        out = torch.addcmul(shift * scale, own, scale / inverse).to(x.dtype)
    if weight is None:
        return out if bias is None else out + bias
    return out * weight if bias is None else torch.addcmul(bias, out, weight)


def statistics(kept: Tensor, values: Tensor, width: int, groups: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """(group of each kept channel, channels that each group had, (how many went, sum, sum of squares) by group) of a shrunk norm.

    >>> statistics(torch.tensor([0, 3]), torch.tensor([0.0, 2.0, -1.0, 0.0]), 4, None)[2].tolist()
    [[2.0], [1.0], [5.0]]
    """
    number = groups or 1
    owner = torch.arange(width) // (width // number)
    gone = torch.ones(width, dtype=torch.float64).index_fill(0, kept, 0.0)
    values = values.double()
    sums = [torch.zeros(number, dtype=torch.float64).index_add(0, owner, v * gone) for v in (torch.ones_like(gone), values, values**2)]
    return owner[kept], torch.full((number,), float(width // number), dtype=torch.float64), torch.stack(sums)
