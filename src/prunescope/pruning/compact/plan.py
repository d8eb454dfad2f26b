"""The plan: which channels go, which dead ones have to stay and why, and what is added elsewhere for what the others held."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.fx
from torch import Tensor

from prunescope.pruning.compact.intakes import Intake, arguments
from prunescope.pruning.compact.study import Side, Study, norm_source, settled
from prunescope.pruning.coupling import Coupling
from prunescope.pruning.coupling.channels import FIRST, Value, vector
from prunescope.pruning.coupling.walk import rule_of

RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")


@dataclass(frozen=True, eq=False)
class Norm:
    """A norm whose input loses channels: what they held goes on counting in its statistics.

    kept     the channels (m,) that stay, of the `width` that there were; values (..., width): what the others held (0 for those that
             stay), at each position where that differs between them
    groups   of a group norm, None for a norm over the last dimension
    """

    node: torch.fx.Node
    kept: Tensor
    values: Tensor
    width: int
    groups: int | None


@dataclass
class Plan:
    """What to do.

    removed   by set; stays: reasons of the dead sets that stay, by set
    kept      by (tensor, dimension) that shrinks: the places that stay
    added     by weight: what is added to its bias (outputs,), for all its outputs; changed: weights with other values than before
    norms     that need what was removed in their statistics
    """

    study: Study
    removed: np.ndarray
    stays: dict[int, str]
    kept: dict[Side, Tensor] = field(default_factory=dict)
    added: dict[str, Tensor] = field(default_factory=dict)
    changed: dict[str, Tensor] = field(default_factory=dict)
    norms: list[Norm] = field(default_factory=list)

    @property
    def coupling(self) -> Coupling:
        """The network's coupled channels."""
        return self.study.coupling


def plan(found: Study, *, exclude: frozenset[int] = frozenset(), level: bool = False) -> Plan:
    """Everything that can go without a trace, but for the sets in `exclude`; `level` keeps stacked recurrent layers equally wide."""
    coupling = found.coupling
    stays: dict[Any, Any] = {}
    free = np.zeros(int(coupling.sets.max()) + 1, bool)
    for family in coupling.families:
        free[family.sets] = True
    free[list(exclude)] = False
    forced = np.zeros_like(free)
    while True:
        dead = settled(found, free & ~forced)
        new = _representatives(found, dead)
        if not new - set(np.flatnonzero(forced).tolist()):
            break
        forced[list(new)] = True
        stays |= dict.fromkeys(new, "stays as the one constant channel that stands for all, because of the zeros round the image")
    removed = dead.copy()
    while True:
        ragged = _ragged(coupling, removed) | _last(coupling, removed) | (_uneven(coupling, removed) if level else {})
        if not ragged:
            break
        removed[list(ragged)] = False
        stays |= ragged
    made = Plan(found, removed, stays)
    _places(made)
    _constants(made)
    _norms(made)
    return made


def _columns(found: Study, intake: Intake) -> np.ndarray:
    """The sets of a weight's own inputs."""
    side = (intake.weight, intake.inputs)
    start, size = next((s, n) for s, n, name, dim in found.coupling.ledger.spans if (name, dim) == side)
    return found.coupling.sets[start : start + size]


def held_values(intake: Intake, values: Tensor) -> Tensor:
    """The constants of channels as (groups, inputs of the weight)."""
    return values.view(intake.groups, -1) if intake.groups > 1 and intake.inputs == 1 else values.view(1, -1)


def _representatives(found: Study, dead: np.ndarray) -> set[int]:
    """The sets that have to stay so that every weight behind a border of zeros keeps one constant channel."""
    chosen: set[int] = set()
    for intake in found.intakes.values():
        flags = found.held.get((intake.weight, intake.inputs))
        if flags is None or not flags.any():
            continue
        sets, values = _columns(found, intake), held_values(intake, found.line(intake).value)
        used = (found.tensors[intake.weight] != 0).transpose(0, intake.inputs).flatten(1).any(1)
        needed = (flags & used).numpy() & dead[sets]
        if not needed.any():
            continue
        strength = values.abs().amin(0).where(flags, torch.zeros(()).double()).numpy()
        ready = ~dead[sets] | np.isin(sets, list(chosen))
        if (strength * ready).max() > 0:
            continue
        best = int(np.argmax(strength))
        if strength[best] > 0:
            chosen.add(int(sets[best]))
        else:
            chosen |= set(sets[needed].tolist())
    return chosen


def _ragged(coupling: Coupling, removed: np.ndarray) -> dict[int, str]:
    """Removed sets that would leave a tensor with rows of unequal length."""
    found: dict[int, str] = {}
    for node, value in coupling.values.items():
        makers = [a for a in node.all_input_nodes if a.op == "call_function"] if node.op == "call_function" else []
        stacked = any(rule_of(a.target)[0] in RECURRENT for a in makers)
        for label in value.labels if isinstance(value, Value) and not stacked else ():
            if len(label.dims) < 2:
                continue
            gone = torch.from_numpy(removed)[torch.from_numpy(coupling.sets)[label.ids]] & (label.ids >= FIRST)
            if not gone.any():
                continue
            whole = torch.ones_like(gone)
            for dim in label.dims:
                others = [d for d in range(gone.ndim) if d != dim]
                whole = whole & (~gone).permute([dim, *others]).flatten(1).any(1).view([-1 if d == dim else 1 for d in range(gone.ndim)])
            if bool((wrong := gone & whole).any()):
                ids = coupling.sets[label.ids[wrong].numpy()]
                found.update(dict.fromkeys(np.unique(ids).tolist(), "alone would leave rows of unequal length"))
    return found


