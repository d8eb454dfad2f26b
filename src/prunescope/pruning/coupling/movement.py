"""Operations that move values and change none: they are carried out on the channel numbers themselves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from prunescope.pruning.coupling.channels import CONSTANT, OPAQUE, Label, State, Value, compressed
from prunescope.pruning.coupling.pointwise import merged
from prunescope.pruning.coupling.rules import Call, Result, rule


@rule("clone", "contiguous", "detach", "alias", "lift_fresh_copy", "to", "_to_copy", "type_as", "dropout", "feature_dropout",
      "alpha_dropout", "native_dropout", "requires_grad_", "detach_", "resolve_conj", "resolve_neg", "lift_fresh", "view_as",
      "reshape_as")  # fmt: skip
def same(call: Call) -> Result:
    """Copies and conversions: every place stays what it was."""
    if tuple(call.shape) != call.input.shape:
        return reshape(call)
    return call.result(call.input.labels)


@rule("view", "reshape", "_unsafe_view", "flatten", "unflatten", "ravel", "_reshape_alias")
def reshape(call: Call) -> Result:
    """Other shapes over the same order of values."""
    return call.result(replace(label, ids=_reshaped(label.ids, call.input.shape, call.shape)) for label in call.input.labels)


def _reshaped(ids: Tensor, old: Sequence[int], new: Sequence[int]) -> Tensor:
    """`ids` in the new shape: only blocks of dimensions along which channels run are written out."""
    wide, target, runs = [], [], []
    for left, right in _blocks(list(old), list(new)):
        along = any(ids.shape[d] > 1 for d in left)
        wide += [old[d] if along else 1 for d in left]
        target += [new[d] if along else 1 for d in right]
        runs += [along] * len(right)
    return compressed(ids.expand(wide).reshape(target), [d for d, along in enumerate(runs) if along])


def _blocks(old: list[int], new: list[int]) -> list[tuple[list[int], list[int]]]:
    """Pairs of consecutive dimensions of both shapes that hold the same number of values, as small as they come."""
    found, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        left, right = ([i] if i < len(old) else []), ([j] if j < len(new) else [])
        i, j = i + len(left), j + len(right)
        while (a := math.prod(old[d] for d in left)) != (b := math.prod(new[d] for d in right)):
            if a < b:
                left.append(i)
                i += 1
            else:
                right.append(j)
                j += 1
        found.append((left, right))
    return found


@rule("permute", "transpose", "t", "movedim", "moveaxis", "swapaxes", "swapdims", "numpy_T", "mT", "adjoint", "permute_copy")
def permute(call: Call) -> Result:
    """The same dimensions in another order."""
    return call.result(replace(label, ids=_applied(call, label.ids)) for label in call.input.labels)


@rule("unsqueeze", "squeeze", "squeeze_copy", "unsqueeze_copy")
def squeeze(call: Call) -> Result:
    """Dimensions of size 1 come or go; which ones is seen on a stand-in whose other dimensions are longer than 1."""
    return call.result(replace(label, ids=_reshaped(label.ids, call.input.shape, call.shape)) for label in call.input.labels)


@rule("expand", "expand_as", "broadcast_to", "expand_copy")
def expand(call: Call) -> Result:
    """Repeated along new or single dimensions: no channel runs along these."""
    lead = len(call.shape) - len(call.input.shape)
    labels = tuple(replace(label, ids=label.ids.view([1] * lead + list(label.ids.shape))) for label in call.input.labels)
    old = (1,) * lead + call.input.shape
    flat = frozenset(d for d, size in enumerate(call.shape) if size != old[d] or d < lead)
    return Value(call.shape, labels, call.data, None, flat)


EXPANDING = ("expand", "expand_as", "broadcast_to", "expand_copy")


@rule("slice", "select", "narrow", "split", "split_with_sizes", "chunk", "unbind", "tensor_split", "flip", "roll", "slice_copy",
      "select_copy", "unbind_copy", "split_copy", "split_with_sizes_copy")  # fmt: skip
def part(call: Call) -> Result:
    """Parts of a tensor along named dimensions, or those turned round."""
    dims = call.get("dim") if call.get("dim") is not None else call.get("dims")
    dims = [0] if dims is None else [dims] if isinstance(dims, int) else list(dims)
    if call.name == "roll" and not dims:
        dims = list(range(len(call.input.shape)))
    return _moved(call, [d % len(call.input.shape) for d in dims])


@rule("repeat", "tile", "repeat_interleave", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "unfold",
      "im2col", "diagonal", "rot90", "unfold_copy")  # fmt: skip
def rearranged(call: Call) -> Result:
    """Any other way of moving values: done on the numbers of all places."""
    if any(isinstance(a, Value) and a is not call.input for a in call.arguments.values()):
        return call.opaque(f"{call.name} by an index that is computed")
    return _moved(call, range(len(call.input.shape)))


def _moved(call: Call, dims: Iterable[int]) -> Result:
    """The operation on each label, written out along `dims` and along those alone."""
    dims = list(dims)
    per_label: list[Any] = []
    for label in call.input.labels:
        wide = [size if d in dims else label.ids.shape[d] for d, size in enumerate(call.input.shape)]
        per_label.append((label, _applied(call, label.ids.expand(wide))))
    if isinstance(call.shapes, tuple):
        return call.result(replace(label, ids=compressed(ids)) for label, ids in per_label)
    return [
        Value(shape, tuple(replace(label, ids=compressed(ids[i])) for label, ids in per_label), call.data)
        for i, shape in enumerate(call.shapes)
    ]


def _applied(call: Call, ids: Tensor) -> Any:
    """What the operation makes of the channel numbers."""
    if call.name == "im2col":  # not there for whole numbers; doubles hold them exactly
        return run(call.target, {n: (ids.double() if a is call.input else a) for n, a in call.arguments.items()}).long()
    arguments = {n: (ids if a is call.input else a) for n, a in call.arguments.items()}
    return run(call.target, arguments)


def run(target: Any, arguments: dict[str, Any]) -> Any:
    """Call an ATen overload with arguments by the schema's names."""
    schema = target._schema.arguments
    positional = [arguments[a.name] for a in schema if not a.kwarg_only]
    return target(*positional, **{a.name: arguments[a.name] for a in schema if a.kwarg_only and a.name in arguments})


