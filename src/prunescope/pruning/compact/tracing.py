"""Traces that become modules: with sizes of inputs left open, with the batch freed, or with the sizes of the example."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from prunescope.pruning.compact.checking import Inputs
from prunescope.pruning.coupling.trace import exported

aten = torch.ops.aten
BATCH = 3


class CourseError(ValueError):
    """Other sizes of inputs take the network through other operations."""


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
    """The trace of `model` with the numbers that follow sizes of its inputs computed from them, found by comparing traces."""
    return _freed(model, inputs, positions=True)


def batch_module(model: nn.Module, inputs: Inputs) -> torch.fx.GraphModule:
    """The same with the batch size alone."""
    return _freed(model, inputs, positions=False)


def _freed(model: nn.Module, inputs: Inputs, *, positions: bool) -> torch.fx.GraphModule:
    inputs = repeated(inputs, BATCH)
    module = fixed_module(model, inputs)
    first = next(n for n in module.graph.nodes if n.op == "placeholder" and _shape(n))
    calls = [n for n in module.graph.nodes if n.op == "call_function"]
    free: list[_Free] = []
    for dim in range(len(_shape(first)) if positions else 1):
        other = repeated(inputs, BATCH + 2) if dim == 0 else _longer(model, inputs, dim)
        if other is not None:
            twin = [n for n in fixed_module(model, other).graph.nodes if n.op == "call_function"]
            if [n.target for n in calls] != [n.target for n in twin]:
                raise CourseError("the network's course depends on the sizes of its inputs")
            size = _shape(first)[dim]
            free.append(_Free(dim, size, BATCH + 2 if dim == 0 else 2 * size, twin))
    with module.graph.inserting_before(calls[0]):
        nodes = [module.graph.call_function(aten.sym_size.int, (first, f.dim)) for f in free]
    for place, node in enumerate(calls):
        twins = [f.twin[place] for f in free]
        node.args = tuple(_follow(module, node, a, [t.args[i] for t in twins], free, nodes) for i, a in enumerate(node.args))
        node.kwargs = {n: _follow(module, node, a, [t.kwargs[n] for t in twins], free, nodes) for n, a in node.kwargs.items()}
    return module


@dataclass
class _Free:
    """Dimension `dim` of the first input, which was `size` and in the `twin` trace `other`."""

    dim: int
    size: int
    other: int
    twin: list[torch.fx.Node]


def _follow(module: torch.fx.GraphModule, node: torch.fx.Node, entry: Any, others: list[Any], free: list[_Free], nodes: list[Any]) -> Any:
    """An argument, computed from the sizes that it follows: in proportion to each of them."""
    if isinstance(entry, list | tuple):
        return [_follow(module, node, e, [o[i] for o in others], free, nodes) for i, e in enumerate(entry)]
    if not isinstance(entry, int) or isinstance(entry, bool) or all(o == entry for o in others):
        return entry
    result, divisor, rest = None, 1, entry
    with module.graph.inserting_before(node):
        for one, size, other in zip(free, nodes, others, strict=True):
            if other == entry:
                continue
            if entry * one.other != other * one.size:
                raise ValueError(f"{node.name}: {entry} becomes {other} when a size goes from {one.size} to {one.other}")
            result = size if result is None else module.graph.call_function(operator.mul, (result, size))
            divisor *= one.size
        shared = math.gcd(rest, divisor)
        if rest // shared != 1:
            result = module.graph.call_function(operator.mul, (result, rest // shared))
        if divisor // shared != 1:
            result = module.graph.call_function(operator.floordiv, (result, divisor // shared))
    return result


def _longer(model: nn.Module, inputs: Inputs, dim: int) -> Inputs | None:
    """The inputs with twice as many places along dimension `dim` of all that are as long there as the first, if taken."""
    leaves, spec = torch.utils._pytree.tree_flatten(inputs)
    first = next(v for v in leaves if isinstance(v, Tensor) and v.ndim)
    size = first.shape[dim]
    double = [torch.cat([v, v], dim) if isinstance(v, Tensor) and v.ndim > dim and v.shape[dim] == size else v for v in leaves]
    args, kwargs = torch.utils._pytree.tree_unflatten(double, spec)
    try:
        with torch.no_grad():
            model(*args, **kwargs)
    except Exception:  # the user's network takes no such size
        return None
    return args, kwargs


def _shape(node: torch.fx.Node) -> tuple[int, ...]:
    value = node.meta.get("val")
    return tuple(int(s) for s in value.shape) if isinstance(value, Tensor) else ()


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
