"""Coupling: which channels of a network go together, from its graph, for granularities and for making networks smaller."""

from __future__ import annotations

from typing import Any

from torch import nn

from prunescope.pruning.coupling.branches import Branch, branches
from prunescope.pruning.coupling.families import Coupling, Family, Part, families
from prunescope.pruning.coupling.trace import Trace, trace
from prunescope.pruning.coupling.walk import Walk

__all__ = ["Branch", "Coupling", "Family", "Part", "Trace", "branches", "couple", "trace"]


def couple(model: nn.Module, example_inputs: Any) -> Coupling:
    """The coupled channels of `model`, from a trace of its forward pass on `example_inputs` (a tensor, a tuple, or a mapping of keywords).

    The model is traced in evaluation mode with fake tensors and left as it was. PruningError where it cannot be traced. A `Coupling` of
    this model instead of inputs is returned as it is: whoever prunes often traces once and hands it to `prune(example_inputs=...)`.

    >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> [(f.name, f.pieces, [(p.tensor, p.dim) for p in f.parts]) for f in couple(net, __import__("torch").zeros(1, 3)).families]
    [('0.weight', 4, [('0.weight', 0), ('0.bias', 0), ('2.weight', 1)])]
    """
    if isinstance(example_inputs, Coupling):
        return example_inputs
    walk = Walk(trace(model, example_inputs), model)
    walk.go()
    free, frozen, sets = families(walk.ledger, walk.trace)
    return Coupling(tuple(free), tuple(frozen), walk.trace, walk.values, sets, walk.ledger)
