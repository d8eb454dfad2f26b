"""Products that sum over channels: linear layers, matrix products, einsum, attention. All are contractions over lettered dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from prunescope.pruning.coupling.channels import Label, Ledger, State, Value, line, vector
from prunescope.pruning.coupling.pointwise import merged
from prunescope.pruning.coupling.rules import Call, Result, at_least, rule

Letters = tuple[str, ...]


def contracted(ledger: Ledger, operands: Sequence[Value], letters: Sequence[Letters], out: Letters, shape: tuple[int, ...]) -> Value:
    """The product of `operands` over lettered dimensions, summed over those letters that `out` does not have.

    A channel along a summed letter ends there: the operands' channels along it are the same. One along a kept letter goes on. One along
    a summed and a kept letter that both operands have (the values of a head) becomes a channel along the kept one: the whole head.
    """
    passing: list[list[Label]] = []
    ending: list[tuple[int, frozenset[str], Label]] = []
    for number, (value, names) in enumerate(zip(operands, letters, strict=True)):
        kept: list[Label] = []
        for label in value.labels:
            along = {names[d] for d in label.dims}
            over = along - set(out)
            rest = {n for n in along - over if sum(n in other for other in letters) > 1}
            if not along:
                ledger.freeze(label.ids, "is used as a whole, apart from its neighbours")
            elif not over:
                kept.append(label)
            elif rest:
                whole = ledger.collapse(label, [d for d in label.dims if names[d] not in rest])
                ledger.mark(whole.ids, "head")
                kept.append(whole)
            else:
                ending.append((number, frozenset(over), ledger.collapse(label, [d for d in label.dims if names[d] not in over])))
        passing.append(kept)
    _end(ledger, operands, letters, ending)
    return _passed(ledger, operands, letters, out, shape, passing)


def _end(ledger: Ledger, operands: Sequence[Value], letters: Sequence[Letters], ending: list[tuple[int, frozenset[str], Label]]) -> None:
    """Channels that are summed over: united with those of the other operand, or mixed or frozen where it has none."""
    waiting = list(ending)
    while waiting:
        number, over, label = waiting.pop(0)
        partners = [w for w in waiting if w[0] != number and w[1] == over]
        if partners:
            waiting = [w for w in waiting if w not in partners]
            met = [(number, label), *((n, found) for n, _, found in partners)]
            _united(ledger, operands, letters, over, met)
            known = {n for n, _ in met}
            if any(v.data and over & set(names) and i not in known for i, (v, names) in enumerate(zip(operands, letters, strict=True))):
                ledger.freeze(label.ids, "meets values that no weight makes")
            continue
        others = [operands[i] for i in range(len(operands)) if i != number and over & set(letters[i])]
        if all(not p.data for p in others) and (operands[number].data or not others):
            ledger.mix(label, "is summed over" if not others else "is multiplied with a constant matrix")
        else:
            ledger.freeze(label.ids, "meets values that no weight makes")


def _united(
    ledger: Ledger, operands: Sequence[Value], letters: Sequence[Letters], over: frozenset[str], found: list[tuple[int, Label]]
) -> None:
    """Labels of several operands along the letters that are summed `over`: the same channels."""
    order = sorted(over)

    def laid(number: int, label: Label) -> torch.Tensor:
        names = letters[number]
        return label.ids.permute(_order(names, order)).reshape([label.ids.shape[names.index(n)] for n in order])

    first = laid(*found[0])
    for other in found[1:]:
        ledger.unite(first, laid(*other))
    _met(ledger, [(operands[n], label) for n, label in found])


def _order(names: Letters, order: list[str]) -> list[int]:
    return [names.index(n) for n in order] + [d for d, n in enumerate(names) if n not in order]


def _met(ledger: Ledger, met: list[tuple[Value, Label]]) -> None:
    """A weight's inputs are cut off with the channel that it takes; activations alone or weights alone have only their product."""
    weights = [label for value, label in met if not value.data]
    if 0 < len(weights) < len(met):
        for label in weights:
            ledger.mark(label.ids, "consumer")
        return
    zero = any(label.state is State.ZERO for _, label in met)
    for _, label in met:
        ledger.mix(replace(label, state=State.ZERO if zero else label.state), "is multiplied with another of the network's values")


def _passed(
    ledger: Ledger, operands: Sequence[Value], letters: Sequence[Letters], out: Letters, shape: tuple[int, ...], passing: list[list[Label]]
) -> Value:
    laid = []
    for value, names, labels in zip(operands, letters, passing, strict=True):
        known = [names.index(n) if n in names else None for n in out]
        sizes = tuple(1 if d is None else value.shape[d] for d in known)
        order = [d for d in known if d is not None]
        rest = [d for d in range(len(names)) if d not in order]
        moved = []
        for label in labels:
            ids = label.ids.permute([*order, *rest])
            ids = ids.flatten(len(order))[..., 0] if rest else ids
            moved.append(Label(ids.reshape([1 if d is None else label.ids.shape[d] for d in known]), label.state))
            if not value.data and any(v.data for v in operands):
                ledger.mark(label.ids, "producer")
        laid.append(Value(sizes, tuple(moved), value.data, None))
    labels = merged(ledger, laid, shape, lambda stand_ins: math.prod(stand_ins[1:], start=stand_ins[0]))
    return Value(shape, tuple(labels), any(v.data for v in operands))


def added(ledger: Ledger, value: Value, bias: Value | None) -> Value:
    """`value` with a bias (broadcast) added."""
    if bias is None:
        return value
    return value.with_labels(merged(ledger, [value, bias], value.shape, sum))


