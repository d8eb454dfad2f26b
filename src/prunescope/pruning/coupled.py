"""Granularities that follow the network's graph: coupled channels, attention heads, hidden units of an MLP, whole residual branches.

Each takes the model, the targets and example inputs, and returns groups with a slot in every tensor that a piece covers: the weights that
compute it (scored), their biases and norms (companions), and what later layers take from it (neither). What cannot be removed is left
alone; `coupling.couple(model, example_inputs).report()` says what and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from prunescope.pruning.coupling import Branch, Coupling, Family, Part, branches, couple
from prunescope.pruning.groups import Group, Slot, gathered
from prunescope.pruning.layouts import Parts, Spans
from prunescope.pruning.structure import structure
from prunescope.pruning.targets import Target, owner, prunable
from prunescope.registry import granularities
from prunescope.types import PruningError


@granularities("channel", source="coupled channels: Fang et al. 2023, arXiv:2301.12900, sec. 3", coupled=True)
def channel(model: nn.Module, targets: Sequence[Target], example_inputs: Any) -> list[Group]:
    """Channels coupled across the network (residual sums, concat, groups, heads), with all that computes them and all that they feed."""
    coupling = couple(model, example_inputs)
    return _groups(model, targets, coupling, coupling.families, "channel")


@granularities("head", source="attention heads: Michel et al. 2019, arXiv:1905.10650, sec. 2", coupled=True)
def head(model: nn.Module, targets: Sequence[Target], example_inputs: Any) -> list[Group]:
    """Attention heads: queries, keys, values and what the output layer takes; heads that share keys and values go together."""
    coupling = couple(model, example_inputs)
    return _groups(model, targets, coupling, [f for f in coupling.families if f.heads], "head")


@granularities("mlp-unit", source="hidden units of a transformer: Kwon et al. 2022, arXiv:2204.09656, sec. 3", coupled=True)
def mlp_unit(model: nn.Module, targets: Sequence[Target], example_inputs: Any) -> list[Group]:
    """Hidden units of the MLPs in residual branches, gated ones too: a row of each layer before them, a column of the one after."""
    coupling = couple(model, example_inputs)
    linear = {n for n in prunable(model) if _is_linear(model, n)}
    inside = [set(b.parameters) for b in branches(coupling)]
    return _groups(model, targets, coupling, [f for f in coupling.families if _is_hidden(f, linear, inside)], "mlp-unit")


@granularities("layer", source="whole residual branches: Sajjad et al. 2023, arXiv:2004.03844, sec. 3", coupled=True)
def layer(model: nn.Module, targets: Sequence[Target], example_inputs: Any) -> list[Group]:
    """Whole residual branches (an attention, an MLP, a block of convolutions): the stream that goes round them is left."""
    coupling = couple(model, example_inputs)
    chosen, names = {t.name for t in targets}, dict(model.named_parameters())
    excused = _excused(model)
    members = []
    for branch in branches(coupling):
        weights = [n for n in branch.parameters if n in prunable(model)]
        if weights and set(weights) <= chosen | excused and chosen & set(weights):
            members.append(_whole(branch, chosen, names))
    if not members:
        raise PruningError(
            f"layer: {type(model).__name__} has no residual branch among the chosen layers: without one, a layer cannot go and leave "
            "the network working"
        )
    return [gathered("residual branches", members)]


def _whole(branch: Branch, chosen: set[str], names: dict[str, nn.Parameter]) -> Group:
    """All parameters of a branch as one piece; biases and norms are companions."""
    slots = [
        Slot(n, Spans(tuple(range(names[n].ndim))), scored=n in chosen, companion=n not in chosen and names[n].ndim < 2)
        for n in sorted(branch.parameters, key=lambda n: n not in chosen)
    ]
    return Group(slots[0].parameter, 1, tuple(slots))


def _is_hidden(family: Family, linear: set[str], inside: Sequence[set[str]]) -> bool:
    """Whether the family lies between linear layers of one residual branch."""
    producers, consumers = set(family.tensors("producer")), set(family.tensors("consumer"))
    own = producers | consumers
    return not family.heads and bool(consumers) and own <= linear and any(own <= branch for branch in inside)


def _is_linear(model: nn.Module, name: str) -> bool:
    module = model.get_submodule(owner(name))
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _groups(model: nn.Module, targets: Sequence[Target], coupling: Coupling, families: Sequence[Family], kind: str) -> list[Group]:
    """The groups of the families that the chosen layers compute."""
    chosen = {t.name for t in targets}
    weights, excused = set(prunable(model)), _excused(model)
    groups: list[Group] = []
    for family in families:
        producers = [n for n in family.tensors("producer") if n in weights]
        if family.pieces < 2 or not set(producers) <= chosen | excused or not chosen & set(producers):
            continue
        slots = sorted((_slot(p, chosen, model) for p in family.parts if p.parameter), key=lambda s: not s.scored)
        first = slots[0].parameter
        same = sum(g.name.partition("#")[0] == first for g in groups)
        groups.append(Group(f"{first}#{same + 1}" if same else first, family.pieces, tuple(slots), unit=True))
    if not groups:
        raise PruningError(_nothing(model, coupling, kind))
    return groups


def _slot(part: Part, chosen: set[str], model: nn.Module) -> Slot:
    """A bias or an affine term is a companion; a weight that computes the piece is scored, if the caller chose it."""
    parameter = model.get_parameter(part.tensor)
    scored = "producer" in part.roles and part.tensor in chosen
    return Slot(part.tensor, Parts(part.dim, part.index), scored, not part.roles and parameter.numel() == parameter.shape[part.dim])


def _excused(model: nn.Module) -> set[str]:
    """Weights that are exempt as the output layer by the order of registration alone: the graph knows better which leave the network."""
    found = prunable(model)
    shape = structure(model, [owner(n) for n in found])
    return set() if shape.traced else {n for n in found if owner(n) in shape.outputs}


def _nothing(model: nn.Module, coupling: Coupling, kind: str) -> str:
    what = {"head": "no attention with several heads", "mlp-unit": "no MLP in a residual branch"}.get(kind, "no channels that can go")
    reasons = [f"{name}: {why}" for name, _, why in coupling.report() if why][:3]
    return (
        f"{kind}: {type(model).__name__} has {what} that the chosen layers alone compute"
        + (f" (frozen are {'; '.join(reasons)})" if reasons and kind == "channel" else "")
        + "; see prunescope.pruning.couple(model, example_inputs).report()"
    )
