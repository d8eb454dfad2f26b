"""Models inside wrappers: compiled, data-parallel, sharded. Masks go by the names of the model that was wrapped."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

COMPILED = "_orig_mod."  # torch.compile keeps the module that it was given under this name
WRAPPED = "_fsdp_wrapped_module."


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside torch.compile, DataParallel, DistributedDataParallel and FullyShardedDataParallel; another one as it is.

    >>> inner = nn.Linear(2, 2)
    >>> unwrapped(nn.DataParallel(inner)) is inner, unwrapped(inner) is inner
    (True, True)
    """
    while True:
        inner = model._modules.get("_orig_mod") or model._modules.get("_fsdp_wrapped_module")
        if inner is None and isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def plain(name: str) -> str:
    """A parameter's name without what wrapped submodules add to it.

    >>> plain("block._orig_mod.fc.weight")
    'block.fc.weight'
    """
    return name.replace(COMPILED, "").replace(WRAPPED, "")


def distributed(model: nn.Module) -> Any | None:
    """The process group over which `model` is replicated (DistributedDataParallel, at any depth of wrapping), or None."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel):
            return model.process_group
        inner = model._modules.get("_orig_mod")
        if not isinstance(inner, nn.Module):
            return None
        model = inner


def local(value: Tensor) -> Tensor:
    """This process's part of a sharded tensor (FullyShardedDataParallel's), without a copy; another tensor as it is."""
    found: Tensor = value.to_local() if hasattr(value, "to_local") else value
    return found


def local_mask(mask: Tensor, like: Tensor) -> Tensor:
    """The part of a whole `mask` that belongs to this process's part of `like`, on its device."""
    mask = mask.to(like.device)
    if not hasattr(like, "placements"):
        return mask
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(mask, like.device_mesh, like.placements, src_data_rank=None).to_local()  # type: ignore[attr-defined]


@torch.no_grad()
def from_first(tensors: list[Tensor], group: Any) -> None:
    """Give every process of `group` the values that its first one has, in place."""
    import torch.distributed as dist

    source = dist.get_global_rank(group, 0)
    for tensor in tensors:
        carried = tensor.to(torch.uint8) if tensor.dtype is torch.bool else tensor.detach().contiguous()
        dist.broadcast(carried, source, group=group)
        tensor.copy_(carried)
