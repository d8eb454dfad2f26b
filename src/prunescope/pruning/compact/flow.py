"""A run of the traced network that notes what no input changes, where weights take values in, and where channels meet."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from prunescope.pruning.compact import products
from prunescope.pruning.compact.silence import RECURRENT, silent_columns
from prunescope.pruning.compact.varying import Seen, Step, settle, zeros
from prunescope.pruning.coupling import Coupling
from prunescope.pruning.coupling.walk import SCOPES, rule_of

RULE_FILES = (products,)  # importing it registers its rules


@dataclass(eq=False)
class Line:
    """What stands in the places (n,) along one dimension of a tensor.

    fixed   whether no input changes the place
    even    whether it holds the same number all over the other dimensions; value: that number, or the mean (0 where an input changes it)
    alike   whether it holds the same numbers in every sample (dimension 0), and which: `sample`, the first one with the places last
    """

    fixed: Tensor
    even: Tensor
    value: Tensor
    alike: Tensor
    sample: Tensor

    @property
    def constant(self) -> Tensor:
        """Places that hold one known number."""
        return self.fixed & self.even

    @property
    def zero(self) -> Tensor:
        """Places that hold zero."""
        return self.constant & (self.value == 0)


def line(seen: Seen, dim: int) -> Line:
    """The places along `dim` (negative counts from the end)."""
    ndim = seen.value.ndim
    dim %= ndim
    rest = [d for d in range(ndim) if d != dim]
    size = seen.value.shape[dim]
    varies = seen.varies
    fixed = ~varies.permute([dim, *rest]).flatten(1).any(1).expand(size) if ndim > 1 else ~varies.expand(size)
    even, value = torch.zeros(size, dtype=torch.bool), torch.zeros(size, dtype=torch.float64)
    alike, sample = torch.zeros(size, dtype=torch.bool), seen.value[:0]
    found = fixed.nonzero().flatten()
    if len(found) and seen.value.numel():
        picked = seen.value.index_select(dim, found).permute([dim, *rest]).reshape(len(found), -1).double()
        first = picked[:, 0]
        spread = (picked - first[:, None]).abs().amax(1)
        even[found] = spread <= 1e-12 * first.abs().clamp(min=1e-2)
        value[found] = torch.where(spread == 0, first, picked.mean(1))
        if dim > 0:
            samples = seen.value.movedim(dim, -1).double()
            sample = samples[0]
            apart = (samples - sample).abs().amax(tuple(range(ndim - 1)))
            alike = fixed & (apart <= 1e-12 * sample.abs().reshape(-1, size).amax(0).clamp(min=1e-2))
    return Line(fixed, even, value, alike, sample)


@dataclass
class Flow:
    """The run at work.

    lines     what stands along the dimensions that are asked for, by (node, dimension)
    empty     where the nodes that are asked for hold zeros whatever goes in, as flags that broadcast
    columns   (input node of a recurrent layer's weight, flags): inputs of it that stay at zero
    """

    coupling: Coupling
    lines: dict[tuple[torch.fx.Node, int], Line | None]
    empty: dict[torch.fx.Node, Tensor | None]
    seen: dict[torch.fx.Node, Any] = field(default_factory=dict)
    outputs: list[Any] = field(default_factory=list)
    columns: list[tuple[torch.fx.Node, Tensor]] = field(default_factory=list)

    @torch.no_grad()
    def go(self, tensors: dict[str, Tensor], inputs: Sequence[Any]) -> Flow:
        """Through the whole graph on `inputs` (flat, in order) with the model's `tensors` by name."""
        trace, remaining = self.coupling.trace, iter(inputs)
        graph = trace.graph.graph
        last = {n: user for user in graph.nodes for n in user.all_input_nodes}
        dims: dict[torch.fx.Node, list[int]] = {}
        for node, dim in self.lines:
            dims.setdefault(node, []).append(dim)
        for node in graph.nodes:
            if node.op == "placeholder":
                name = trace.tensors.get(node.name)
                if name is not None:
                    self.seen[node] = _fixed(tensors[name])
                elif node.name in trace.constants:
                    self.seen[node] = _fixed(trace.constants[node.name])
                else:
                    given = next(remaining)
                    self.seen[node] = Seen(given, torch.ones((1,) * given.ndim, dtype=torch.bool)) if isinstance(given, Tensor) else given
            elif node in self.coupling.values or node.op in ("get_attr", "output") or node.users:
                self.seen[node] = self._result(node, trace.graph)
            for dim in dims.get(node, ()):
                self.lines[node, dim] = line(self.seen[node], dim)
            if node in self.empty:
                self.empty[node] = zeros(self.seen[node])
            for before in node.all_input_nodes:
                if last[before] is node:
                    self.seen.pop(before, None)
        return self

    def _result(self, node: torch.fx.Node, owner: nn.Module) -> Any:
        if node.op == "get_attr":
            found = operator.attrgetter(str(node.target))(owner)
            return _fixed(found) if isinstance(found, Tensor) else found
        if node.op == "output":
            self.outputs = [v.value if isinstance(v, Seen) else v for v in _flat(self._argument(node.args[0]))]
            return self._argument(node.args[0])
        if node.target is operator.getitem:
            return self._argument(node.args[0])[node.args[1]]
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            return self._inner(node)
        arguments = [self._argument(a) for a in node.args]
        named = {n: self._argument(a) for n, a in node.kwargs.items()}
        result = node.target(*_values(arguments), **_values(named))  # type: ignore[operator]
        if not isinstance(node.target, torch._ops.OpOverload):
            return result if not isinstance(result, Tensor) else Seen(result, torch.ones((1,) * result.ndim, dtype=torch.bool))
        bound = _bound(node, arguments, named)
        step = Step(node.target, rule_of(node.target)[0], bound, result, [s for s in _flat(list(bound.values())) if isinstance(s, Seen)])
        if step.name in RECURRENT and "params" in bound:
            names = [a.name for a in node.target._schema.arguments]
            weights: Any = node.args[names.index("params")]
            self.columns += [(weights[i], flags) for i, flags in silent_columns(step)]
        return settle(step)

    def _inner(self, node: torch.fx.Node) -> Any:
        arguments = [self._argument(a) for a in node.args]
        place = next((i for i, a in enumerate(arguments) if isinstance(a, torch.fx.GraphModule)), None)
        if getattr(node.target, "__name__", "") in SCOPES and place is not None:
            graph, operands = arguments[place], iter(arguments[place + 1 :])
            for inner in graph.graph.nodes:
                self.seen[inner] = next(operands) if inner.op == "placeholder" else self._result(inner, graph)
            return self.seen[next(n for n in graph.graph.nodes if n.op == "output")]
        operation: Any = node.target
        result = operation(*_values(arguments), **_values({n: self._argument(a) for n, a in node.kwargs.items()}))
        return _varying(result)

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, torch.fx.Node):
            return self.seen[argument]
        return [self._argument(a) for a in argument] if isinstance(argument, list | tuple) else argument


