"""The walk through a traced network: each operation's rule is applied in order, and what it says of channels is written down."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from prunescope.pruning.coupling import contraction, convolution, movement, recurrent
from prunescope.pruning.coupling.channels import Ledger, State, Value
from prunescope.pruning.coupling.pointwise import pointwise
from prunescope.pruning.coupling.rules import RULES, Call, Rule
from prunescope.pruning.coupling.statistics import shapes_of
from prunescope.pruning.coupling.trace import Trace

RULE_FILES = (contraction, convolution, movement, recurrent)  # importing them registers their rules
LARGEST_CONSTANT = 1 << 22
STATISTICS = ("running_mean", "running_var")
FILLED = dict.fromkeys(("new_zeros", "zeros_like", "new_full", "full_like", "fill", "zero"), 0.0) | {"new_ones": 1.0, "ones_like": 1.0}
SCOPES = ("wrap_with_set_grad_enabled", "wrap_with_autocast")


@dataclass
class Walk:
    """A walk at work: the ledger, and what is known of every node."""

    trace: Trace
    model: nn.Module
    ledger: Ledger = field(default_factory=Ledger)
    values: dict[torch.fx.Node, Any] = field(default_factory=dict)
    known: dict[str, Value] = field(default_factory=dict)

    def go(self) -> None:
        """Through the whole graph; what the network returns is frozen."""
        live = _live(self.trace.outputs)
        for node in self.trace.graph.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._entering(node)
            elif node in live:
                self.values[node] = self._result(node, self.trace.graph)
        self.ledger.where = ""
        for node in self.trace.outputs:
            for value in _tensors(self.values[node]):
                for label in value.labels:
                    self.ledger.freeze(label.ids, "leaves the network")

    def _entering(self, node: torch.fx.Node) -> Any:
        name = self.trace.tensors.get(node.name)
        shape = shapes_of(node.meta.get("val"))
        if name is None:
            if node.name in self.trace.constants:
                return _constant(self.trace.constants[node.name])
            return node.meta.get("val") if shape is None else Value(shape, (), True)
        if name not in self.known:
            if name in self.trace.parameters:
                self.known[name] = self.ledger.tensor(name, shape)
            elif _is_statistic(node):
                self.known[name] = self.ledger.tensor(name, shape, State.CONST)
            else:
                self.known[name] = _constant(self.model.get_buffer(name))
        return self.known[name]

    def _result(self, node: torch.fx.Node, owner: nn.Module) -> Any:
        if node.op == "get_attr":
            found = operator.attrgetter(str(node.target))(owner)
            return _constant(found) if isinstance(found, Tensor) else found
        if node.op == "output":
            return self._argument(node.args[0])
        if node.target is operator.getitem:
            return self._argument(node.args[0])[node.args[1]]
        self.ledger.where, self.ledger.node = _where(node), node
        if not isinstance(node.target, torch._ops.OpOverload | torch._ops.HigherOrderOperator):
            shapes = shapes_of(node.meta.get("val"))
            if shapes is None:
                return node.meta.get("val")  # sizes and other numbers
            call = Call(self.ledger, node.target, {}, shapes, str(node.target), list(_tensors(self._argument(node.args))))
            return call.opaque(f"no rule for {getattr(node.target, '__name__', node.target)}")
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            return self._inner(node)
        return self._operation(node)

    def _inner(self, node: torch.fx.Node) -> Any:
        """A part of the graph under its own settings (no gradients, autocast) is walked through; others are opaque."""
        arguments = [self._argument(a) for a in node.args]
        place = next((i for i, a in enumerate(arguments) if isinstance(a, torch.fx.GraphModule)), None)
        name = getattr(node.target, "__name__", str(node.target))
        if name not in SCOPES or place is None:
            call = Call(self.ledger, node.target, {}, shapes_of(node.meta.get("val")), name, list(_tensors(arguments)))
            return call.opaque(f"no rule for {call.name}")
        graph: torch.fx.GraphModule = arguments[place]
        operands = iter(arguments[place + 1 :])
        for inner in graph.graph.nodes:
            self.values[inner] = next(operands) if inner.op == "placeholder" else self._result(inner, graph)
        return self.values[next(n for n in graph.graph.nodes if n.op == "output")]

    def _operation(self, node: torch.fx.Node) -> Any:
        target: Any = node.target
        arguments = self._bound(node)
        tensors = list(_tensors(arguments.values()))
        shapes = shapes_of(node.meta.get("val"))
        if shapes is None:
            return node.meta.get("val")
        name, found = rule_of(target)
        if name in FILLED:  # a new tensor that takes its size alone from another
            fill = arguments.get("fill_value", arguments.get("value", FILLED[name]))
            if isinstance(fill, Value):
                return Value(shapes, (), fill.data)
            return _constant(torch.full(shapes, fill)) if math.prod(shapes) <= LARGEST_CONSTANT else Value(shapes)
        call = Call(self.ledger, target, arguments, shapes, name.rstrip("_") if target._schema.is_mutable else name, tensors)
        if not any(t.labels for t in tensors):
            folded = _folded(call) if not call.data and _reproducible(target) else None
            if folded is not None:
                return folded
            return movement.expand(call) if name in movement.EXPANDING else call.result()
        if found is None:
            return call.opaque(f"no rule for {name}")
        try:
            return found(call)
        except (RuntimeError, ValueError, TypeError, LookupError, StopIteration) as error:  # a form of the operation that its rule misses
            return call.opaque(f"the rule for {name} does not cover this use ({type(error).__name__})")

    def _bound(self, node: torch.fx.Node) -> dict[str, Any]:
        """The arguments by the schema's names, defaults filled in."""
        bound = {}
        for i, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
            if not argument.kwarg_only and i < len(node.args):
                bound[argument.name] = self._argument(node.args[i])
            elif argument.name in node.kwargs:
                bound[argument.name] = self._argument(node.kwargs[argument.name])
            else:
                bound[argument.name] = argument.default_value if argument.has_default_value() else None
        return bound

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, torch.fx.Node):
            return self.values[argument]
        return [self._argument(a) for a in argument] if isinstance(argument, list | tuple) else argument


