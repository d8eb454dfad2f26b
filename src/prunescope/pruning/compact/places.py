"""Where a network's tensors lie: it is studied and rebuilt on the processor, and goes back to the devices that it came from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

CPU = torch.device("cpu")
VIEWS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)


class Places:
    """The devices of a network's tensors, by name. A study reads single numbers everywhere, which a GPU hands out slowly, and its masks lie
    on the processor; so the whole of it happens there."""

    def __init__(self, model: nn.Module) -> None:
        found = {n: t.device for n, t in [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]}
        found |= {_named(path, key): t.device for path, key, _, t in _loose(model)}
        self.of = found
        self.most = max(found.values(), key=list(found.values()).count, default=CPU)  # for what has no counterpart

    def away(self, model: nn.Module) -> nn.Module:
        """`model` with all its tensors on the processor, in place."""
        model.to(CPU)
        for _, key, module, tensor in list(_loose(model)):
            module.__dict__[key] = tensor.to(CPU)
        return model

    def back(self, model: nn.Module) -> nn.Module:
        """`model`, in place, with its tensors where those of the same name came from, and the devices that a graph's code names."""
        if all(device == CPU for device in (*self.of.values(), self.most)):
            return model
        moved: dict[int, Tensor] = {}  # tied tensors stay one
        for path, module in model.named_modules():
            for store in (module._parameters, module._buffers):
                for key, tensor in store.items():
                    if tensor is not None:
                        store[key] = moved.setdefault(id(tensor), _moved(tensor, self.of.get(_named(path, key), self.most)))
        for path, key, module, tensor in list(_loose(model)):
            module.__dict__[key] = tensor.to(self.of.get(_named(path, key), self.most))
        if isinstance(model, torch.fx.GraphModule):
            renamed(model, self.most)
        return model


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    there = tensor.detach().to(device)
    return nn.Parameter(there, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else there


def renamed(module: torch.fx.GraphModule, device: torch.device) -> None:
    """Tensors that a graph's code makes on the processor are made on `device`, in place, and no view relies on the processor's strides:
    attention, for one, lays out its result in another way on a GPU."""

    def change(argument: Any) -> Any:
        return device if isinstance(argument, torch.device) and argument.type == "cpu" else argument

    for node in module.graph.nodes:
        if node.op == "call_function":
            if node.target in VIEWS:
                node.target = torch.ops.aten.reshape.default
            node.args = torch.fx.node.map_aggregate(node.args, change)
            node.kwargs = torch.fx.node.map_aggregate(node.kwargs, change)
    module.recompile()


def away(values: Any) -> Any:
    """Inputs with every tensor on the processor."""
    return torch.utils._pytree.tree_map(lambda v: v.to(CPU) if isinstance(v, Tensor) else v, values)


def _named(path: str, key: str) -> str:
    return f"{path}.{key}".lstrip(".")


def _loose(model: nn.Module) -> Iterator[tuple[str, str, nn.Module, Tensor]]:
    """Tensors that are plain attributes of modules, which `Module.to` does not move: (path, attribute, module, tensor)."""
    for path, module in model.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, Tensor):
                yield path, key, module, value