@rule("cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack", "column_stack")
def cat(call: Call) -> Result:
    """Tensors one after another: channels along that dimension stay apart, those along others are the same in all parts."""
    parts, dim = list(call["tensors"]), call.get("dim")
    if call.name in ("hstack", "vstack", "dstack", "column_stack"):
        dim = {"hstack": min(1, len(call.shape) - 1), "vstack": 0, "dstack": 2, "column_stack": 1}[call.name]
        if any(len(p.shape) != len(call.shape) for p in parts):
            return call.opaque(f"{call.name} of tensors with other dimensions")
    dim = (dim or 0) % len(call.shape)
    if call.name == "stack":
        parts = [_lifted(p, dim) for p in parts]
    parts = [p for p in parts if len(p.shape) == len(call.shape)]  # an empty tensor of one dimension may stand among them
    return _side_by_side(call, parts, dim)


def _side_by_side(call: Call, parts: list[Value], dim: int) -> Result:
    across = merged(call.ledger, [_without(p, dim) for p in parts], tuple(1 if d == dim else s for d, s in enumerate(call.shape)), _joined)
    along = _laid(call, parts, dim)
    return call.result([*across, *([along] if along is not None else [])])


def _joined(call_operands: list[Any]) -> Any:
    """What a removed channel holds after tensors were put side by side: whatever any part of it holds."""
    return sum(torch.as_tensor(o).double().abs() for o in call_operands)


def _lifted(value: Value, dim: int) -> Value:
    shape = (*value.shape[:dim], 1, *value.shape[dim:])
    return Value(shape, tuple(replace(n, ids=n.ids.unsqueeze(dim)) for n in value.labels), value.data, _maybe(value.const, dim))