def rule_of(target: Any) -> tuple[str, Rule | None]:
    """The name of an operation and its rule; None where there is none."""
    schema = getattr(target, "_schema", None)
    if schema is None:
        return str(target), None
    name = schema.name.split("::")[-1]
    found = RULES.get(name) or (RULES.get(name.rstrip("_")) if schema.is_mutable else None)
    if found is None and torch.Tag.pointwise in target.tags:
        found = pointwise
    return name, found


def _live(outputs: Sequence[torch.fx.Node]) -> set[torch.fx.Node]:
    """The nodes that the outputs depend on: what nobody reads couples nothing."""
    found, pending = set(outputs), list(outputs)
    while pending:
        for node in pending.pop().all_input_nodes:
            if node not in found:
                found.add(node)
                pending.append(node)
    return found


def _tensors(values: Any) -> Iterable[Value]:
    if isinstance(values, Value):
        yield values
    elif isinstance(values, Mapping):
        yield from _tensors(list(values.values()))
    elif isinstance(values, Iterable) and not isinstance(values, str | Tensor | nn.Module):
        for value in values:
            yield from _tensors(value)


def _constant(tensor: Tensor) -> Value:
    shape = tuple(tensor.shape)
    return Value(shape, (), False, None if tensor.is_meta or tensor.numel() > LARGEST_CONSTANT else tensor.detach())


def _is_statistic(node: torch.fx.Node) -> bool:
    """Whether a buffer is used as the running statistics of a norm and as nothing else."""
    for user in node.users:
        schema = getattr(user.target, "_schema", None)
        names = [a.name for a in schema.arguments] if schema is not None else []
        if not any(a is node and i < len(names) and names[i] in STATISTICS for i, a in enumerate(user.args)):
            return False
    return bool(node.users)


def _reproducible(target: Any) -> bool:
    if target._schema.name == "aten::detach_":  # changes no value; every tensor that is made in the forward goes through it
        return True
    return torch.Tag.nondeterministic_seeded not in target.tags and not target._schema.is_mutable


def _folded(call: Call) -> Any:
    """The value of an operation on constants, where these are known and small; None otherwise."""
    shapes = [call.shapes] if isinstance(call.shapes, tuple) else call.shapes
    if any(t.const is None for t in call.tensors) or any(s is None or math.prod(s) > LARGEST_CONSTANT for s in shapes):
        return None
    try:
        result = movement.run(call.target, {n: _plain(a) for n, a in call.arguments.items()})
    except (RuntimeError, TypeError, NotImplementedError):
        return None
    return _constant(result) if isinstance(result, Tensor) else [_constant(r) for r in result]


def _plain(argument: Any) -> Any:
    if isinstance(argument, Value):
        return argument.const
    return [_plain(a) for a in argument] if isinstance(argument, list | tuple) else argument


def _where(node: torch.fx.Node) -> str:
    """The operation and the module that it stands in, for reasons."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]).removeprefix("L['self']").lstrip(".") if stack else ""
    name = getattr(getattr(node.target, "_schema", None), "name", str(node.target)).split("::")[-1]
    return f"{name} in {path}" if path else name
