"""Which tensors of a model can be pruned, and what belongs to each: its output dimension, bias and normalisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import nn

from prunescope.pruning.structure import CONVOLUTIONS, NORMS, Structure, structure
from prunescope.registry import unknown
from prunescope.types import ConfigError, PruningError


@dataclass(frozen=True)
class Target:
    """A prunable weight: its state-dict name, its tensor, the dimension of its output units, and the tensors that go with a unit.

    `kind` is "linear", "convolution" or "other" (recurrent and attention weights, bare parameters: no single dimension holds their units).
    `groups` is that of a grouped convolution, whose output o sees the input channels of its own group alone.
    """

    name: str
    parameter: nn.Parameter
    out_dim: int
    kind: str
    output: bool
    companions: tuple[str, ...]
    groups: int = 1

    @property
    def in_dim(self) -> int:
        """The dimension of the inputs: of a grouped convolution those of one group."""
        return 1 - self.out_dim


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Floating weights with at least two dimensions, by state-dict name; normalisations and embeddings are not among them.

    Bare parameters of the user's own modules and the packed projections of attention are; shared tensors appear once.
    """
    passed_over = {id(p) for m in model.modules() if isinstance(m, (*NORMS, nn.Embedding)) for p in m.parameters(recurse=False)}
    found = {n: p for n, p in model.named_parameters() if p.ndim >= 2 and p.is_floating_point() and id(p) not in passed_over}
    if quantised := _quantised(model):
        raise PruningError(f"{quantised} is quantised, and a mask needs floating weights: prune first, quantise afterwards")
    if meta := [n for n, p in found.items() if p.is_meta]:
        raise PruningError(f"{meta[0]} is on the meta device and has no values: load the weights before pruning")
    return found


def _quantised(model: nn.Module) -> str | None:
    """The first weight that is stored as integers or packed, by name."""
    for name, module in model.named_modules():
        if hasattr(module, "_packed_params"):
            return f"{name}.weight" if name else "weight"
    for name, p in model.named_parameters():
        packed = type(p.data).__module__.startswith("torchao") or p.is_quantized or (p.is_floating_point() and p.element_size() == 1)
        if p.ndim >= 2 and (packed or (not p.is_floating_point() and not p.is_complex() and name.endswith("weight"))):
            return name
    return None


def targets(
    model: nn.Module, *, layers: Sequence[str] | None = None, exclude: Sequence[str] = (), output: bool = False, units: bool = True
) -> list[Target]:
    """The weights that pruning may touch.

    layers   name patterns of the ones wanted (None: all), exclude: patterns of those left alone; "fc2", "fc2.weight" and "fc*" all work.
    output   whether the layer that gives the network's output may be pruned too; one that `layers` names literally may always be.
    units    False: no norm is looked for, as single weights take none along; with output=True the network need then not be traced
    """
    found = prunable(model)
    if not found:
        raise PruningError(f"{type(model).__name__} has nothing to prune: no floating weight with two or more dimensions outside norms")
    known = _all_names(model, found)
    for pattern in (*(layers or ()), *exclude):
        if not any(_fits(known[name], pattern) for name in found):
            raise ConfigError(unknown("layer", pattern, [n.removesuffix(".weight") for n in found]))
    shape = structure(model, [owner(n) for n in found]) if units or not output else Structure(frozenset(), {}, traced=False)
    names = dict(model.named_parameters())
    chosen = [
        _target(model, name, names, shape)
        for name in found
        if not any(_fits(known[name], p) for p in exclude)
        and (layers is None or any(_fits(known[name], p) for p in layers))
        and (output or not _is_output(model, name, shape) or any(n in layers or owner(n) in layers for n in known[name] if layers))
    ]
    if not chosen:
        raise PruningError(
            f"nothing is left to prune: all of {', '.join(found)} are excluded, or exempt as the output layer (output=True includes it)"
        )
    return chosen


def _all_names(model: nn.Module, found: dict[str, nn.Parameter]) -> dict[str, list[str]]:
    """Every name of each weight: a tied one is listed under its first, and its layer may be meant by any."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {name: names[id(p)] for name, p in found.items()}


def _fits(names: Sequence[str], pattern: str) -> bool:
    return any(fits(name, pattern) for name in names)


def _is_output(model: nn.Module, name: str, shape: Structure) -> bool:
    """A linear layer or convolution whose values leave the network; a recurrent or attention block is never a mere output layer."""
    return owner(name) in shape.outputs and _kind(model.get_submodule(owner(name))) != "other"


def fits(name: str, pattern: str) -> bool:
    """Whether a parameter ("fc2.weight") is meant by `pattern`: its own name, its module's ("fc2"), or a wildcard ("fc*").

    >>> fits("fc2.weight", "fc2"), fits("fc2.weight", "fc*"), fits("fc2.weight", "fc")
    (True, True, False)
    """
    module = name.rpartition(".")[0]
    return fnmatchcase(name, pattern) or fnmatchcase(module, pattern)


def owner(name: str) -> str:
    """The module that a parameter belongs to: "fc2" for "fc2.weight"."""
    return name.rpartition(".")[0]


def biases(model: nn.Module) -> dict[str, nn.Parameter]:
    """The biases of the layers that own a prunable weight, by state-dict name."""
    owners = {owner(name) for name in prunable(model)}
    return {n: p for n, p in model.named_parameters() if p.ndim == 1 and owner(n) in owners and "bias" in n.rpartition(".")[2]}


def _target(model: nn.Module, name: str, names: Mapping[str, nn.Parameter], shape: Structure) -> Target:
    place, parameter = owner(name), names[name]
    module = model.get_submodule(place)
    transposed = isinstance(module, nn.modules.conv._ConvTransposeNd) or type(module).__name__ == "Conv1D"  # GPT-2 stores (in, out)
    out_dim = 1 if transposed else 0
    units = parameter.shape[out_dim]
    companions = [f"{place}.bias" if place else "bias"] if isinstance(getattr(module, "bias", None), torch.Tensor) else []
    if place in shape.norms:
        norm = shape.norms[place]
        companions += [f"{norm}.{n}" for n, p in model.get_submodule(norm).named_parameters(recurse=False) if p.shape == (units,)]
    fitting = tuple(c for c in companions if c in names and names[c].shape == (units,))
    return Target(name, parameter, out_dim, _kind(module), place in shape.outputs, fitting, getattr(module, "groups", 1))


def _kind(module: nn.Module) -> str:
    if isinstance(module, CONVOLUTIONS) and not (isinstance(module, nn.modules.conv._ConvTransposeNd) and module.groups > 1):
        return "convolution"
    return "linear" if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D" else "other"
