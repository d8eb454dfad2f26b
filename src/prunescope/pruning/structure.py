"""What stands where in a network: which layer gives the output, and which normalisation follows a layer.

Read off the chain of an nn.Sequential or a torch.fx trace, which say the same where both can; a model that cannot be traced is read in
the order in which its modules were registered.
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
    if (chain := _chain(model)) is not None:  # a trace takes longer than all else that pruning does to a small network
        return _chained(model, chain, set(layers))
    if not isinstance(model, nn.Sequential) and _has_control_flow_modules(model):
        return _registered(model, layers)
    try:
        with preserved(model):  # the trace runs the user's forward, which may count calls or draw
            graph = torch.fx.Tracer().trace(model)
    except Exception:  # tracing runs the user's forward on proxies, which may raise anything; the order of registration remains
        return _registered(model, layers)
    return _traced(model, graph, set(layers))


def _chain(model: nn.Module) -> list[nn.Module] | None:
    """The modules of a plain nn.Sequential in the order in which they run, nested ones opened; None for any other model.

    Only layers of torch.nn itself, which a trace takes as one step as well, and no hooks, which may do anything.
    """
    if type(model) is not nn.Sequential or model._forward_hooks or model._forward_pre_hooks:
        return None
    found: list[nn.Module] = []
    for module in model._modules.values():
        inner = _chain(module) if isinstance(module, nn.Sequential) else [module] if _plain(module) else None
        if inner is None:
            return None
        found += inner
    return found


def _plain(module: nn.Module | None) -> bool:
    own = type(module).__module__.startswith("torch.nn.modules") and not isinstance(module, nn.ModuleList | nn.ModuleDict)
    return module is not None and own and not module._forward_hooks and not module._forward_pre_hooks


def _chained(model: nn.Module, chain: list[nn.Module], layers: set[str]) -> Structure:
    names = {id(m): n for n, m in model.named_modules()}
    steps = [names[id(m)] for m in chain]
    outputs = [n for n in steps if n in layers][-1:]
    norms = {a: b for (a, b), after in zip(itertools.pairwise(steps), chain[1:], strict=True) if a in layers and isinstance(after, NORMS)}
    return Structure(frozenset(outputs), norms, traced=True)


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