def _maybe(const: Tensor | None, dim: int) -> Tensor | None:
    return None if const is None else const.unsqueeze(dim)


def _without(value: Value, dim: int) -> Value:
    """The part as far as it is the same along `dim`: its labels that do not run along it."""
    shape = tuple(1 if d == dim else s for d, s in enumerate(value.shape))
    own = _along(value, dim)
    return Value(shape, tuple(n for n in value.labels if n not in own), value.data, value.const)


def _along(value: Value, dim: int) -> list[Label]:
    """The labels of a part that run along `dim`; in a part of size 1 there, a channel cut out by itself is one."""
    return value.along(dim) or [n for n in value.labels if not n.dims and value.shape[dim] == 1]


def _laid(call: Call, parts: list[Value], dim: int) -> Label | None:
    """One label of all channels along `dim`; parts without any are opaque there or constant."""
    found = [_along(p, dim) for p in parts]
    if not any(found):
        return None
    state = max(n.state for labels in found for n in labels)
    pieces = []
    for value, labels in zip(parts, found, strict=True):
        size = value.shape[dim]
        if labels:
            first = labels[0]
            for other in labels[1:]:
                first = replace(first, ids=call.ledger.unite(first.ids, other.ids))
            pieces.append(first.ids)
        else:
            pieces.append(torch.full([1] * dim + [size] + [1] * (len(call.shape) - dim - 1), OPAQUE if value.data else CONSTANT))
            if not value.data and (value.const is None or bool(value.const.any())):
                state = max(state, State.CONST)
    sizes = [max(p.shape[d] for p in pieces) for d in range(len(call.shape))]
    return Label(torch.cat([p.expand([p.shape[d] if d == dim else sizes[d] for d in range(len(sizes))]) for p in pieces], dim), state)


@rule("slice_scatter", "select_scatter")
def overwritten(call: Call) -> Result:
    """A tensor with a part along one dimension replaced: what is before, the new part, what is after."""
    value, source, dim = call["self"], call["src"], call["dim"] % len(call.shape)
    size = value.shape[dim]
    if call.name == "select_scatter":
        source, start = _lifted(source, dim), call["index"] % size
    elif call["step"] != 1:
        return call.opaque("overwriting in steps")
    else:
        start = 0 if call["start"] is None else max(0, call["start"] + size if call["start"] < 0 else call["start"])
    end = start + source.shape[dim]
    parts = [_narrow(value, dim, 0, start), source, _narrow(value, dim, end, size)]
    return _side_by_side(call, [p for p in parts if p.shape[dim]], dim)


def _narrow(value: Value, dim: int, start: int, end: int) -> Value:
    shape = tuple(end - start if d == dim else s for d, s in enumerate(value.shape))
    if end <= start:
        return Value(shape)
    labels = tuple(replace(n, ids=n.ids[(slice(None),) * dim + (slice(start, end),)] if dim in n.dims else n.ids) for n in value.labels)
    const = None if value.const is None else value.const.narrow(dim, start, end - start)
    return Value(shape, labels, value.data, const)


@rule("copy")
def copied(call: Call) -> Result:
    """The source, broadcast to the shape of what it replaces."""
    source = call["src"]
    lead = len(call.shape) - len(source.shape)
    return Value(call.shape, tuple(replace(n, ids=n.ids.view([1] * lead + list(n.ids.shape))) for n in source.labels), source.data)


