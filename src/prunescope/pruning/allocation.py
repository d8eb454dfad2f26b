"""Allocation: how many pieces each layer gives up for an overall sparsity. Pure functions from scores to counts."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from torch import Tensor

from prunescope.pruning.select import smallest_together
from prunescope.registry import allocations, unknown
from prunescope.types import ConfigError, PruningError

Scores = Mapping[str, Tensor]


@allocations("uniform", source="the same fraction of every layer (layer-wise)")
def uniform(scores: Scores, sparsity: float) -> dict[str, int]:
    """round(sparsity * pieces) of every layer, in pieces."""
    return {name: round(sparsity * s.numel()) for name, s in scores.items()}


@allocations("global", source="one ranking over all layers: Han et al. 2015; Blalock et al. 2020, arXiv:2003.03033")
def global_(scores: Scores, sparsity: float) -> dict[str, int]:
    """The smallest round(sparsity * all pieces) of one ranking over all layers, in pieces per layer."""
    return smallest_together(scores, round(sparsity * sum(s.numel() for s in scores.values())))


@allocations("table", source="a sparsity for each layer, by hand", needs=("table",))
def table(scores: Scores, sparsity: float, table: Mapping[str, float]) -> dict[str, int]:
    """round(table[pattern] * pieces) of every layer that a name pattern fits, 0 of the others, in pieces."""
    owner: dict[str, str] = {}
    for pattern in table:
        fitting = [n for n in scores if fits(n, pattern)]
        if not fitting:
            raise ConfigError(f"table: {unknown('layer', pattern, list(scores))}")
        owner |= dict.fromkeys(fitting, pattern)
    return {name: round(table[owner[name]] * s.numel()) if name in owner else 0 for name, s in scores.items()}


def fits(name: str, pattern: str) -> bool:
    """Whether a parameter ("fc2.weight") is meant by `pattern`: its own name, its module's ("fc2"), or a wildcard ("fc*").

    >>> fits("fc2.weight", "fc2"), fits("fc2.weight", "fc*"), fits("fc2.weight", "fc")
    (True, True, False)
    """
    module = name.rpartition(".")[0]
    return fnmatchcase(name, pattern) or fnmatchcase(module, pattern)


def checked_counts(counts: Mapping[str, int], scores: Scores, *, allow_empty: bool) -> Mapping[str, int]:
    """`counts`, refused when a layer would lose its last piece and nobody said that it may."""
    emptied = [f"{name} ({scores[name].numel()})" for name, c in counts.items() if c >= scores[name].numel() > 0]
    if emptied and not allow_empty:
        raise PruningError(
            f"nothing would be left of {', '.join(emptied)}: lower the sparsity, exclude the layer, or set allow_empty to permit it"
        )
    return counts
