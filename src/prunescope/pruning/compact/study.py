"""The study: what one run of the masked network says of its channels, and which of them some weight still hears.

A set is dead when nobody hears it: every weight that takes it as an input has zeros there, or finds a number there that no input
changes, which then goes into the bias behind that weight.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.fx
from torch import Tensor

from prunescope.pruning.compact.flow import Flow, Line
from prunescope.pruning.compact.intakes import Intake, arguments, intakes, operands
from prunescope.pruning.coupling import Coupling
from prunescope.pruning.coupling.channels import FIRST, vector
from prunescope.pruning.coupling.walk import rule_of

NORMS = {"layer_norm": "normalized_shape", "native_layer_norm": "normalized_shape", "rms_norm": "normalized_shape",
         "group_norm": "num_groups", "native_group_norm": "group"}  # fmt: skip
Side = tuple[str, int]


@dataclass
class Study:
    """What one run of the network said.

    silent   by (weight, dimension): inputs that are zero, so that the weight does not matter there
    known    by (weight, dimension): inputs that hold one known number at every use of the weight, which a bias can stand for
    held     the same, but with a border of zeros round it: one channel has to stay for all of them
    loud     by set: meets other channels where it is neither zero nor, in a norm, constant; moving: those of them that inputs change
    rigid    whether the network takes inputs of the example's size alone: what a norm's channels hold may differ between positions then
    """

    coupling: Coupling
    tensors: Mapping[str, Tensor]
    intakes: dict[torch.fx.Node, Intake]
    flow: Flow
    uses: dict[Side, list[torch.fx.Node]] = field(default_factory=dict)
    silent: dict[Side, Tensor] = field(default_factory=dict)
    known: dict[Side, Tensor] = field(default_factory=dict)
    held: dict[Side, Tensor] = field(default_factory=dict)
    loud: dict[int, str] = field(default_factory=dict)
    moving: set[int] = field(default_factory=set)
    rigid: Callable[[], bool] = lambda: False

    def reason(self, number: int) -> str:
        """Why a dead set stays."""
        return self.loud.get(number, "holds numbers that no one bias can stand for (they differ between positions or in time)")

    def line(self, intake: Intake) -> Line:
        """What stands in the channels that an intake takes."""
        found = self.flow.lines[intake.source, intake.dim]
        assert found is not None
        return found


def study(
    coupling: Coupling,
    tensors: Mapping[str, Tensor],
    inputs: list[Any],
    *,
    approximate: bool = False,
    rigid: Callable[[], bool] = lambda: False,
) -> Study:
    """Run the masked network once and note what stands where weights take channels in and where channels meet.

    rigid         tells whether the network takes no other size than the inputs'; asked only where it matters
    approximate   take the mean of a channel that no input changes for what it holds everywhere
    """
    taken = intakes(coupling)
    lines: dict[Any, Line | None] = {(i.source, i.dim): None for i in taken.values()}
    empty: dict[torch.fx.Node, Tensor | None] = {}
    for node in coupling.ledger.meetings:
        if node is None:
            continue
        if (source := norm_source(coupling, node)) is not None:
            lines[source] = None
        else:
            empty.update((s, None) for s, _ in operands(coupling, node))
    flow = Flow(coupling, lines, empty).go(dict(tensors), inputs)
    if approximate:  # the mean over positions stands for all of them
        for state in flow.lines.values():
            if state is not None:
                state.even = state.fixed
    found = Study(coupling, tensors, taken, flow, rigid=functools.cache(rigid))
    _uses(found)
    _inputs(found)
    _meetings(found)
    return found


def norm_source(coupling: Coupling, node: torch.fx.Node) -> tuple[torch.fx.Node, int] | None:
    """(what a norm takes, the dimension of its channels), where the node is a norm over one dimension or over groups of channels."""
    name = rule_of(node.target)[0]
    if name not in NORMS:
        return None
    named = arguments(node)
    source = named["input"]
    if "group" in name:
        return source, 1
    return (source, len(coupling.values[source].shape) - 1) if len(named["normalized_shape"]) == 1 else None


def _uses(found: Study) -> None:
    starts = np.array([s[0] for s in found.coupling.ledger.spans])
    for node, numbers in found.coupling.ledger.takers.items():
        for place in np.unique(np.searchsorted(starts, np.concatenate(numbers), side="right") - 1):
            _, _, name, dim = found.coupling.ledger.spans[place]
            found.uses.setdefault((name, dim), []).append(node)


def _inputs(found: Study) -> None:
    """Sort the inputs of every weight into silent, known and held, where all its uses agree."""
    columns: dict[Side, Tensor] = {}
    for node, flags in found.flow.columns:
        side = (found.coupling.trace.tensors[node.name], 1)
        columns[side] = columns[side] & flags if side in columns else flags
    for side, nodes in found.uses.items():
        taken = [found.intakes[n] for n in nodes if n in found.intakes and (found.intakes[n].weight, found.intakes[n].inputs) == side]
        if len(taken) < len(set(nodes)):
            if side in columns and not taken:
                found.silent[side] = columns[side]
            continue
        lines = [found.line(i) for i in taken]
        found.silent[side] = _folded(taken[0], torch.stack([n.zero for n in lines]).all(0))
        same = torch.stack([n.constant & torch.isclose(n.value, lines[0].value, rtol=1e-12, atol=0.0) for n in lines]).all(0)
        steady = _folded(taken[0], same) & ~found.silent[side]
        if len({i.bias for i in taken}) > 1:
            continue
        if all(i.even for i in taken):
            found.known[side] = steady
        elif taken[0].groups == 1 or taken[0].inputs == 1:
            found.held[side] = steady


def _folded(intake: Intake, flags: Tensor) -> Tensor:
    """Flags of channels as flags of the weight's own inputs, which in a grouped convolution stand for a channel of each group."""
    return flags.view(intake.groups, -1).all(0) if intake.groups > 1 and intake.inputs == 1 else flags


