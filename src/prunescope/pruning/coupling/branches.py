"""Residual branches: parts of a network whose output is added to a stream that goes round them, so that it works without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.fx

from prunescope.pruning.coupling.channels import FIRST, State, Value
from prunescope.pruning.coupling.families import Coupling


@dataclass(frozen=True)
class Branch:
    """A residual branch: `node` is added to the stream in `sum`; `parameters` serve it alone, in the order of the graph's inputs."""

    node: torch.fx.Node
    sum: torch.fx.Node
    parameters: tuple[str, ...]


def branches(coupling: Coupling) -> list[Branch]:
    """The residual branches that give zero when all their parameters are zero, the innermost where they are nested."""
    found, order = [], {n: i for i, n in enumerate(coupling.trace.graph.graph.nodes)}
    for node in order:
        name = getattr(getattr(node.target, "_schema", None), "name", "")
        if name not in ("aten::add", "aten::add_") or len(node.all_input_nodes) != 2 or node not in coupling.values:
            continue
        left, right = node.all_input_nodes
        for stream, branch in ((left, right), (right, left)):
            if _vanishes(coupling, branch) and _same_shape(coupling, stream, branch) and stream in _before(branch):
                region = _region(branch, node, order)
                names = [coupling.trace.tensors[n.name] for n in order if n in region and n.name in coupling.trace.tensors]
                own = tuple(n for n in dict.fromkeys(names) if n in coupling.trace.parameters and not _elsewhere(coupling, n, region))
                if own:
                    found.append((Branch(branch, node, own), region))
    return [b for b, region in found if not any(other.sum in region for other, _ in found)]


def _vanishes(coupling: Coupling, node: torch.fx.Node) -> bool:
    value = coupling.values.get(node)
    return isinstance(value, Value) and value.data and any(
        n.state is State.ZERO and bool((n.ids >= FIRST).all()) for n in value.labels
    )  # fmt: skip


def _same_shape(coupling: Coupling, one: torch.fx.Node, two: torch.fx.Node) -> bool:
    a, b = coupling.values.get(one), coupling.values.get(two)
    return isinstance(a, Value) and isinstance(b, Value) and a.data and a.shape == b.shape


def _before(node: torch.fx.Node) -> set[torch.fx.Node]:
    found, pending = set(), [node]
    while pending:
        for earlier in pending.pop().all_input_nodes:
            if earlier not in found:
                found.add(earlier)
                pending.append(earlier)
    return found


def _region(branch: torch.fx.Node, sum_: torch.fx.Node, order: dict[torch.fx.Node, int]) -> set[torch.fx.Node]:
    """The nodes whose results reach the output through the branch alone."""
    if set(branch.users) != {sum_}:
        return set()
    region = {branch}
    for node in reversed(list(order)[: order[branch]]):
        if node.users and all(user in region for user in node.users):
            region.add(node)
    return region


def _elsewhere(coupling: Coupling, name: str, region: Sequence[torch.fx.Node] | set[torch.fx.Node]) -> bool:
    """Whether a tied parameter is used outside the region too."""
    nodes = [n for n in coupling.trace.graph.graph.nodes if coupling.trace.tensors.get(n.name) == name and n.op == "placeholder"]
    return any(n not in region and n.users for n in nodes)