def _fixed(tensor: Tensor) -> Seen:
    tensor = tensor.detach()
    return Seen(tensor, torch.zeros((1,) * tensor.ndim, dtype=torch.bool))


def _varying(result: Any) -> Any:
    if isinstance(result, Tensor):
        return Seen(result, torch.ones((1,) * result.ndim, dtype=torch.bool))
    return [_varying(r) for r in result] if isinstance(result, list | tuple) else result


def _values(arguments: Any) -> Any:
    if isinstance(arguments, Seen):
        return arguments.value
    if isinstance(arguments, dict):
        return {n: _values(a) for n, a in arguments.items()}
    return [_values(a) for a in arguments] if isinstance(arguments, list | tuple) else arguments


def _flat(arguments: Any) -> Iterator[Any]:
    if isinstance(arguments, list | tuple):
        for argument in arguments:
            yield from _flat(argument)
    else:
        yield arguments


def _bound(node: torch.fx.Node, arguments: list[Any], named: dict[str, Any]) -> dict[str, Any]:
    """The arguments by the schema's names, defaults filled in."""
    bound: dict[str, Any] = {}
    for i, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if not argument.kwarg_only and i < len(arguments):
            bound[argument.name] = arguments[i]
        elif argument.name in named:
            bound[argument.name] = named[argument.name]
        else:
            bound[argument.name] = argument.default_value if argument.has_default_value() else None
    return bound
