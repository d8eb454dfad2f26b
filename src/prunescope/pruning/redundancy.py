"""What each unit of a layer says of the label beyond another one: all pairs at once from counts, and the greedy order over them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from prunescope.information.grid import cells
from prunescope.types import LN2


def spread_over_rest(alone: Tensor, beyond: Callable[[int], Tensor]) -> Tensor:
    """Scores (units,) in bits of the greedy order: each unit's least information beyond one taken before it, when it was its turn.

    alone    I(T_j;Y) of each unit; beyond(s): I(T_j;Y|T_s) of each unit j
    Along the order the scores never rise, so that they rank the units as the order does.

    >>> given = torch.tensor([[0.0, 0.5, 0.75], [0.125, 0.0, 0.25], [0.375, 0.0625, 0.0]])
    >>> spread_over_rest(torch.tensor([0.75, 0.5, 0.5]), lambda s: given[:, s]).tolist()
    [0.75, 0.125, 0.375]
    """
    least, scores = alone.clone(), torch.empty_like(alone)
    left = torch.ones(len(alone), dtype=torch.bool)
    for _ in range(len(alone)):
        best = int(least.masked_fill(~left, -torch.inf).argmax())
        scores[best] = least[best]
        left[best] = False
        if left.any():
            least = torch.minimum(least, beyond(best))
    return scores


def conditional_label_information(values: Tensor, labels: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """I(T_j;Y) (units,) and I(T_j;Y|T_s) (units j, units s) in bits, of values (units, n, 1) in quantile bins and labels (n,).

    Plug-in with the Miller-Madow correction of each entropy: (occupied cells - 1) / 2n. Paninski 2003, eq. 3 and 4.
    """
    units, n = values.shape[:2]
    groups, _ = cells(values, bins=bins, range="quantile")
    codes = torch.as_tensor(groups.ids, dtype=torch.long)
    width = int(codes.max()) + 1
    onehot = torch.zeros(units, width, n, dtype=torch.float32).scatter_(1, codes[:, None], 1.0)
    pairs = torch.zeros(units, width, units, width)
    with_label = _Sums(n)
    singles = _Sums(n)
    for y in labels.unique():
        some = onehot[..., labels == y].flatten(0, 1)
        counts = (some @ some.T).view(units, width, units, width)
        pairs += counts
        with_label.add(counts, (1, 3))
        singles.add(some.sum(1).view(units, width), (1,))
    both = _Sums(n).add(pairs, (1, 3)).entropy()
    own = _Sums(n).add(onehot.sum(2), (1,)).entropy()
    label = _Sums(n).add(labels.unique(return_counts=True)[1][None].float(), (1,)).entropy()
    own_label = singles.entropy()
    alone = (own + label - own_label) / LN2
    given = (both + own_label[None, :] - with_label.entropy() - own[None, :]) / LN2
    return alone, given


class _Sums:
    """The sums that an entropy needs, gathered table by table: of N log N and of occupied cells."""

    def __init__(self, n: int) -> None:
        self.n, self.logs, self.cells = n, torch.zeros(()), torch.zeros(())

    def add(self, counts: Tensor, dims: tuple[int, ...]) -> _Sums:
        self.logs = self.logs + torch.special.xlogy(counts, counts).sum(dims, dtype=torch.float64)
        self.cells = self.cells + (counts > 0).sum(dims)
        return self

    def entropy(self) -> Tensor:
        """Nats, corrected by (cells - 1) / 2n."""
        n = torch.tensor(float(self.n), dtype=torch.float64)
        return n.log() - self.logs / n + (self.cells - 1) / (2 * n)
