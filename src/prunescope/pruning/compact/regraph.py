"""The compacted network as a graph of ATen operations: the traced graph with smaller parameters and other sizes in its code."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from prunescope.pruning.compact.checking import Inputs
from prunescope.pruning.compact.intakes import arguments
from prunescope.pruning.compact.layout import Layout, before, layouts, shape
from prunescope.pruning.compact.norms import CompactNorm
from prunescope.pruning.compact.own import UnfitError, biases, settings, sliced
from prunescope.pruning.compact.plan import Plan
from prunescope.pruning.compact.tracing import batch_module, fixed_module, freed_module, open_module
from prunescope.pruning.coupling.movement import run
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


def graph_modules(model: nn.Module, plan: Plan, inputs: Inputs) -> Iterator[torch.fx.GraphModule]:
    """The smaller network as graphs, from the most to the least flexible in the sizes of its inputs: traced with open sizes, with the batch
    found by comparing two traces, and with the sizes of the example. UnfitError where an operation's sizes cannot be changed.
    """
    old = [n for n in plan.coupling.trace.graph.graph.nodes if _gives_tensors(n)]
    said = "two traces of the network differ"
    for build in (open_module, freed_module, batch_module, fixed_module):
        try:
            module = build(model, inputs)
        except Exception as error:  # the user's forward runs on symbolic sizes, which may raise anything
            said = f"torch.export gives no module of its own: {' '.join(str(error).split())[:200]}"
            continue
        new = [n for n in module.graph.nodes if _gives_tensors(n)]
        if [n.target for n in old] == [n.target for n in new]:
            yield Rewrite(module, plan, dict(zip(old, new, strict=True)), layouts(plan)).go()
    raise UnfitError(said)


def _gives_tensors(node: torch.fx.Node) -> bool:
    value = node.meta.get("val")
    several = isinstance(value, list | tuple) and any(isinstance(v, Tensor) for v in value)
    return node.op == "call_function" and (isinstance(value, Tensor) or several)


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
                    function = aligned
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
            made = CompactNorm(*tensors, eps, dim, member, counts, removed, rms=rms)
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


@edit("masked_fill", "where", "clamp", "lerp", "add", "mul", "sub", "div", "rsub")
def aligned(rewrite: Rewrite, old: torch.fx.Node, new: torch.fx.Node) -> None:
    """An operand without channels of its own (a mask, a table) loses the places that the others lose."""
    kept = rewrite.layout(old)
    if not kept:
        return
    ndim = old.meta["val"].ndim
    for source, mine in zip(old.all_input_nodes, new.all_input_nodes, strict=False):
        value = source.meta.get("val")
        if isinstance(value, Tensor):
            shortened(rewrite, new, mine, source, {d - (ndim - value.ndim): p for d, p in kept.items()})


def shortened(rewrite: Rewrite, user: torch.fx.Node, mine: torch.fx.Node, source: torch.fx.Node, kept: Layout) -> None:
    """Take from `mine`, as `user` reads it, the places `kept` of those that `source` has not lost yet."""
    value, own = source.meta["val"], rewrite.layout(source)
    result = mine
    for dim, places in kept.items():
        if dim < 0 or value.shape[dim] <= 1 or int(places.max()) >= value.shape[dim]:
            continue
        here = own.get(dim, torch.arange(int(value.shape[dim])))
        if len(here) != len(places) and bool(torch.isin(places, here).all()):
            result = rewrite.picked(user, result, dim, torch.searchsorted(here, places))
    if result is not mine:
        user.replace_input_with(mine, result)


@edit("mm", "bmm", "matmul", "linear", "addmm", "baddbmm")
def multiplied(rewrite: Rewrite, old: torch.fx.Node, new: torch.fx.Node) -> None:
    """A constant matrix loses the rows that meet channels that went, and the heads that its partner lost."""
    nodes, mine = list(old.args), list(new.args)
    if rule_of(old.target)[0] in ("addmm", "baddbmm"):
        nodes, mine = nodes[1:], mine[1:]
    one, two = nodes[:2]
    if not isinstance(one, torch.fx.Node) or not isinstance(two, torch.fx.Node):
        return
    sides = (one.meta["val"].ndim - 1, two.meta["val"].ndim - (1 if rule_of(old.target)[0] == "linear" or two.meta["val"].ndim == 1 else 2))
    for a, b, i, j, target in ((one, two, *sides, mine[1]), (two, one, *reversed(sides), mine[0])):
        places = rewrite.layout(a).get(i)
        if places is not None and j not in rewrite.layout(b):
            shortened(rewrite, new, target, b, {j: places})
    ndim = old.meta["val"].ndim
    for source, target in zip((one, two), mine[:2], strict=True):
        lead = {d - (ndim - source.meta["val"].ndim): p for d, p in rewrite.layout(old).items() if d < ndim - 2}
        if lead and rule_of(old.target)[0] != "linear":
            shortened(rewrite, new, target, source, lead)


@edit("view", "reshape", "_unsafe_view", "expand", "_reshape_alias", "broadcast_to", "unflatten")
def resized(rewrite: Rewrite, old: torch.fx.Node, new: torch.fx.Node) -> None:
    """Sizes that are written out follow the channels that stay; one that depends on the inputs' sizes too is left to be found (-1)."""
    kept = rewrite.layout(old)
    if not kept:
        return
    now = shape(old, kept)
    was = tuple(int(s) for s in old.meta["val"].shape)
    name = next(a.name for a in old.target._schema.arguments if a.name in ("size", "shape", "sizes"))  # type: ignore[union-attr]
    given = list(rewrite.given(new, name))
    start = 0
    if rule_of(old.target)[0] == "unflatten":
        start = rewrite.given(new, "dim") % rewrite.given(old, "self").meta["val"].ndim
    for i, entry in enumerate(given):
        if now[start + i] != was[start + i] and entry != -1:
            if isinstance(entry, int):
                given[i] = now[start + i]
            elif -1 in given:
                raise UnfitError(f"{old.name}: two sizes depend on the inputs and on channels that go")
            else:
                given[i] = -1
    rewrite.put(new, name, given)


