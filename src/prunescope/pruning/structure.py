"""What stands where in a network: which layer gives the output, and which normalisation follows a layer.

Read off a torch.fx trace; a model that cannot be traced is read in the order in which its modules were registered.
"""

from __future__ import annotations

import itertools
import operator
from dataclasses import dataclass

import torch.fx
from torch import nn

from prunescope.pruning.preserving import preserved

NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.modules.instancenorm._InstanceNorm)
CONVOLUTIONS = nn.modules.conv._ConvNd
PRODUCTS = ("linear", "conv", "mm", "matmul", "einsum")  # in the names of functions that multiply with a weight


@dataclass(frozen=True)
class Structure:
    """Module names: `outputs` (layers whose values leave the network), `norms` (layer -> the normalisation right after it)."""

    outputs: frozenset[str]
    norms: dict[str, str]
    traced: bool


def structure(model: nn.Module, layers: list[str]) -> Structure:
    """The structure of `model` around the modules named in `layers` (those that own weights)."""
    if not isinstance(model, nn.Sequential) and _has_control_flow_modules(model):
        return _registered(model, layers)
    try:
        with preserved(model):  # the trace runs the user's forward, which may count calls or draw
            graph = torch.fx.symbolic_trace(model).graph
    except Exception:  # tracing runs the user's forward on proxies, which may raise anything; the order of registration remains
        return _registered(model, layers)
    return _traced(model, graph, set(layers))


def _has_control_flow_modules(model: nn.Module) -> bool:
    return any(isinstance(m, nn.RNNBase | nn.MultiheadAttention) for m in model.modules())


def _traced(model: nn.Module, graph: torch.fx.Graph, layers: set[str]) -> Structure:
    modules = dict(model.named_modules())
    norms = {}
    for node in graph.nodes:
        if node.op == "call_module" and str(node.target) in layers and len(node.users) == 1:
            user = next(iter(node.users))
            if user.op == "call_module" and isinstance(modules[str(user.target)], NORMS):
                norms[str(node.target)] = str(user.target)
    outputs: set[str] = set()
    pending = list(next(n for n in graph.nodes if n.op == "output").all_input_nodes)
    seen = set()
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.op == "call_module" and str(node.target) in layers:
            outputs.add(str(node.target))
        elif not _is_functional_layer(model, node):
            pending.extend(node.all_input_nodes)
    return Structure(frozenset(outputs), norms, traced=True)


def _is_functional_layer(model: nn.Module, node: torch.fx.Node) -> bool:
    """Whether a call multiplies with a weight that it is handed (F.linear, x @ w, einsum): then nothing before it leaves the network."""
    if node.op == "call_module" or not any(name in str(getattr(node.target, "__name__", node.target)) for name in PRODUCTS):
        return False
    return any(_is_weight(model, n) for n in node.all_input_nodes)


def _is_weight(model: nn.Module, node: torch.fx.Node) -> bool:
    """Whether a node is a parameter with two or more dimensions, transposed or otherwise viewed or not."""
    while node.op in ("call_method", "call_function") and len(node.all_input_nodes) == 1:
        node = node.all_input_nodes[0]
    if node.op != "get_attr":
        return False
    found = operator.attrgetter(str(node.target))(model)
    return isinstance(found, nn.Parameter) and found.ndim >= 2


def _registered(model: nn.Module, layers: list[str]) -> Structure:
    names = [n for n, m in model.named_modules() if n in layers or isinstance(m, NORMS)]
    modules = dict(model.named_modules())
    norms = {a: b for a, b in itertools.pairwise(names) if a in layers and isinstance(modules[b], NORMS)}
    return Structure(frozenset(_last(model, layers)), norms, traced=False)


def _last(model: nn.Module, layers: list[str]) -> list[str]:
    """The layer registered last; none where a tied one comes after it (an output layer that shares the embedding's weight)."""
    held = [n for n, p in model.named_parameters(remove_duplicate=False) if p.ndim >= 2]
    owners = list(dict.fromkeys(n.rpartition(".")[0] for n in held))
    alone = [n.rpartition(".")[0] for n, p in model.named_parameters() if p.ndim >= 2]
    return [] if owners and owners[-1] not in alone else layers[-1:]