@rule("constant_pad_nd", "pad")
def pad(call: Call) -> Result:
    """Constants round the tensor: new channels without weights where channels run along the padded dimension."""
    amounts, value = list(call["pad"]), call.get("value") or 0
    dims = [len(call.input.shape) - 1 - i // 2 for i in range(0, len(amounts), 2) if amounts[i] or amounts[i + 1]]
    if call.get("mode") not in (None, "constant"):
        kept = (label for label in call.input.labels if not label.dims & set(dims) or _frozen(call, label, "padding by its neighbours"))
        return call.result(kept)
    labels = []
    for label in call.input.labels:
        here = [a if label.ids.shape[len(call.input.shape) - 1 - i // 2] > 1 else 0 for i, a in enumerate(amounts)]
        state = label.state if not any(here) or value == 0 else max(label.state, State.CONST)
        labels.append(Label(torch.nn.functional.pad(label.ids, here, value=CONSTANT), state))
    return call.result(labels)


@rule("reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d", "replication_pad2d", "replication_pad3d")
def mirrored(call: Call) -> Result:
    """Neighbours round the tensor."""
    dims = set(range(len(call.input.shape) - int(call.name[-2]), len(call.input.shape)))
    return call.result(n for n in call.input.labels if not n.dims & dims or _frozen(call, n, "padding by its neighbours"))


def _frozen(call: Call, label: Label, reason: str) -> bool:
    call.ledger.freeze(label.ids, reason)
    return False


@rule("index", "index_select", "gather", "embedding")
def looked_up(call: Call) -> Result:
    """Rows picked by an index: channels along other dimensions pass; those along the picked one do where the index is a known constant."""
    value, dims, place, width = _lookup(call)
    if dims is None:
        return call.opaque(f"{call.name} by several indices")
    labels = []
    for label in value.labels:
        if label.dims & dims:
            picked = _picked(call, label, dims) if value.data else None
            if picked is None:
                call.ledger.freeze(label.ids, "its places are looked up by an index")
            else:
                labels.append(replace(label, ids=picked))
            continue
        ids = label.ids
        if call.name == "gather":  # it may take fewer places along the other dimensions
            ids = ids[tuple(slice(0, n) if ids.shape[d] > 1 else slice(None) for d, n in enumerate(call.shape))]
        shape = list(ids.shape)
        kept = [s for d, s in enumerate(shape) if d not in dims]
        labels.append(replace(label, ids=ids.reshape([*kept[:place], *[1] * width, *kept[place:]])))
    if call.name == "embedding":
        for label in labels:
            call.ledger.mark(label.ids, "producer")
    return call.result(labels)


def _picked(call: Call, label: Label, dims: set[int]) -> Tensor | None:
    """The channel numbers of the values that a constant index picks; None where the index is not known."""
    value = call.input
    if call.name == "index":
        chosen = [None if i is None else i.const for i in call["indices"]]
        if any(c is None and i is not None for c, i in zip(chosen, call["indices"], strict=True)):
            return None
        wide = label.ids.expand([s if d in dims else label.ids.shape[d] for d, s in enumerate(value.shape)])
        return compressed(wide[tuple(slice(None) if c is None else c for c in chosen)])
    index = call["index"].const
    if index is None:
        return None
    if call.name == "gather":
        return compressed(label.ids.expand(value.shape).gather(call["dim"], index))
    return compressed(label.ids.index_select(call["dim"], index))


@rule("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only")
def bagged(call: Call) -> Result:
    """Rows of a table summed, averaged or compared over each bag: its columns pass, each by itself; its rows are looked up."""
    labels = []
    for label in call["weight"].labels:
        if 0 in label.dims:
            call.ledger.freeze(label.ids, "its places are looked up by an index")
        else:
            call.ledger.mark(label.ids, "producer")
            labels.append(label)
    return [Value(s, tuple(labels) if i == 0 else (), True) for i, s in enumerate(call.shapes)]


def _lookup(call: Call) -> tuple[Value, set[int] | None, int, int]:
    """(tensor, its picked dimensions, where the index's dimensions go, how many these are)."""
    if call.name == "embedding":
        return call["weight"], {0}, 0, len(call["indices"].shape)
    value = call.input
    if call.name in ("index_select", "gather"):
        dim = call["dim"] % len(value.shape)
        return value, {dim}, dim, 1
    indices = list(call["indices"])
    picked = [d for d, i in enumerate(indices) if i is not None]
    masks = [indices[d].const for d in picked if indices[d].const is not None]
    if picked != list(range(picked[0], picked[-1] + 1)) or any(m.dtype == torch.bool for m in masks):
        return value, None, 0, 0
    return value, set(picked), picked[0], max(len(indices[d].shape) for d in picked)