def _meetings(found: Study) -> None:
    sets = found.coupling.sets
    for node, numbers in found.coupling.ledger.meetings.items():
        here = np.unique(sets[np.concatenate(numbers)])
        source = None if node is None else norm_source(found.coupling, node)
        if source is not None:
            state = found.flow.lines[source]
            ids = _ids(found.coupling, *source)
            assert state is not None
            right = state.constant
            if bool((state.alike & ~right).any()) and by_position(node) and found.rigid():
                right = right | state.alike
            wrong = set() if ids is None else set(np.unique(sets[ids[~right].numpy()]).tolist())
            found.moving |= set() if ids is None else set(np.unique(sets[ids[~state.fixed].numpy()]).tolist())
            why = "is not constant where a norm takes its statistics"
        else:
            wrong, why = _met(found, node, here), "meets other channels without a weight in between"
            found.moving |= wrong
        found.loud.update((s, why) for s in here.tolist() if s in wrong)


def by_position(node: torch.fx.Node | None) -> bool:
    """Whether a norm takes its statistics at each position alone: one over the last dimension, not over groups of channels."""
    return node is not None and "group" not in rule_of(node.target)[0]


def _ids(coupling: Coupling, source: torch.fx.Node, dim: int) -> Tensor | None:
    value = coupling.values[source]
    label = next((n for n in value.labels if n.dims == {dim}), None)
    return None if label is None else vector(label, dim, value.shape[dim])


def _met(found: Study, node: torch.fx.Node | None, here: np.ndarray) -> set[int]:
    """Of the sets `here`, those that hold something else than zero in every operand in which they stand."""
    sets, quiet = found.coupling.sets, set()
    if node is None or rule_of(node.target)[0] in (*NORMS, "var", "std", "var_mean", "std_mean"):
        return set(here.tolist())  # statistics that zeros change
    for source, value in operands(found.coupling, node):
        flags = found.flow.empty.get(source)
        if flags is None:
            continue
        for label in value.labels:
            ids, zero = torch.broadcast_tensors(label.ids, _widened(flags, label.ids))
            zero = zero[ids >= FIRST].numpy()
            mine = sets[ids[ids >= FIRST].numpy()]
            quiet |= set(np.unique(mine).tolist()) - set(np.unique(mine[~zero]).tolist())
    return set(here.tolist()) - quiet


def _widened(flags: Tensor, ids: Tensor) -> Tensor:
    """The flags, any place for all along dimensions along which no channel runs."""
    for dim, size in enumerate(ids.shape):
        if size == 1 and flags.shape[dim] > 1:
            flags = flags.all(dim, keepdim=True)
    return flags


def alive(found: Study, removed: np.ndarray) -> np.ndarray:
    """By set: whether some weight hears it, given the sets that are already `removed`.

    Constants inside a border of zeros count as heard by nobody, as all but one can be.
    """
    sets = found.coupling.sets
    heard = np.zeros(int(sets.max()) + 1, bool)
    heard[list(found.loud)] = True
    gone = {(n, d): removed[sets[start : start + size]] for start, size, n, d in found.coupling.ledger.spans}
    marked = np.zeros(found.coupling.ledger.size, bool)
    for numbers in found.coupling.ledger.marks.get("consumer", ()):
        marked[numbers] = True
    for start, size, name, dim in found.coupling.ledger.spans:
        here = marked[start : start + size]
        if not here.any():
            continue
        weight = found.tensors[name]
        used = weight != 0
        for other in range(weight.ndim):
            if other != dim and (rows := gone.get((name, other))) is not None and rows.any():
                used = used.index_select(other, torch.from_numpy(np.flatnonzero(~rows)))
        used = used.transpose(0, dim).flatten(1).any(1) if used.ndim > 1 else used
        for kind in (found.silent, found.known, found.held):
            if (name, dim) in kind:
                used = used & ~kind[name, dim]
        heard[sets[start : start + size][here & used.numpy()]] = True
    return heard


def settled(found: Study, free: np.ndarray) -> np.ndarray:
    """By set: dead and free to go, to a fixed point: what feeds dead sets alone is dead too."""
    removed = np.zeros_like(free)
    while not ((now := free & ~alive(found, removed)) == removed).all():
        removed = now
    return removed


def dead_by_masks(found: Study) -> np.ndarray:
    """By set: what no input changes wherever it is used, or nobody uses, whether or not it can go exactly."""
    coupling = found.coupling
    free = np.zeros(int(coupling.sets.max()) + 1, bool)
    for family in coupling.families:
        free[family.sets] = True
    ideal = Study(coupling, found.tensors, found.intakes, found.flow, found.uses, found.silent, dict(found.known), found.held)
    for side, nodes in found.uses.items():
        taken = [found.intakes[n] for n in nodes if n in found.intakes and (found.intakes[n].weight, found.intakes[n].inputs) == side]
        if taken and len(taken) == len(set(nodes)):
            ideal.known[side] = _folded(taken[0], torch.stack([found.line(i).fixed for i in taken]).all(0))
    ideal.loud = {s: why for s, why in found.loud.items() if s in found.moving}
    return settled(ideal, free)
