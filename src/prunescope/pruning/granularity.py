"""Granularity: what is removed as one piece. A granularity makes groups of pieces from the targets.

Trait `kinds` names the kinds of layers that it fits; trait `coupled` says that it takes the whole model (`coupling.py`): its function then
gets `model` and `example_inputs` and returns the groups of all targets; else it gets one target and returns that layer's group.
Keyword-only parameters are options of the user's.
"""

from __future__ import annotations

from prunescope.pruning.groups import Group, layer_group
from prunescope.pruning.layouts import Spans
from prunescope.pruning.targets import Target
from prunescope.registry import granularities


@granularities("weight", source="single connections: LeCun et al. 1989", kinds=("linear", "convolution", "other"))
def weight(target: Target) -> Group:
    """Every weight by itself: no dimension is spanned."""
    return layer_group(target, Spans(()))


@granularities("neuron", source="output units: Li et al. 2017, arXiv:1608.08710", kinds=("linear", "convolution"))
def neuron(target: Target) -> Group:
    """Output units of linear layers and convolutions: a neuron's incoming weights, a filter; other layers are left alone."""
    return layer_group(target, Spans(tuple(d for d in range(target.parameter.ndim) if d != target.out_dim)), unit=True)


@granularities("filter", source="filters: Li et al. 2017, arXiv:1608.08710", kinds=("convolution",))
def filter_(target: Target) -> Group:
    """Filters of convolutions; layers of other kinds are left alone."""
    return neuron(target)