def _last(coupling: Coupling, removed: np.ndarray) -> dict[int, str]:
    """One set of every tensor that would lose all its channels."""
    found: dict[int, str] = {}
    for start, size, _, _ in coupling.ledger.spans:
        sets = coupling.sets[start : start + size]
        if removed[sets].all() and not found.keys() & set(sets.tolist()):
            found[int(sets[0])] = "is the last of its layer, which cannot be empty"
    return found


def _uneven(coupling: Coupling, removed: np.ndarray) -> dict[int, str]:
    """Removed units of stacked recurrent layers beyond what all layers of the stack can spare."""
    found: dict[int, str] = {}
    spans = {(n, d): (s, z) for s, z, n, d in coupling.ledger.spans}
    for node in coupling.trace.graph.graph.nodes:
        if node.op != "call_function" or rule_of(node.target)[0] not in RECURRENT or "params" not in arguments(node):
            continue
        again = [coupling.trace.tensors[p.name] for p in arguments(node)["params"]]
        for ending in ("weight_hh_l", "weight_hr_l"):
            sides = [coupling.sets[s : s + z] for n in again if ending in n for s, z in [spans[n, 1]]]
            least = min((int(removed[sets].sum()) for sets in sides), default=0)
            for sets in sides:
                surplus = sets[removed[sets]][least:]
                found.update(dict.fromkeys(surplus.tolist(), "keeps stacked recurrent layers equally wide"))
    return found


def _places(made: Plan) -> None:
    for start, size, name, dim in made.coupling.ledger.spans:
        gone = made.removed[made.coupling.sets[start : start + size]]
        if gone.any():
            made.kept[name, dim] = torch.from_numpy(np.flatnonzero(~gone))


def _constants(made: Plan) -> None:
    """Constants of removed channels: into the bias behind, or into the weight of the one constant channel that stays."""
    found, done = made.study, set()
    for intake in found.intakes.values():
        side = (intake.weight, intake.inputs)
        if side in done:
            continue
        done.add(side)
        values = held_values(intake, found.line(intake).value)
        gone = torch.from_numpy(made.removed[_columns(found, intake)]) if side in made.kept else None
        if gone is None:
            continue
        weight = made.changed.get(intake.weight, found.tensors[intake.weight])
        known = found.known.get(side)
        if known is not None and bool((moving := known & gone).any()):
            made.added[intake.weight] = made.added.get(intake.weight, 0) + _bias(intake, weight, torch.where(moving, values, 0.0))
        held = found.held.get(side)
        if held is not None and bool((moving := held & gone).any()):
            made.changed[intake.weight] = _merged(intake, weight, values, moving, held & ~gone)


def _bias(intake: Intake, weight: Tensor, values: Tensor) -> Tensor:
    """What constant inputs (groups, inputs) add to the outputs."""
    flat = weight.movedim((intake.outputs, intake.inputs), (0, 1))
    flat = flat.reshape(*flat.shape[:2], -1).sum(2)
    each = flat.view(intake.groups, -1, flat.shape[1])
    return torch.einsum("goi,gi->go", each, values).flatten()


def _merged(intake: Intake, weight: Tensor, values: Tensor, moving: Tensor, staying: Tensor) -> Tensor:
    """The weight in which one constant channel that stays does what the `moving` ones did."""
    strength = torch.where(staying, values.abs().amin(0), 0.0)
    best = int(strength.argmax())
    if strength[best] == 0:
        used = (weight != 0).transpose(0, intake.inputs).flatten(1).any(1)
        if not bool((used & moving).any()):
            return weight
        raise AssertionError("no constant channel was kept")
    flat = weight.movedim((intake.outputs, intake.inputs), (0, 1))
    each = flat.reshape(intake.groups if len(values) > 1 else 1, -1, *flat.shape[1:])
    ratio = torch.where(moving, values / values[:, best : best + 1], 0.0)
    total = torch.einsum("goi...,gi->go...", each, ratio)
    each = each.clone()
    each[:, :, best] += total
    return each.reshape(flat.shape).movedim((0, 1), (intake.outputs, intake.inputs))


def _norms(made: Plan) -> None:
    for node in made.coupling.ledger.meetings:
        source = None if node is None else norm_source(made.coupling, node)
        if source is None:
            continue
        value = made.coupling.values[source[0]]
        label = next((n for n in value.labels if n.dims == {source[1]}), None)
        if label is None:
            continue
        ids = vector(label, source[1], value.shape[source[1]])
        gone = torch.from_numpy(made.removed[made.coupling.sets[ids.numpy()]]) & (ids >= FIRST)
        state = made.study.flow.lines[source]
        if gone.any() and state is not None:
            named = arguments(node)
            groups = named.get("num_groups") or named.get("group")
            values = state.value if bool((state.even | ~gone).all()) else state.sample
            made.norms.append(Norm(node, (~gone).nonzero().flatten(), torch.where(gone, values, 0.0), len(ids), groups))