@edit("slice", "narrow")
def cut(rewrite: Rewrite, old: torch.fx.Node, new: torch.fx.Node) -> None:
    """A stretch of a dimension that shrinks."""
    source = old.args[0]
    value = source.meta["val"]  # type: ignore[union-attr]
    dim = rewrite.given(old, "dim") % value.ndim
    places = rewrite.layout(source).get(dim)
    if places is None:
        return
    size = int(value.shape[dim])
    start = rewrite.given(old, "start") or 0
    end = rewrite.given(old, "end") if rule_of(old.target)[0] == "slice" else start + rewrite.given(old, "length")
    step = rewrite.given(old, "step") or 1
    wanted = torch.arange(size)[slice(start, end, step)]
    row = torch.full((size,), -1).scatter(0, places, torch.arange(len(places)))[wanted]
    row = row[row >= 0]
    if step == 1:
        first, last = before(places, start, size), before(places, size if end is None else end, size)
        new.target, new.args, new.kwargs = aten.slice.Tensor, (new.args[0], dim, first, last), {}
        return
    index = rewrite.constant(f"places_{rewrite.places()}", row)
    new.target, new.args, new.kwargs = aten.index_select.default, (new.args[0], dim, index), {}


@edit("select")
def chosen(rewrite: Rewrite, old: torch.fx.Node, new: torch.fx.Node) -> None:
    """One place of a dimension that shrinks."""
    value = old.args[0].meta["val"]  # type: ignore[union-attr]
    dim = rewrite.given(old, "dim") % value.ndim
    places = rewrite.layout(old.args[0]).get(dim)
    if places is not None:
        rewrite.put(new, "index", before(places, rewrite.given(old, "index"), int(value.shape[dim])))


@edit("split", "split_with_sizes", "chunk", "tensor_split")
def divided(rewrite: Rewrite, old: torch.fx.Node, new: torch.fx.Node) -> None:
    """Parts of a dimension that shrinks have sizes of their own."""
    value = old.args[0].meta["val"]  # type: ignore[union-attr]
    dim = (rewrite.given(old, "dim") or 0) % value.ndim
    places = rewrite.layout(old.args[0]).get(dim)
    if places is None:
        return
    edges = [0]
    for part in old.meta["val"]:
        edges.append(edges[-1] + int(part.shape[dim]))
    sizes = [int(((places >= a) & (places < b)).sum()) for a, b in zip(edges, edges[1:], strict=False)]
    new.target, new.args, new.kwargs = aten.split_with_sizes.default, (new.args[0], sizes, dim), {}


@edit("channel_shuffle", "native_channel_shuffle", "roll", "index_select", "index")
def moved(rewrite: Rewrite, old: torch.fx.Node, new: torch.fx.Node) -> None:
    """Channels that change places: each takes its own among those that stay."""
    source = old.all_input_nodes[0]
    places, wanted = rewrite.layout(source), rewrite.layout(old)
    if not places and not wanted:
        return
    if len(places) != 1:
        raise UnfitError(f"{old.name} moves channels in a way that only equal groups allow")
    dim, stay = next(iter(places.items()))
    order = _order(rewrite, old, source, dim)
    picks = order[wanted.get(dim, torch.arange(len(order)))]
    index = rewrite.constant(f"places_{rewrite.places()}", torch.searchsorted(stay, picks))
    new.target, new.args, new.kwargs = aten.index_select.default, (new.all_input_nodes[0], dim, index), {}


