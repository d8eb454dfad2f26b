"""Which layers can have int8 weights, and why the others cannot."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Iterator, Sequence

from torch import nn

WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention, nn.Bilinear)
CONVOLUTION = "torchao has no int8 convolution in eager mode"


def chosen(model: nn.Module, exclude: Sequence[str] = ()) -> tuple[list[str], dict[str, str]]:
    """The names of the layers whose weights become int8, and of every other layer with weights why it stays as it is.

    >>> chosen(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 2)))
    (['2'], {'0': 'torchao has no int8 convolution in eager mode'})
    """
    uses = Counter(id(p) for m in model.modules() for p in m.parameters(recurse=False))
    taken, kept = [], {}
    for name, module in _weighted(model):
        if (reason := _reason(name, module, exclude, uses)) is None:
            taken.append(name)
        else:
            kept[name] = reason
    return taken, kept


def _weighted(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        if isinstance(module, WEIGHTED):
            yield name, module


def _reason(name: str, module: nn.Module, exclude: Sequence[str], uses: Counter[int]) -> str | None:
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in exclude):
        return "excluded"
    if isinstance(module, nn.modules.conv._ConvNd):
        return CONVOLUTION
    if type(module) is not nn.Linear:
        return f"torchao makes int8 of nn.Linear, not of {type(module).__name__}"
    if uses[id(module.weight)] > 1:
        return "its weight is shared with another layer, which would keep a copy of its own"
    return None
