"""Masks of PyTorch's own pruning, both ways.

    torch.nn.utils.prune    a module's `weight` becomes the parameter `weight_orig` and the buffer `weight_mask`
    torch.ao.pruning        a parametrisation of `weight` with a buffer `mask`

Both rename state-dict keys. `from_torch_prune` reads the masks and, where asked, gives the model its own names back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch.nn.utils.prune as torch_prune
from torch import Tensor, nn
from torch.ao.pruning.sparsifier.utils import FakeSparsity
from torch.nn.utils import parametrize

from prunescope.pruning import Masks
from prunescope.registry import unknown
from prunescope.types import ConfigError, PruningError

KINDS = ("nn.utils.prune", "ao.pruning")


def from_torch_prune(model: nn.Module, *, restore: bool = False) -> Masks:
    """The masks that torch.nn.utils.prune or a torch.ao.pruning sparsifier has put on `model`, by the parameters' own names.

    restore   True: the model gets its plain parameters back, masked values zero, and the masks are bound to it. False: the model is left
              as it is, and the masks are for one with plain names (`masks.bind(other)`).

    Raises PruningError where the model carries no such mask.

    >>> layer = nn.Linear(2, 2)
    >>> _ = torch_prune.l1_unstructured(layer, "weight", 0.5)
    >>> int(from_torch_prune(layer, restore=True)["weight"].sum()), sorted(layer.state_dict())
    (2, ['bias', 'weight'])
    """
    found = {f"{place}.{name}" if place else name: (module, name, mask) for place, module, name, mask in _carried(model)}
    if not found:
        raise PruningError(
            f"{type(model).__name__} carries no masks of torch.nn.utils.prune (weight_orig and weight_mask) or of a torch.ao.pruning "
            "sparsifier (a parametrisation with a mask): Masks.from_zeros(model) reads plain zeros"
        )
    masks = Masks({name: mask.clone() for name, (_, _, mask) in found.items()})
    if not restore:
        return masks
    for module, name, _ in found.values():
        if f"{name}_orig" in module._parameters:
            torch_prune.remove(module, name)
        else:
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    return masks.bind(model).apply()


def to_torch_prune(model: nn.Module, masks: Mapping[str, Tensor], *, kind: str = "nn.utils.prune") -> nn.Module:
    """Put `masks` on `model` the way torch.nn.utils.prune ("nn.utils.prune") or torch.ao.pruning ("ao.pruning") does; returns the model.

    Its state-dict keys are theirs from then on, and an optimiser has to be made anew. Raises PruningError where the model lacks a
    parameter, where a mask is there already, or where two modules share the parameter.
    """
    if kind not in KINDS:
        raise ConfigError(unknown("kind of PyTorch's masks", kind, list(KINDS)))
    if carried := [f"{place}.{name}" if place else name for place, _, name, _ in _carried(model)]:
        raise PruningError(f"{carried[0]} carries a mask of PyTorch's already: from_torch_prune(model, restore=True) takes it off first")
    Masks(masks).bind(model)
    owners = _owners(model)
    for name, mask in masks.items():
        if len(owners[name]) > 1:
            raise PruningError(f"{name} is shared by {len(owners[name])} modules: PyTorch's masks would leave the others unpruned")
        module, own = owners[name][0], name.rpartition(".")[2]
        kept = mask.to(module.get_parameter(own).device)
        if kind == "nn.utils.prune":
            torch_prune.custom_from_mask(module, own, kept)
        else:
            parametrize.register_parametrization(module, own, FakeSparsity(kept))
    return model


def _carried(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    """(module's name, module, parameter's name, mask) of every mask of PyTorch's."""
    for place, module in model.named_modules():
        for name in [n.removesuffix("_orig") for n in module._parameters if n.endswith("_orig")]:
            if isinstance(mask := module._buffers.get(f"{name}_mask"), Tensor):
                yield place, module, name, mask.bool()
        if parametrize.is_parametrized(module):
            assert isinstance(module.parametrizations, nn.ModuleDict)
            for name, steps in module.parametrizations.items():
                masks = [mask for m in steps.children() if isinstance(mask := getattr(m, "mask", None), Tensor)]
                if masks:
                    yield place, module, name, _product(masks)


def _product(masks: list[Tensor]) -> Tensor:
    kept = masks[0].bool()
    for mask in masks[1:]:
        kept = kept & mask.bool()
    return kept


def _owners(model: nn.Module) -> dict[str, list[nn.Module]]:
    """The modules that hold each parameter, by its first name."""
    first: dict[int, str] = {id(p): n for n, p in reversed(list(model.named_parameters()))}
    found: dict[str, list[nn.Module]] = {}
    for module in model.modules():
        for p in module.parameters(recurse=False):
            found.setdefault(first[id(p)], []).append(module)
    return found
