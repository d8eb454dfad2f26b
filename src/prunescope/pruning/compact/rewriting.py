"""Rewriting a traced graph for smaller parameters: the graph at work, and the register of what each operation's arguments become."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from prunescope.pruning.compact.layout import Layout
from prunescope.pruning.compact.norms import CompactNorm
from prunescope.pruning.compact.own import UnfitError, biases, settings, sliced
from prunescope.pruning.compact.plan import Plan
from prunescope.pruning.coupling.walk import rule_of

aten = torch.ops.aten
Edit = Callable[["Rewrite", torch.fx.Node, torch.fx.Node], None]
EDITS: dict[str, Edit] = {}


def edit(*names: str) -> Callable[[Edit], Edit]:
    """Register how an operation's arguments change, by its ATen names."""

    def register(function: Edit) -> Edit:
        EDITS.update(dict.fromkeys(names, function))
        return function

    return register


@dataclass
class Rewrite:
    """A rewriting at work: `pairs` of traced nodes and those of the `module`, and the layouts of the traced ones."""

    module: torch.fx.GraphModule
    plan: Plan
    pairs: dict[torch.fx.Node, torch.fx.Node]
    kept: dict[torch.fx.Node, Any]
    replaced: set[torch.fx.Node] = field(default_factory=set)

    def go(self) -> torch.fx.GraphModule:
        """The rewritten module."""
        self._parameters()
        self._norms()
        for old, new in self.pairs.items():
            if old in self.kept and old.target is not operator.getitem and old not in self.replaced:
                name = rule_of(old.target)[0]
                if isinstance(old.target, torch._ops.HigherOrderOperator):
                    if any(self.layout(a) for a in old.all_input_nodes):
                        raise UnfitError(f"channels go through {name}, a graph within the graph")
                    continue
                function = EDITS.get(name) or EDITS.get(name.rstrip("_"))
                if function is None and torch.Tag.pointwise in getattr(old.target, "tags", ()):
                    function = EDITS["where"]
                if function is not None:
                    function(self, old, new)
        self._biases()
        graph = self.module.graph
        graph.eliminate_dead_code()
        graph.lint()
        return torch.fx.GraphModule(self.module, graph, "CompactModule")

    def layout(self, node: Any) -> Layout:
        """What stays of a traced node's tensor."""
        found = self.kept.get(node, {}) if isinstance(node, torch.fx.Node) else {}
        return found if isinstance(found, dict) else {}

    def put(self, node: torch.fx.Node, name: str, value: Any) -> None:
        """Set an argument by the schema's name."""
        for i, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
            if argument.name == name:
                if argument.kwarg_only or i > len(node.args):
                    node.kwargs = {**node.kwargs, name: value}
                else:
                    node.args = (*node.args[:i], value, *node.args[i + 1 :])
                    node.kwargs = {n: a for n, a in node.kwargs.items() if n != name}
                return
        raise UnfitError(f"{node.target} has no argument {name}")

    def given(self, node: torch.fx.Node, name: str) -> Any:
        """An argument by the schema's name; its default where it is not given."""
        for i, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
            if argument.name == name:
                default = argument.default_value if argument.has_default_value() else None
                return node.args[i] if i < len(node.args) else node.kwargs.get(name, default)
        return None

    def constant(self, name: str, value: Tensor, *, parameter: bool = False) -> torch.fx.Node:
        """A node at the top of the graph for a tensor that the module now holds as `name`."""
        path, _, last = name.rpartition(".")
        owner = self.module
        for part in path.split(".") if path else ():
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner._modules[part]  # type: ignore[assignment]
        if parameter:
            owner.register_parameter(last, nn.Parameter(value))
        else:
            owner.register_buffer(last, value)
        first = next(n for n in self.module.graph.nodes if n.op not in ("placeholder", "get_attr"))
        with self.module.graph.inserting_before(first):
            return self.module.graph.get_attr(name)

    def picked(self, user: torch.fx.Node, source: torch.fx.Node, dim: int, places: Tensor) -> torch.fx.Node:
        """A node before `user` that takes `places` of `source` along `dim`."""
        index = self.constant(f"places_{self.places()}", places)
        with self.module.graph.inserting_before(user):
            return self.module.graph.call_function(aten.index_select.default, (source, dim, index))

    def places(self) -> int:
        """How many lists of places the module holds."""
        return sum(1 for n, _ in self.module.named_buffers() if n.startswith("places_"))

    def _parameters(self) -> None:
        trace = self.plan.coupling.trace
        aliases = {t.data_ptr(): n for n, t in self.plan.study.tensors.items()}
        made: dict[int, Tensor] = {}
        for owner in self.module.modules():
            for store in (owner._parameters, owner._buffers):
                for last, tensor in store.items():
                    if tensor is None:
                        continue
                    name = aliases.get(tensor.data_ptr())
                    if name is None:
                        continue
                    if id(tensor) not in made:
                        values = self.plan.changed.get(name, tensor.detach()) if name in trace.parameters else tensor
                        small = sliced(self.plan, name, values.detach()).contiguous().clone()
                        made[id(tensor)] = nn.Parameter(small, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else small
                    store[last] = made[id(tensor)]  # type: ignore[assignment]

    def _norms(self) -> None:
        for norm in self.plan.norms:
            new = self.pairs[norm.node]
            eps, member, counts, removed = settings(norm)
            dim, rms = (1 if norm.groups is not None else -1), "rms" in rule_of(norm.node.target)[0]
            terms = [self.given(new, n) for n in ("weight", "bias")]
            tensors = [None if t is None else operator.attrgetter(t.target)(self.module) for t in terms]
            made = CompactNorm(tensors[0], tensors[1], eps, dim, member, counts, removed, rms=rms)
            path = next((str(t.target).rpartition(".")[0] for t in terms if t is not None), "")
            own = bool(path) and all(sum(n.target == t.target for n in self.module.graph.nodes) == 1 for t in terms if t is not None)
            target = path if own else f"norm_{len(list(self.module.children()))}"
            self.module.add_submodule(target, made)
            with self.module.graph.inserting_before(new):
                call = self.module.graph.call_module(target, (self.given(new, "input"),))
            call.meta = dict(new.meta)
            first = isinstance(norm.node.meta["val"], Tensor)
            for user in list(new.users):
                if first:
                    user.replace_input_with(new, call)
                elif user.target is operator.getitem and user.args[1] == 0:
                    user.replace_all_uses_with(call)
            self.pairs[norm.node] = call
            self.replaced.add(norm.node)

    def _biases(self) -> None:
        held = dict(self.module.named_parameters(remove_duplicate=False))
        for weight, bias, delta in biases(self.plan):
            if not bool(delta.any()):
                continue
            if bias is not None:
                aliases = [n for n, t in held.items() if t is held[bias]]
                for name in aliases:
                    held[name].data = held[name].detach() + delta if name == aliases[0] else held[aliases[0]].data
                continue
            extra = self.constant(f"{weight.rpartition('.')[0]}.{_bias_name(held, weight)}".lstrip("."), delta, parameter=True)
            for intake in self.plan.study.intakes.values():
                if intake.weight == weight:
                    self._with_bias(self.pairs[intake.node], extra)

    def _with_bias(self, node: torch.fx.Node, extra: torch.fx.Node) -> None:
        if any(a.name == "bias" for a in node.target._schema.arguments):  # type: ignore[union-attr]
            self.put(node, "bias", extra)
            return
        with self.module.graph.inserting_after(node):
            total = self.module.graph.call_function(aten.add.Tensor, (node, extra))
        node.replace_all_uses_with(total)
        total.args = (node, extra)


def _bias_name(held: dict[str, nn.Parameter], weight: str) -> str:
    path, _, last = weight.rpartition(".")
    name = last.replace("weight", "bias") if "weight" in last else f"{last}_bias"
    return name if f"{path}.{name}".lstrip(".") not in held else f"{last}_constant"
