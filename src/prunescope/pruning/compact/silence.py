"""Recurrent units that stay at zero: those whose candidate state is zero at every step, whatever goes in."""

from __future__ import annotations

import torch
from torch import Tensor

from prunescope.pruning.compact.varying import Result, Seen, Step, squeezed, vary, zeros

RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")


@vary(*RECURRENT)
def recurrent(step: Step) -> Result:
    """A unit is fixed when it stays at zero: no input, no other unit and no bias reaches its candidate state.

    One whose bias is not zero follows a course of its own in time, which counts as varying: no bias of a next layer could stand for it.
    """
    cells, outs, silent = _silent(step)[:3]
    width = [1] * (step.result[0].ndim - 1)
    flags = [squeezed(~silent.view(*width, -1))]
    for held, result in zip((outs, cells), step.result[1:], strict=False):
        flags.append(squeezed(~torch.stack(held).view(len(held), *[1] * (result.ndim - 2), -1)))
    return flags


def silent_columns(step: Step) -> list[tuple[int, Tensor]]:
    """(place in the operation's list of weights, flags): the columns of each weight whose inputs stay at zero."""
    return _silent(step)[3]


def _silent(step: Step) -> tuple[list[Tensor], list[Tensor], Tensor, list[tuple[int, Tensor]]]:
    """Cells and outputs of each layer and direction that stay at zero, those of the last layer, and silent columns of weights."""
    params, biased = step["params"], bool(step["has_biases"])
    starts = step["hx"] if isinstance(step["hx"], list | tuple) else [step["hx"]]
    started = not all(s.fixed and not bool(s.value.any()) for s in starts)
    directions = 2 if step["bidirectional"] else 1
    projected = step.name == "lstm" and starts[0].value.shape[-1] != starts[1].value.shape[-1]
    size = 2 + 2 * biased + projected
    silent = zeros(step.input).expand(_lined(step.input)).flatten(0, -2).all(0)
    held: tuple[list[Tensor], list[Tensor]] = ([], [])
    columns: list[tuple[int, Tensor]] = []
    for number in range(step["num_layers"] * directions):
        weights = params[number * size : (number + 1) * size]
        cell, out = _layer(step.name, [w.value for w in weights], silent, biased, projected)
        if started:
            cell, out = torch.zeros_like(cell), torch.zeros_like(out)
        columns += [(number * size, silent), (number * size + 1, out)]
        if projected:
            columns.append(((number + 1) * size - 1, cell))
        held[0].append(cell)
        held[1].append(out)
        if number % directions == directions - 1:
            silent = torch.cat(held[1][-directions:])
    return held[0], held[1], silent, columns


def _lined(seen: Seen) -> list[int]:
    return [*seen.varies.shape[:-1], seen.value.shape[-1]]


def _layer(name: str, weights: list[Tensor], silent: Tensor, biased: bool, projected: bool) -> tuple[Tensor, Tensor]:
    """Which cells (hidden,) and outputs of one layer stay at zero when the inputs `silent` do."""
    taking, again = weights[0], weights[1]
    units = taking.shape[0] // {"lstm": 4, "gru": 3}.get(name, 1)
    rows = slice(2 * units, 3 * units) if name in ("lstm", "gru") else slice(0, units)
    quiet = (taking[rows][:, ~silent] == 0).all(1)
    if biased:
        one, two = weights[2][rows], weights[3][rows]
        quiet &= ((one == 0) & (two == 0)) if name == "gru" else (one + two <= 0 if name == "rnn_relu" else one + two == 0)
    out = torch.zeros(again.shape[1], dtype=torch.bool)
    cell = quiet
    while True:
        cell = quiet & (again[rows][:, ~out] == 0).all(1)
        found = (weights[-1][:, ~cell] == 0).all(1) if projected else cell
        if bool((found == out).all()):
            return cell, out
        out = found
