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
    terms: Tensor | None

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
        # (3, ..., groups): how many went, the sum of what they held, the sum of its squares; at each position where these differ
        self.register_buffer("removed", removed)
        terms = row_terms(len(member), eps, counts, removed, rms=rms).to(removed) if dim == -1 and len(counts) == 1 else None
        self.register_buffer("terms", terms)

    def extra_repr(self) -> str:
        """The number of channels and what there were."""
        return f"{len(self.member)} of {int(self.counts.sum())} channels, {len(self.counts)} groups, eps={self.eps}, rms={self.rms}"

    def forward(self, x: Tensor) -> Tensor:
        """The normalised kept channels, shaped as `x`."""
        if self.terms is not None:
            return _one_group(x, self.weight, self.bias, self.eps, self.terms, rms=self.rms)
        return normalised(x, self.weight, self.bias, self.eps, self.dim, self.member, self.counts, self.removed, rms=self.rms)


def normalised(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, dim: int, member: Tensor, counts: Tensor, removed: Tensor,
    *, rms: bool = False,
) -> Tensor:  # fmt: skip
    """`x` normalised over its groups of channels (dimension `dim`: -1 alone, 1 with all positions behind it), as `CompactNorm` says."""
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


def row_terms(kept: int, eps: float, counts: Tensor, removed: Tensor, *, rms: bool) -> Tensor:
    """Five numbers that the statistics of one group need beside those of its kept channels; see `_one_group`.

    >>> row_terms(2, 0.5, torch.tensor([4.0]), torch.tensor([[2.0], [6.0], [20.0]]), rms=False).tolist()  # held 2 and 4
    [3.0, 0.5, 0.25, 0.75, 0.5]
    """
    gone, total, square = (t[..., 0].double() for t in removed)
    gone, total, square = (t.unsqueeze(-1) if t.ndim else t for t in (gone, total, square))  # beside a mean of each position
    number = counts[0].double()
    if rms:
        zero = torch.zeros_like(total)
        return torch.stack([zero, zero + 1 / number, zero, square / number + eps, zero])
    mean = total / gone
    spread = (square / gone - mean**2).clamp(min=0.0)
    share = gone / number
    own = torch.full_like(mean, kept) / number
    return torch.stack([mean, own, kept * gone / number**2, share * (spread + eps), share])


def _one_group(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, terms: Tensor, *, rms: bool) -> Tensor:
    """One group over the last dimension: torch's own layer norm of the kept channels, set right by a factor and a shift a row.

    With a and v mean and variance of the m kept channels, and b and w those of the g removed ones, of n: mean = a - g/n (a - b) and
    variance = m/n v + g/n w + m g/n^2 (a - b)^2. The terms are b, m/n, m g/n^2, what of variance + eps no input changes, and g/n.
    """
    held, own_share, between, constant, share = terms.to(x.dtype)
    if rms:
        out = x * torch.rsqrt(torch.addcmul(constant, x.square().sum(-1, keepdim=True), own_share))
        return out if weight is None else out * weight
    own, middle, inverse = torch.native_layer_norm(x, [x.shape[-1]], weight, None, eps)
    apart = middle - held
    scale = torch.rsqrt(torch.addcmul(torch.addcmul(constant, apart * between, apart), own_share, inverse**-2))
    shift = apart * scale * share
    if weight is not None:
        shift = shift * weight if bias is None else torch.addcmul(bias, shift, weight)
    elif bias is not None:
        shift = shift + bias
    whole: Tensor = own * (scale / inverse) + shift
    return whole.to(x.dtype)


def statistics(kept: Tensor, values: Tensor, width: int, groups: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """(group of each kept channel, channels that each group had, (how many went, sum, sum of squares) by group) of a shrunk norm.

    `values` (..., width) may differ between positions; so do the sums (3, ..., groups) then.

    >>> statistics(torch.tensor([0, 3]), torch.tensor([0.0, 2.0, -1.0, 0.0]), 4, None)[2].tolist()
    [[2.0], [1.0], [5.0]]
    """
    number = groups or 1
    owner = torch.arange(width) // (width // number)
    gone = torch.ones(width, dtype=torch.float64).index_fill(0, kept, 0.0)
    values = values.double()
    empty = torch.zeros(*values.shape[:-1], number, dtype=torch.float64)
    sums = [empty.index_add(-1, owner, v * gone) for v in (torch.ones_like(values), values, values**2)]
    return owner[kept], torch.full((number,), float(width // number), dtype=torch.float64), torch.stack(sums)
