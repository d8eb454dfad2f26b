"""Traces that become modules: with sizes of inputs left open, with the batch freed, or with the sizes of the example."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from prunescope.pruning.compact.checking import Inputs
from prunescope.pruning.coupling.trace import exported

aten = torch.ops.aten


def fixed_module(model: nn.Module, inputs: Inputs) -> torch.fx.GraphModule:
    """The trace of `model` with the sizes of the example inputs."""
    found: torch.fx.GraphModule = exported(model, *inputs).module(check_guards=False)
    return found


def open_module(model: nn.Module, inputs: Inputs) -> torch.fx.GraphModule:
    """The trace of `model` with all sizes of inputs open that torch.export leaves open."""
    args, kwargs = inputs if _batch(inputs) != 1 else repeated(inputs, 2)
    found: torch.fx.GraphModule = exported(model, args, kwargs, resizable=True).module(check_guards=False)
    return found


def freed_module(model: nn.Module, inputs: Inputs) -> torch.fx.GraphModule:
    """The trace of `model` with the numbers that follow the batch size computed from it, found by comparing two batch sizes."""
    one, two = 3, 5
    module, other = (fixed_module(model, repeated(inputs, n)) for n in (one, two))
    first = next(n for n in module.graph.nodes if n.op == "placeholder" and _size(n) == one)
    start = next(n for n in module.graph.nodes if n.op not in ("placeholder", "get_attr"))
    with module.graph.inserting_before(start):
        batch = module.graph.call_function(aten.sym_size.int, (first, 0))

    def freed(node: torch.fx.Node, a: Any, b: Any) -> Any:
        if isinstance(a, list | tuple):
            return [freed(node, x, y) for x, y in zip(a, b, strict=True)]
        if not isinstance(a, int) or isinstance(a, bool) or a == b:
            return a
        if a % one or a // one * two != b:
            raise ValueError(f"{node.name}: {a} and {b} do not follow the batch size")
        if a == one:
            return batch
        with module.graph.inserting_before(node):
            return module.graph.call_function(operator.mul, (batch, a // one))

    mine = [n for n in module.graph.nodes if n is not batch]
    for node, like in zip(mine, other.graph.nodes, strict=True):
        if node.target != like.target and node.op == "call_function":
            raise ValueError("the network's course depends on the batch size")
        if node.op == "call_function":
            node.args = tuple(freed(node, a, b) for a, b in zip(node.args, like.args, strict=True))
            node.kwargs = {n: freed(node, a, like.kwargs[n]) for n, a in node.kwargs.items()}
    return module


def _size(node: torch.fx.Node) -> int | None:
    value = node.meta.get("val")
    return int(value.shape[0]) if isinstance(value, Tensor) and value.ndim else None


def _batch(inputs: Inputs) -> int | None:
    leaves, _ = torch.utils._pytree.tree_flatten(inputs)
    return next((int(v.shape[0]) for v in leaves if isinstance(v, Tensor) and v.ndim), None)


def repeated(inputs: Inputs, batch: int) -> Inputs:
    """The inputs with `batch` samples, the first ones over and over."""
    size = _batch(inputs)
    leaves, spec = torch.utils._pytree.tree_flatten(inputs)
    if size is None:
        return inputs
    picks = torch.arange(batch) % size
    leaves = [v[picks] if isinstance(v, Tensor) and v.ndim and v.shape[0] == size else v for v in leaves]
    found: Inputs = torch.utils._pytree.tree_unflatten(leaves, spec)
    return found
