"""Criteria of what units give: share of zeros, mean and variance of their activations."""

from __future__ import annotations

from torch import Tensor

from prunescope.pruning.signals.units import UnitStatistics
from prunescope.registry import criteria
from prunescope.types import PruningError


@criteria("apoz", needs=("unit_statistics",), source="Hu et al. 2016, arXiv:1607.03250, eq. 1", level="unit")
def apoz(weight: Tensor, unit_statistics: UnitStatistics) -> Tensor:
    """Share of a unit's activations that are not zero (1 - APoZ), in [0, 1], (units,); of convolutions over samples and positions.

    PruningError where no activation function follows the layer: there are then no zeros to count.

    >>> import torch
    >>> s = torch.tensor([0.25, 1.0])
    >>> apoz(torch.ones(2, 2), UnitStatistics(s, s, s, zeros=s, activated=True)).tolist()
    [0.75, 0.0]
    """
    if not unit_statistics.activated:
        raise PruningError(
            f"criterion 'apoz': no activation function follows {unit_statistics.name}, so no zeros can be counted: "
            "exclude the layer, or choose activation-mean or activation-variance"
        )
    return 1 - unit_statistics.zeros


@criteria("activation-mean", needs=("unit_statistics",), source="Molchanov et al. 2017, arXiv:1611.06440, sec. 2.2", level="unit")
def activation_mean(weight: Tensor, unit_statistics: UnitStatistics) -> Tensor:
    """Mean size of a unit's activation, in the activation's unit, (units,): the paper's mean for ReLU, and fair to negative values.

    >>> import torch
    >>> s = torch.tensor([0.25, 1.0])
    >>> activation_mean(torch.ones(2, 2), UnitStatistics(-s, s, s, s, True)).tolist()
    [0.25, 1.0]
    """
    return unit_statistics.size


@criteria("activation-variance", needs=("unit_statistics",), source="Polyak & Wolf 2015 (channel variance)", level="unit")
def activation_variance(weight: Tensor, unit_statistics: UnitStatistics) -> Tensor:
    """Variance of a unit's activation over samples and positions, squared unit of the activation, (units,): 0 for a constant unit.

    >>> import torch
    >>> s = torch.tensor([0.25, 1.0])
    >>> activation_variance(torch.ones(2, 2), UnitStatistics(s, s, s * 2, s, True)).tolist()
    [0.5, 2.0]
    """
    return unit_statistics.variance
