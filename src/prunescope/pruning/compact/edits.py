"""What becomes of each operation's arguments where channels went: sizes, places, groups, and operands without channels of their own."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.fx
from torch import Tensor

from prunescope.pruning.compact.intakes import arguments
from prunescope.pruning.compact.layout import Layout, before, shape
from prunescope.pruning.compact.own import UnfitError
from prunescope.pruning.compact.rewriting import Rewrite, aten, edit
from prunescope.pruning.coupling.movement import run
from prunescope.pruning.coupling.walk import rule_of


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
    nodes: list[Any] = list(old.args)
    mine: list[Any] = list(new.args)
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
    sizes = [int(((places >= a) & (places < b)).sum()) for a, b in itertools.pairwise(edges)]
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
    elsewhere = _moved_dimensions(old, source) - {dim}
    if elsewhere and dim not in _moved_dimensions(old, source):
        return  # only positions change places
    if elsewhere:
        raise UnfitError(f"{old.name} moves channels and positions at once")
    order = _order(rewrite, old, source, dim)
    picks = order[wanted.get(dim, torch.arange(len(order)))]
    index = rewrite.constant(f"places_{rewrite.places()}", torch.searchsorted(stay, picks))
    new.target, new.args, new.kwargs = aten.index_select.default, (new.all_input_nodes[0], dim, index), {}


def _moved_dimensions(old: torch.fx.Node, source: torch.fx.Node) -> set[int]:
    """The dimensions along which an operation moves places."""
    name, named, ndim = rule_of(old.target)[0], arguments(old), source.meta["val"].ndim
    if name == "index":
        return {d for d, index in enumerate(named["indices"]) if index is not None}
    if name == "roll":
        return {d % ndim for d in named["dims"]} or set(range(ndim))
    return {named["dim"] % ndim} if name == "index_select" else {1}


def _order(rewrite: Rewrite, old: torch.fx.Node, source: torch.fx.Node, dim: int) -> Tensor:
    """Which place of the source stands in each place of the result, along the one dimension along which places move."""
    value = source.meta["val"]
    shape = [int(s) if d == dim else 1 for d, s in enumerate(value.shape)]
    numbers = torch.arange(shape[dim]).view(shape).double()
    named = {n: numbers if a is source else _known(rewrite, a) for n, a in arguments(old).items()}
    found: Tensor = run(old.target, named).long()
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
    for number, (source, own) in enumerate(zip(starts, mine, strict=True) if isinstance(starts, list | tuple) else [(starts, mine)]):
        results = rewrite.kept[old]
        ends = results if isinstance(results, list) else [results]
        ends = ends[1:] if len(ends) > 1 and "cell" not in rule_of(old.target)[0] else ends
        kept = ends[min(number, len(ends) - 1)]
        last = source.meta["val"].ndim - 1
        shortened(rewrite, new, own, source, {last: kept[last]} if last in kept else {})
