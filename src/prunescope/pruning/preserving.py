"""A model that is looked at stays as it was: its modes, its buffers and the global random streams."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Whatever a forward pass (or a trace of one) does to modes, buffers and random streams is undone at the end, bit for bit."""
    modes = [(m, m.training) for m in model.modules()]
    buffers = [(m, dict(m._buffers), {n: b.clone() for n, b in m._buffers.items() if b is not None}) for m in model.modules()]
    devices = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            for module, objects, values in buffers:
                _restore(module, objects, values)


def _restore(module: nn.Module, objects: dict[str, Tensor | None], values: dict[str, Tensor]) -> None:
    for name, value in objects.items():
        module._buffers[name] = value
        if value is not None and not value.is_meta and not torch.equal(value, values[name]):
            with torch.no_grad():
                value.copy_(values[name])
