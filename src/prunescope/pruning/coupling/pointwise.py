"""Operations place by place, and how the channels of several operands meet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from prunescope.pruning.coupling.channels import Label, Ledger, State, Value
from prunescope.pruning.coupling.rules import Call, Result, rule

Evaluate = Callable[[list[Any]], Any]
SAMPLES = torch.tensor([-2.25, -0.75, 0.5, 1.75, 3.0], dtype=torch.float64)


@rule("hardswish", "log_sigmoid", "selu", "celu", "relu6", "hardsigmoid", "softsign", "tanhshrink", "masked_fill", "where", "nan_to_num",
      "clamp", "floor_divide", "rsub", "square", "lerp")  # fmt: skip
def pointwise(call: Call) -> Result:
    """Any operation on places with the same index; what it makes of zeros is tried out."""
    operands = call.tensors

    def evaluate(values: list[Any]) -> Any:
        standing = iter(values)
        arguments = {n: _replaced(a, standing) for n, a in call.arguments.items()}
        schema = call.target._schema.arguments
        positional = [arguments[a.name] for a in schema if not a.kwarg_only]
        wanted = {a.name: arguments[a.name] for a in schema if a.kwarg_only and a.name in arguments and a.name != "out"}
        return call.target(*positional, **wanted)

    return call.result(merged(call.ledger, operands, call.shape, evaluate))


def _replaced(argument: Any, standing: Any) -> Any:
    if isinstance(argument, Value):
        return next(standing)
    return [_replaced(a, standing) for a in argument] if isinstance(argument, list | tuple) else argument


def merged(ledger: Ledger, operands: Sequence[Value], shape: tuple[int, ...], evaluate: Evaluate) -> list[Label]:
    """The labels of the result of operands that are broadcast to `shape`; `evaluate` computes it for stand-ins of the operands.

    Channels that run along the same dimensions are the same ones. A parameter that runs along some of another's dimensions is shared
    by its channels and therefore frozen. A channel along which another operand has values of its own, and no channels, cannot go.
    """
    aligned = [_aligned(v, len(shape)) for v in operands]
    found: list[tuple[Label, dict[int, State]]] = []
    for number, value in enumerate(aligned):
        for label in value.labels:
            _meet(ledger, found, number, label, aligned)
    labels = []
    for label, states in found:
        for number, value in enumerate(aligned):
            if number not in states and value.data and any(value.shape[d] > 1 and d not in value.flat for d in label.dims):
                ledger.freeze(label.ids, "meets values that no weight makes")
        labels.append(Label(label.ids, _state(aligned, states, evaluate)))
    return labels


def _aligned(value: Value, ndim: int) -> Value:
    lead = [1] * (ndim - len(value.shape))
    labels = tuple(Label(n.ids.view([*lead, *n.ids.shape]), n.state) for n in value.labels)
    return Value((*lead, *value.shape), labels, value.data, value.const, frozenset(d + len(lead) for d in value.flat))


def _meet(
    ledger: Ledger, found: list[tuple[Label, dict[int, State]]], number: int, label: Label, operands: Sequence[Value]
) -> None:
    """Join `label` of operand `number` to the labels found before that run along dimensions of its own."""
    while True:
        place = next((i for i, (f, states) in enumerate(found) if number not in states and f.dims & label.dims), None)
        if place is None:
            place = next((i for i, (f, states) in enumerate(found) if number not in states and not f.dims and not label.dims), None)
        if place is None:
            found.append((label, {number: label.state}))
            return
        other, states = found[place]
        if other.dims != label.dims:
            if label.dims < other.dims and not operands[number].data:
                ledger.share(label.ids, other.ids)
                return
            if other.dims < label.dims and not any(operands[n].data for n in states):
                ledger.freeze(other.ids, "is shared by channels along another dimension")
                found.pop(place)
                continue
        ids = ledger.unite(other.ids, label.ids)
        if other.dims != label.dims:
            ids = _narrowed(ids, other.dims & label.dims)
        found[place] = (Label(ids, max(other.state, label.state)), {**states, number: label.state})
        return


def _narrowed(ids: Tensor, dims: frozenset[int]) -> Tensor:
    """After labels of unlike dimensions were united, one runs along those that both have."""
    for d in range(ids.ndim):
        if d not in dims:
            ids = ids.narrow(d, 0, 1)
    return ids


def _state(operands: Sequence[Value], states: dict[int, State], evaluate: Evaluate) -> State:
    """What a removed channel's places hold in the result, from what they hold in each operand that has the channel."""
    size = len(SAMPLES)
    stand_ins: list[Any] = []
    for number, value in enumerate(operands):
        if states.get(number) is State.ZERO:
            stand_ins.append(torch.zeros(size, dtype=torch.float64))
        elif value.const is not None and value.const.numel() and not bool((value.const != value.const.flatten()[0]).any()):
            first = value.const.flatten()[0]
            stand_ins.append((first if first.dtype == torch.bool else first.double()).expand(size))
        else:
            stand_ins.append(SAMPLES.roll(number))
    vary = any(s is State.VARY for s in states.values()) or any(v.data and n not in states for n, v in enumerate(operands))
    try:
        zero = not bool(torch.as_tensor(evaluate(stand_ins)).any())
    except (RuntimeError, TypeError, NotImplementedError):  # integers, booleans or complex numbers are expected
        zero = _zero_of_booleans(stand_ins, operands, evaluate)
    return State.ZERO if zero else State.VARY if vary else State.CONST


def _zero_of_booleans(stand_ins: list[Any], operands: Sequence[Value], evaluate: Evaluate) -> bool:
    """Tried again with conditions: the first stand-in as true and false."""
    try:
        return not bool(torch.as_tensor(evaluate([stand_ins[0] > 0, *stand_ins[1:]])).any()) and not bool(
            torch.as_tensor(evaluate([stand_ins[0] <= 0, *stand_ins[1:]])).any()
        )
    except (RuntimeError, TypeError, NotImplementedError):
        pass
    try:  # masked_fill and the like: the condition comes second
        return not bool(torch.as_tensor(evaluate([stand_ins[0], stand_ins[1] > 0, *stand_ins[2:]])).any())
    except (RuntimeError, TypeError, NotImplementedError, IndexError):
        return False


@rule("prelu", "_prelu_kernel")
def prelu(call: Call) -> Result:
    """A slope for each channel (dimension 1), or one for all."""
    value, slope = call["self"], call["weight"]
    if len(slope.shape) == 1 and slope.shape[0] > 1:
        slope = Value((slope.shape[0], *[1] * (len(value.shape) - 2)), tuple(
            Label(n.ids.view(-1, *[1] * (len(value.shape) - 2)), n.state) for n in slope.labels), slope.data)  # fmt: skip
    return call.result(merged(call.ledger, [value, slope], call.shape, lambda v: torch.where(v[0] > 0, v[0], v[0] * v[1])))