@rule("linear")
def linear(call: Call) -> Result:
    """Inputs times a weight (outputs, inputs), plus a bias."""
    value, weight = call["input"], call["weight"]
    lead = tuple(f"b{i}" for i in range(len(value.shape) - 1))
    product = contracted(call.ledger, [value, weight], [(*lead, "i"), ("o", "i")], (*lead, "o"), call.shape)
    return added(call.ledger, product, call.get("bias"))


@rule("mm", "bmm", "matmul", "mv", "dot", "inner", "vdot")
def matmul(call: Call) -> Result:
    """Matrix products with leading dimensions in common."""
    left, right = call.tensors[:2]
    one = tuple(f"b{i}" for i in range(len(left.shape) - 2, 0, -1)) + (("n", "k") if len(left.shape) > 1 else ("k",))
    two = tuple(f"b{i}" for i in range(len(right.shape) - 2, 0, -1)) + (("k", "m") if len(right.shape) > 1 else ("k",))
    if call.name == "inner":
        return call.opaque("no rule for inner")
    longer = one[:-2] if len(one) >= len(two) else two[:-2]
    out = longer + (("n",) if "n" in one else ()) + (("m",) if "m" in two else ())
    return contracted(call.ledger, [left, right], [one, two], out, call.shape)


@rule("addmm", "baddbmm", "addmv")
def addmm(call: Call) -> Result:
    """A matrix product added to a tensor."""
    start, left, right = call.tensors[:3]
    batch = ("b",) if call.name == "baddbmm" else ()
    two = (*batch, "k", "m") if call.name != "addmv" else ("k",)
    out = (*batch, "n", "m") if call.name != "addmv" else ("n",)
    return added(call.ledger, contracted(call.ledger, [left, right], [(*batch, "n", "k"), two], out, call.shape), start)


@rule("einsum")
def einsum(call: Call) -> Result:
    """A contraction that is written as such."""
    operands = list(call["tensors"])
    text = call["equation"].replace(" ", "")
    inputs, arrow, out = text.partition("->")
    terms = inputs.split(",")
    if any(len(set(t.replace("...", ""))) < len(t.replace("...", "")) for t in terms):
        return call.opaque("einsum with a letter twice in one operand")
    if not arrow:
        letters = sorted(c for c in set(inputs.replace(",", "").replace(".", "")) if inputs.count(c) == 1)
        out = ("..." if "..." in inputs else "") + "".join(letters)
    dots = [len(v.shape) - len(t.replace("...", "")) for v, t in zip(operands, terms, strict=True)]
    spread = max(dots) if "..." in text else 0
    named = [_spread(t, n, spread) for t, n in zip(terms, dots, strict=True)]
    return contracted(call.ledger, operands, named, _spread(out, spread, spread), call.shape)


def _spread(term: str, dots: int, most: int) -> Letters:
    before, dotted, after = term.partition("...")
    return (*before, *[f".{i}" for i in range(most - dots, most) if dotted], *after)


@rule("scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_attention_math")
def attention(call: Call) -> Result:
    """softmax(queries keys^T / sqrt(d) + mask) values, over the last two dimensions; heads are the dimension before."""
    query, key, value = call["query"], call["key"], call["value"]
    if call.get("enable_gqa") and query.shape[-3] != key.shape[-3]:
        key, value = (_repeated(t, query.shape[-3] // t.shape[-3]) for t in (key, value))
    lead = tuple(f"b{i}" for i in range(len(query.shape) - 2))
    shape = (*query.shape[:-1], key.shape[-2])
    scores = contracted(call.ledger, [query, key], [(*lead, "l", "d"), (*lead, "s", "d")], (*lead, "l", "s"), shape)
    scores = added(call.ledger, scores, call.get("attn_mask"))
    weights = scores.with_labels(at_least(n, State.CONST) for n in scores.labels if not n.dims & {len(lead), len(lead) + 1})
    for label in scores.labels:
        if label.dims & {len(lead), len(lead) + 1}:
            call.ledger.freeze(label.ids, "is a position of attention")
    letters, shape = [(*lead, "l", "s"), (*lead, "s", "e")], (*shape[:-1], value.shape[-1])
    return call.result(contracted(call.ledger, [weights, value], letters, (*lead, "l", "e"), shape).labels)


def _repeated(value: Value, times: int) -> Value:
    dim = len(value.shape) - 3
    shape = tuple(s * times if d == dim else s for d, s in enumerate(value.shape))
    labels = (replace(n, ids=n.ids.repeat_interleave(times, dim)) if dim in n.dims else n for n in value.labels)
    return Value(shape, tuple(labels), value.data)


def consumed(ledger: Ledger, value: Value, dim: int, inputs: Label | None, weight_dim: int) -> None:
    """A layer's weight takes the channels of `value` along `dim`: united with the weight's `inputs`, which run along `weight_dim`."""
    size = value.shape[dim]
    found = False
    for label in value.labels:
        if dim % len(value.shape) not in label.dims:
            ledger.freeze(label.ids, "runs along positions that the layer sums over or goes through in order")
            continue
        whole = ledger.collapse(label, label.dims - {dim % len(value.shape)})
        found = True
        if inputs is None:
            ledger.freeze(whole.ids, "goes into weights that are computed")
        else:
            ledger.unite(vector(whole, dim % len(value.shape), size), vector(inputs, weight_dim, size))
    if inputs is not None:
        ledger.mark(inputs.ids, "consumer")
        if not found:
            ledger.freeze(inputs.ids, "takes values that no weight makes")


def produced(ledger: Ledger, ids: torch.Tensor, shape: tuple[int, ...], dim: int, *, data: bool = True) -> Value:
    """A layer's output of `shape` whose channels (size,) run along `dim`."""
    ledger.mark(ids, "producer")
    return Value(shape, (Label(line(ids, dim, len(shape))),), data)
