"""Recurrent layers and cells: hidden unit j has a row in every gate, a column of the recurrent weight, and one of the next layer's."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from prunescope.pruning.coupling.channels import Label, State, Value, line, vector
from prunescope.pruning.coupling.contraction import consumed
from prunescope.pruning.coupling.rules import Call, Result, rule


@rule("lstm", "gru", "rnn_tanh", "rnn_relu")
def recurrent(call: Call) -> Result:
    """Stacked, bidirectional and projected recurrent layers over a sequence."""
    if "params" not in call.arguments or "batch_sizes" in call.arguments:
        return call.opaque("packed sequences")
    value, params, biased = call["input"], list(call["params"]), call["has_biases"]
    states = call["hx"] if isinstance(call["hx"], list | tuple) else [call["hx"]]
    directions = 2 if call["bidirectional"] else 1
    projected = call.name == "lstm" and states[0].shape[-1] != states[1].shape[-1]
    size = 2 + 2 * bool(biased) + projected
    hidden: list[Tensor] = []
    cells: list[Tensor] = []
    state = State.ZERO
    for layer in range(call["num_layers"]):
        outs = []
        for direction in range(directions):
            number = layer * directions + direction
            weights = params[number * size : (number + 1) * size]
            out, cell = _layer(call, value, weights, biased, projected)
            state = max(state, *(_started(call, s, number, c) for s, c in zip(states, (out, cell), strict=False)))
            outs.append(out)
            hidden.append(out)
            cells.append(cell)
        width = torch.cat(outs)
        shape = (*value.shape[:-1], len(width))
        value = Value(shape, (Label(line(width, -1, len(shape)), state),), True)
    last = [_stacked(call, parts, state) for parts in ((hidden, cells) if call.name == "lstm" else (hidden,))]
    return [value, *last]


def _stacked(call: Call, parts: list[Tensor], state: State) -> Value:
    shape = next(s for s in call.shapes[1:] if s[-1] == len(parts[0]))
    ids = torch.stack(parts).view(len(parts), *[1] * (len(shape) - 2), -1)
    return Value(shape, (Label(ids, state),), True)


def _layer(call: Call, value: Value, weights: list[Value], biased: bool, projected: bool) -> tuple[Tensor, Tensor]:
    """Channels (hidden,) of one layer's output and (cells,) of its cell state; the same without a projection."""
    ledger, taking, again = call.ledger, weights[0], weights[1]
    gates = {"lstm": 4, "gru": 3}.get(call.name.removesuffix("_cell"), 1)
    consumed(ledger, value, len(value.shape) - 1, next((n for n in taking.labels if n.dims == {1}), None), 1)
    rows = [_rows(w, gates) for w in (taking, again, *(weights[2:4] if biased else ()))]
    cell = rows[0][:1]
    for row in rows:
        ledger.unite(cell, row)
    ledger.mark(torch.cat([r.flatten() for r in rows[:2]]), "producer")
    cell = cell.flatten()
    columns = next((n for n in again.labels if n.dims == {1}), None)
    back = torch.zeros(again.shape[1], dtype=torch.int64) if columns is None else vector(columns, 1, again.shape[1])
    ledger.mark(back, "consumer")
    if not projected:
        ledger.unite(cell, back)
        return cell, cell
    narrow = weights[-1]
    out, inner = (_side(narrow, d) for d in (0, 1))
    ledger.unite(inner, cell)
    ledger.unite(out, back)
    ledger.mark(out, "producer")
    ledger.mark(inner, "consumer")
    return out, cell


def _rows(weight: Value, gates: int) -> Tensor:
    return _side(weight, 0).view(gates, -1)


def _side(weight: Value, dim: int) -> Tensor:
    label = next((n for n in weight.labels if n.dims == {dim}), None)
    return torch.zeros(weight.shape[dim], dtype=torch.int64) if label is None else vector(label, dim, weight.shape[dim])


def _started(call: Call, start: Value, number: int, ids: Tensor) -> State:
    """The initial state of layer `number`: zeros leave a removed unit at zero, other constants let it fade, values freeze it."""
    if start.labels:
        for label in start.labels:
            if len(start.shape) - 1 in label.dims:
                own = label.ids[number] if label.ids.shape[0] > 1 else label.ids[0]
                call.ledger.unite(own.reshape(-1), ids) if own.numel() == len(ids) else call.ledger.freeze(own, "starts a recurrent layer")
            else:
                call.ledger.freeze(label.ids, "is a position of a recurrent layer's start")
        return max(label.state for label in start.labels)
    if start.data:
        call.ledger.freeze(ids, "starts from values that no weight makes")
        return State.VARY
    return State.CONST if start.const is None or bool(start.const.any()) else State.ZERO


@rule("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def cell(call: Call) -> Result:
    """One step of a recurrent layer."""
    states = call["hx"] if isinstance(call["hx"], list | tuple) else [call["hx"]]
    weights = [w for w in (call["w_ih"], call["w_hh"], call.get("b_ih"), call.get("b_hh")) if w is not None]
    ids, _ = _layer(call, call["input"], weights, len(weights) > 2, False)
    state = State.ZERO
    for start in states:
        lifted = Value((1, *start.shape), tuple(replace(n, ids=n.ids.unsqueeze(0)) for n in start.labels), start.data, start.const)
        state = max(state, _started(call, lifted, 0, ids))
    shapes = [call.shapes] if isinstance(call.shapes, tuple) else call.shapes
    values = [Value(s, (Label(line(ids, -1, len(s)), state),), True) for s in shapes]
    return values[0] if isinstance(call.shapes, tuple) else values
