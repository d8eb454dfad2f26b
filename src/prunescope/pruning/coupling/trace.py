"""The network as a graph of ATen operations, with the name of the parameter or buffer behind each of its inputs.

torch.export first; where that gives up, torch.fx's tracer with fake tensors. The model is traced in evaluation mode and left as it was.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from prunescope.types import PruningError

INSTEAD = 'the granularities "weight", "neuron", "filter", "row", "column", "block" and "n:m" need no graph'


@dataclass(frozen=True)
class Trace:
    """A traced network.

    graph        its module of ATen operations; tensors of the model are inputs of it
    tensors      input node name -> the model's name of the parameter or buffer (tied ones have one name)
    parameters   the names that are parameters
    constants    input node name or attribute -> a tensor that stands in the code
    outputs      the nodes that the network returns
    how          "export" or "fx"
    """

    graph: torch.fx.GraphModule
    tensors: Mapping[str, str]
    parameters: frozenset[str]
    constants: Mapping[str, Tensor]
    outputs: tuple[torch.fx.Node, ...]
    how: str


def call_arguments(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Example inputs as positional and keyword arguments: a tensor, a sequence of positional ones, or a mapping of keywords."""
    if example_inputs is None:
        raise PruningError(f"this granularity follows the network's graph and needs example_inputs (or data) to trace it; {INSTEAD}")
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    return (tuple(example_inputs), {}) if isinstance(example_inputs, tuple | list) else ((example_inputs,), {})


def trace(model: nn.Module, example_inputs: Any) -> Trace:
    """The graph of `model` on `example_inputs`. PruningError where neither tracer can follow it, with what each said."""
    args, kwargs = call_arguments(example_inputs)
    names = _names(model)
    with _ready(model):
        try:
            return _exported(model, args, kwargs, names)
        except Exception as error:  # the user's forward runs on fake tensors, which may raise anything
            said = _said(error)
        try:
            return _followed(model, args, kwargs, names)
        except Exception as error:
            raise PruningError(
                f"{type(model).__name__} cannot be traced, so its coupled channels are unknown. torch.export: {said}. "
                f"torch.fx: {_said(error)}. A forward whose course depends on values cannot be followed; {INSTEAD}"
            ) from error


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"


def _names(model: nn.Module) -> dict[int, str]:
    """The one name of each tensor, by identity: that under which `named_parameters` lists it."""
    return {id(t): n for n, t in [*model.named_buffers(), *model.named_parameters()]}


@contextlib.contextmanager
def _ready(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no fused attention kernels, no caches among the outputs; everything as before on the way out."""
    modes = [(m, m.training) for m in model.modules()]
    config = getattr(model, "config", None)
    cached = getattr(config, "use_cache", None)
    fast = torch.backends.mha.get_fastpath_enabled()
    quick: Any = torch.fx.config  # where in the code each operation stands: a third of the time, and nobody reads it
    traced = getattr(quick, "do_not_emit_stack_traces", None)
    quick.do_not_emit_stack_traces = True
    model.eval()
    if cached:
        config.use_cache = False  # type: ignore[union-attr]
    torch.backends.mha.set_fastpath_enabled(False)
    transformer: Any = torch.nn.modules.transformer
    looked = getattr(transformer, "_detect_is_causal_mask", None)
    if looked is not None:  # it reads the mask's values for a hint that changes no result, and a traced mask has none
        transformer._detect_is_causal_mask = lambda mask, is_causal=None, size=None: bool(is_causal)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if looked is not None:
            transformer._detect_is_causal_mask = looked
        torch.backends.mha.set_fastpath_enabled(fast)
        quick.do_not_emit_stack_traces = bool(traced)
        if cached:
            config.use_cache = cached  # type: ignore[union-attr]
        for module, mode in modes:
            module.training = mode


def exported(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, resizable: bool = False) -> torch.export.ExportedProgram:
    """torch.export's program of `model`, functional where it writes in place; `resizable` leaves sizes of inputs open where it can."""
    shapes = torch.utils._pytree.tree_map(_open, (args, kwargs)) if resizable else None
    with _ready(model):
        dynamic = None if shapes is None else (*shapes[0], *shapes[1].values())
        program = torch.export.export(model, args, kwargs, dynamic_shapes=dynamic, strict=False)
        return program.run_decompositions({}) if _writes_in_place(program.graph) else program


def _open(leaf: Any) -> Any:
    return dict.fromkeys(range(leaf.ndim), torch.export.Dim.AUTO) if isinstance(leaf, Tensor) else None


def _exported(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], names: dict[int, str]) -> Trace:
    program = exported(model, args, kwargs)
    _sized(program.graph)
    signature = program.graph_signature
    tensors = {}
    for node, target in {**signature.inputs_to_parameters, **signature.inputs_to_buffers}.items():
        owner, _, last = target.rpartition(".")
        tensors[node] = names[id(getattr(model.get_submodule(owner), last))]
    constants = {node: program.constants[target] for node, target in signature.inputs_to_lifted_tensor_constants.items()}
    wanted = set(signature.user_outputs)
    returned = next(n for n in program.graph.nodes if n.op == "output").all_input_nodes
    outputs = tuple(n for n in returned if n.name in wanted)
    parameters = frozenset(n for n, _ in model.named_parameters())
    return Trace(program.graph_module, tensors, parameters, constants, outputs, "export")


