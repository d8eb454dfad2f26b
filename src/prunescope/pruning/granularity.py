"""Granularity: what is removed as one piece. A granularity makes groups of pieces from the targets.

Trait `kinds` names the kinds of layers that it fits, trait `ndim` how many dimensions a weight that is no convolution's must have.
Trait `coupled` says that it follows the network's graph (`coupled.py`): its function then gets `model`, the targets and `example_inputs`
and returns the groups of all targets; else it gets one target and returns that layer's group. Trait `fixed` is the function from the
options to the only sparsity that the granularity can have. Keyword-only parameters are options of the user's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prunescope.pruning.groups import Group, layer_group
from prunescope.pruning.layouts import Spans, Viewed
from prunescope.pruning.targets import Target
from prunescope.registry import Entry, granularities
from prunescope.types import ConfigError, PruningError

MATRICES = ("linear", "other")


@granularities("weight", source="single connections: LeCun et al. 1989", kinds=("linear", "convolution", "other"))
def weight(target: Target) -> Group:
    """Every weight by itself: no dimension is spanned."""
    return layer_group(target, Spans(()))


@granularities("neuron", source="output units: Li et al. 2017, arXiv:1608.08710", kinds=("linear", "convolution"))
def neuron(target: Target) -> Group:
    """Output units of linear layers and convolutions: a neuron's incoming weights, a filter; other layers are left alone."""
    return layer_group(target, _all_but(target, target.out_dim), unit=True)


@granularities("filter", source="filters: Li et al. 2017, arXiv:1608.08710", kinds=("convolution",))
def filter_(target: Target) -> Group:
    """Filters of convolutions; layers of other kinds are left alone."""
    return neuron(target)


@granularities("row", source="rows of a weight matrix: Wen et al. 2016, arXiv:1608.03665, sec. 3", kinds=MATRICES, ndim=2)
def row(target: Target) -> Group:
    """Rows of weight matrices (one output each), packed attention and recurrent ones included; a linear layer's take their bias along."""
    return layer_group(target, _all_but(target, target.out_dim), unit=target.kind == "linear")


@granularities("column", source="columns of a weight matrix: Wen et al. 2016, arXiv:1608.03665, sec. 3", kinds=MATRICES, ndim=2)
def column(target: Target) -> Group:
    """Columns of weight matrices: what all outputs take from one input feature; packed and recurrent ones included."""
    return layer_group(target, _all_but(target, target.in_dim))


@granularities("input-channel", source="input channels: He et al. 2017, arXiv:1707.06168, sec. 3", kinds=("linear", "convolution"))
def input_channel(target: Target) -> Group:
    """Input channels of convolutions and columns of linear layers: what a layer takes from one channel before it."""
    if target.groups == 1 or target.out_dim == 1:
        return layer_group(target, _all_but(target, target.in_dim))
    out, inputs, *kernel = target.parameter.shape  # of a grouped convolution, whose channel feeds the outputs of its group
    view = (target.groups, out // target.groups, inputs, *kernel)
    return layer_group(target, Viewed(tuple(range(target.parameter.ndim)), view, (1, *range(3, len(view)))))


@granularities("block", source="blocks of a matrix: Narang et al. 2017, arXiv:1711.02782", kinds=("linear", "convolution", "other"), ndim=2)
def block(target: Target, *, shape: Sequence[int] = (4, 4)) -> Group:
    """Blocks of `shape` [rows, columns] of the weight matrix: rows are outputs, columns the inputs (of a convolution inputs x kernel)."""
    if len(shape) != 2 or min(shape) < 1:
        raise ConfigError(f"block: shape {list(shape)!r}: expected [rows, columns], both at least 1")
    tall, wide = shape
    outputs = target.parameter.shape[target.out_dim]
    inputs = target.parameter.numel() // outputs
    if outputs % tall or inputs % wide:
        raise PruningError(
            f"block: {tall} x {wide} does not divide {target.name}, a matrix of {outputs} x {inputs}: "
            f"choose another shape, or leave the layer alone with exclude=[{target.name!r}]"
        )
    view = (outputs // tall, tall, inputs // wide, wide)
    return layer_group(target, Viewed(_outputs_first(target), view, (1, 3)))


def _pattern_sparsity(n: int = 2, m: int = 4) -> float:
    if not 1 <= n < m:
        raise ConfigError(f"{n}:{m} is no pattern: expected n:m with 1 <= n < m, such as 2:4")
    return 1 - n / m


@granularities(
    "n:m", source="2:4 and others: Mishra et al. 2021, arXiv:2104.08378, sec. 3", kinds=("linear", "convolution", "other"), ndim=2,
    spelling=r"(?P<n>\d+):(?P<m>\d+)", fixed=_pattern_sparsity,
)  # fmt: skip
def pattern(target: Target, *, n: int = 2, m: int = 4) -> Group:
    """Patterns such as "2:4" (write it as the name): of each m weights in a row along the inputs of an output, the n best are kept."""
    _pattern_sparsity(n, m)
    inputs = target.parameter.shape[target.in_dim]
    if inputs % m:
        raise PruningError(
            f"{n}:{m} does not divide the {inputs} inputs of {target.name}: "
            f"choose another pattern, or leave the layer alone with exclude=[{target.name!r}]"
        )
    first, second, *kernel = _outputs_first(target)
    order = (first, *kernel, second)
    view = tuple(target.parameter.shape[d] for d in order)
    return layer_group(target, Viewed(order, view, ()), pattern=(n, m))


def fixed_sparsity(entry: Entry, options: Mapping[str, Any]) -> float | None:
    """The fraction removed that a granularity with these options always has; None where any sparsity is possible."""
    fixed = entry.traits.get("fixed")
    return None if fixed is None else float(fixed(**options))


def _all_but(target: Target, dim: int) -> Spans:
    return Spans(tuple(d for d in range(target.parameter.ndim) if d != dim))


def _outputs_first(target: Target) -> tuple[int, ...]:
    return (target.out_dim, target.in_dim, *range(2, target.parameter.ndim))