def _order(rewrite: Rewrite, old: torch.fx.Node, source: torch.fx.Node, dim: int) -> Tensor:
    """Which place of the source stands in each place of the result, along the one dimension along which places move."""
    value = source.meta["val"]
    shape = [int(s) if d == dim else 1 for d, s in enumerate(value.shape)]
    numbers = torch.arange(shape[dim]).view(shape).double()
    named = {n: numbers if a is source else _known(rewrite, a) for n, a in arguments(old).items()}
    found = run(old.target, named).long()
    if found.ndim != value.ndim or found.numel() != found.shape[dim]:
        raise UnfitError(f"{old.name} moves channels along several dimensions")
    return found.flatten()


def _known(rewrite: Rewrite, argument: Any) -> Any:
    if isinstance(argument, list | tuple):
        return [_known(rewrite, a) for a in argument]
    if not isinstance(argument, torch.fx.Node):
        return argument
    value = rewrite.plan.coupling.values.get(argument)
    if value is None or value.const is None:
        raise UnfitError(f"{argument.name}, which picks channels, is computed")
    return value.const


@edit("unbind")
def unbound(rewrite: Rewrite, old: torch.fx.Node, new: torch.fx.Node) -> None:
    """Every place of a dimension by itself cannot lose one."""
    dim = (rewrite.given(old, "dim") or 0) % old.args[0].meta["val"].ndim  # type: ignore[union-attr]
    if dim in rewrite.layout(old.args[0]):
        raise UnfitError(f"{old.name} takes every channel apart")


@edit("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")
def layer_norm(rewrite: Rewrite, old: torch.fx.Node, new: torch.fx.Node) -> None:
    """Only whole heads or positions may go beside a norm; one over fewer channels was replaced before."""
    source = rewrite.given(old, "input")
    kept, size = rewrite.layout(source), len(rewrite.given(old, "normalized_shape"))
    if any(d >= source.meta["val"].ndim - size for d in kept):
        raise UnfitError(f"{old.name} normalises over channels that go")


@edit("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution", "_convolution")
def convolution(rewrite: Rewrite, old: torch.fx.Node, new: torch.fx.Node) -> None:
    """A depthwise convolution has as many groups as channels."""
    source, weight = rewrite.given(old, "input"), rewrite.given(old, "weight").meta["val"]
    groups = rewrite.given(old, "groups")
    dim = source.meta["val"].ndim - weight.ndim + 1
    places = rewrite.layout(source).get(dim)
    if groups > 1 and places is not None and source.meta["val"].shape[dim] == groups:
        rewrite.put(new, "groups", len(places))


@edit("group_norm", "native_group_norm")
def group_norm(rewrite: Rewrite, old: torch.fx.Node, new: torch.fx.Node) -> None:
    """A group norm over fewer channels was replaced before."""
    if 1 in rewrite.layout(rewrite.given(old, "input")):
        raise UnfitError(f"{old.name} normalises over channels that go")


@edit("mean")
def mean(rewrite: Rewrite, old: torch.fx.Node, new: torch.fx.Node) -> None:
    """A mean over channels of which the zeros went: fewer are summed, and as many as before are divided by."""
    source = old.args[0]
    value = source.meta["val"]  # type: ignore[union-attr]
    dims = rewrite.given(old, "dim")
    over = range(value.ndim) if not dims else [d % value.ndim for d in ([dims] if isinstance(dims, int) else dims)]
    factor = 1.0
    for dim, places in rewrite.layout(source).items():
        if dim in over:
            factor *= len(places) / int(value.shape[dim])
    if factor != 1.0:
        with rewrite.module.graph.inserting_after(new):
            scaled = rewrite.module.graph.call_function(aten.mul.Tensor, (new, factor))
        new.replace_all_uses_with(scaled)
        scaled.args = (new, factor)


@edit("scaled_dot_product_attention")
def attention(rewrite: Rewrite, old: torch.fx.Node, new: torch.fx.Node) -> None:
    """A mask with a dimension for heads loses theirs."""
    mask = rewrite.given(old, "attn_mask")
    if mask is not None:
        ndim = old.meta["val"].ndim
        kept = {d - (ndim - mask.meta["val"].ndim): p for d, p in rewrite.layout(old).items() if d < ndim - 2}
        shortened(rewrite, new, rewrite.given(new, "attn_mask"), mask, kept)


@edit("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def recurrent(rewrite: Rewrite, old: torch.fx.Node, new: torch.fx.Node) -> None:
    """Initial states that stand in the code lose the units that go."""
    starts, mine = rewrite.given(old, "hx"), rewrite.given(new, "hx")
    for number, (source, own) in enumerate(
        zip(starts, mine, strict=True) if isinstance(starts, list | tuple) else [(starts, mine)]
    ):
        results = rewrite.kept[old]
        ends = results if isinstance(results, list) else [results]
        ends = ends[1:] if len(ends) > 1 and "cell" not in rule_of(old.target)[0] else ends
        kept = ends[min(number, len(ends) - 1)]
        last = source.meta["val"].ndim - 1
        shortened(rewrite, new, own, source, {last: kept[last]} if last in kept else {})