def _followed(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], names: dict[int, str]) -> Trace:
    from torch.fx.experimental.proxy_tensor import make_fx

    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    order = list(held)
    leaves, spec = torch.utils._pytree.tree_flatten((args, kwargs))

    def run(tensors: list[Tensor], inputs: list[Any]) -> Any:
        positional, keywords = torch.utils._pytree.tree_unflatten(inputs, spec)
        return torch.func.functional_call(model, dict(zip(order, tensors, strict=True)), positional, keywords)

    graph = make_fx(run, tracing_mode="fake", pre_dispatch=True)([held[n].detach() for n in order], leaves)
    _sized(graph.graph)
    if _writes_in_place(graph.graph):
        raise PruningError("the forward writes into tensors that it reads later")
    _faithful(model, graph, [held[n].detach() for n in order], (args, kwargs))
    inputs = [n.name for n in graph.graph.nodes if n.op == "placeholder"][: len(order)]
    tensors = {node: names[id(held[name])] for node, name in zip(inputs, order, strict=True)}
    constants = {n: t for n, t in vars(graph).items() if isinstance(t, Tensor)} | dict(graph.named_buffers())
    outputs = tuple(next(n for n in graph.graph.nodes if n.op == "output").all_input_nodes)
    return Trace(graph, tensors, frozenset(n for n, _ in model.named_parameters()), constants, outputs, "fx")


def _sized(graph: torch.fx.Graph) -> None:
    """Refuse a graph in which the size of a tensor depends on values."""
    for node in graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, Tensor) and not all(isinstance(s, int) for s in value.shape):
            raise PruningError(f"the size of {node.name} depends on values")


@torch.no_grad()
def _faithful(model: nn.Module, graph: torch.fx.GraphModule, tensors: list[Tensor], inputs: tuple[Any, ...]) -> None:
    """Refuse a graph that does not compute what the model does on other inputs: part of the forward happened outside of it."""
    leaves, spec = torch.utils._pytree.tree_flatten(inputs)
    generator = torch.Generator().manual_seed(0)
    others = [_other(leaf, generator) for leaf in leaves]
    args, kwargs = torch.utils._pytree.tree_unflatten(others, spec)
    expected, _ = torch.utils._pytree.tree_flatten(model(*args, **kwargs))
    found, _ = torch.utils._pytree.tree_flatten(graph(tensors, others))
    for a, b in zip(expected, found, strict=True):
        if isinstance(a, Tensor) and not torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True):
            raise PruningError("part of the forward leaves the graph (numpy, .item() or constants made of values)")


def _other(leaf: Any, generator: torch.Generator) -> Any:
    if isinstance(leaf, Tensor) and leaf.is_floating_point():
        noise = torch.randn(leaf.shape, generator=generator, dtype=torch.float64)
        return leaf + noise.to(leaf.device, leaf.dtype)
    return leaf


def _writes_in_place(graph: torch.fx.Graph) -> bool:
    """Whether an operation changes a tensor that is read later or that is a view: then the graph is made functional first."""
    seen: dict[torch.fx.Node, int] = {n: i for i, n in enumerate(graph.nodes)}
    for node in graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None or not schema.is_mutable:
            continue
        changed = node.args[0] if node.args else None
        if not isinstance(changed, torch.fx.Node) or not node.users or changed.op == "placeholder":
            return True
        aliased = getattr(changed.target, "_schema", None)
        is_view = aliased is not None and any(r.alias_info is not None and not r.alias_info.is_write for r in aliased.returns)
        if is_view or any(seen[user] > seen[node] for user in changed.users):
            return True
    return False
