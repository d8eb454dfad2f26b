"""Intakes: where a weight takes a tensor's channels as its inputs, so that constants among them can go into its bias."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch.fx

from prunescope.pruning.coupling import Coupling
from prunescope.pruning.coupling.channels import Value
from prunescope.pruning.coupling.walk import rule_of

LAYERS = {"linear", "mm", "matmul", "addmm"}
CONVOLUTIONS = {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution", "_convolution"}
FLIPS = {"t", "transpose", "numpy_T", "mT", "permute"}


@dataclass(frozen=True, eq=False)
class Intake:
    """At `node`, `weight` takes the channels along dimension `dim` of `source` along its own dimension `inputs`.

    outputs   the weight's dimension of what it computes; bias: the name of its bias, None where it has none
    groups    of a grouped convolution
    even      whether constants stay the same at every position behind it, so that a bias can stand for them
    """

    node: torch.fx.Node
    source: torch.fx.Node
    dim: int
    weight: str
    inputs: int
    outputs: int
    bias: str | None
    groups: int = 1
    even: bool = True


def arguments(node: torch.fx.Node) -> dict[str, Any]:
    """A node's arguments by the schema's names, defaults filled in."""
    found: dict[str, Any] = {}
    for i, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        given = node.args[i] if i < len(node.args) and not argument.kwarg_only else node.kwargs.get(argument.name)
        missing = given is None and i >= len(node.args) and argument.name not in node.kwargs
        found[argument.name] = argument.default_value if missing and argument.has_default_value() else given
    return found


def intakes(coupling: Coupling) -> dict[torch.fx.Node, Intake]:
    """The intakes of a network, by node, as far as their form is known."""
    return {node: found for node in coupling.ledger.takers if (found := _intake(coupling, node)) is not None}


def _intake(coupling: Coupling, node: torch.fx.Node) -> Intake | None:
    if node is None or not isinstance(node.target, torch._ops.OpOverload):
        return None
    name, named = rule_of(node.target)[0].rstrip("_"), arguments(node)
    if name in LAYERS:
        return _layer(coupling, node, name, named)
    if name in CONVOLUTIONS:
        return _convolution(coupling, node, name, named)
    return None


def _layer(coupling: Coupling, node: torch.fx.Node, name: str, named: dict[str, Any]) -> Intake | None:
    operands = [a for a in named.values() if isinstance(a, torch.fx.Node)]
    if name == "linear":
        source, weight, bias = named["input"], named["weight"], named["bias"]
    elif name == "addmm":
        source, weight, bias = named["mat1"], named["mat2"], named["self"]
        if named["beta"] != 1 or named["alpha"] != 1:
            return None
    else:
        source, weight, bias = operands[0], operands[1], None
    known, flipped = _parameter(coupling, weight)
    shape = coupling.values[weight].shape if weight in coupling.values else ()
    if known is None or len(shape) != 2 or not coupling.values[source].data:
        return None
    inputs = (1 if name == "linear" else 0) ^ flipped
    own = None if bias is None else _parameter(coupling, bias)[0]
    if bias is not None and (own is None or len(coupling.values[bias].shape) != 1):
        return None
    return Intake(node, source, len(coupling.values[source].shape) - 1, known, inputs, 1 - inputs, own)


def _convolution(coupling: Coupling, node: torch.fx.Node, name: str, named: dict[str, Any]) -> Intake | None:
    weight, flipped = _parameter(coupling, named["weight"])
    bias = None if named["bias"] is None else _parameter(coupling, named["bias"])[0]
    if weight is None or flipped or (named["bias"] is not None and bias is None):
        return None
    transposed = "transpose" in name or bool(named.get("transposed"))
    shape = coupling.values[named["weight"]].shape
    dim = len(coupling.values[named["input"]].shape) - len(shape) + 1
    padding = named["padding"]
    padded = padding != "valid" if isinstance(padding, str) else any(padding)
    even = not transposed and not padded
    return Intake(node, named["input"], dim, weight, 0 if transposed else 1, 1 if transposed else 0, bias, named["groups"], even)


def _parameter(coupling: Coupling, node: Any) -> tuple[str | None, bool]:
    """(the name of the parameter that a node is, whether it is turned round); None where it is something else."""
    flipped = False
    while isinstance(node, torch.fx.Node) and node.op == "call_function" and rule_of(node.target)[0] in FLIPS:
        if len(coupling.values[node].shape) != 2:
            return None, False
        if list(named := arguments(node).get("dims") or [1, 0]) == [1, 0]:
            flipped = not flipped
        elif named != [0, 1]:
            return None, False
        node = node.args[0]
    if not isinstance(node, torch.fx.Node) or node.op != "placeholder":
        return None, False
    name = coupling.trace.tensors.get(node.name)
    return (name if name in coupling.trace.parameters else None), flipped


def operands(coupling: Coupling, node: torch.fx.Node) -> Iterator[tuple[torch.fx.Node, Value]]:
    """The tensors that a node takes, with their channels."""
    for source in node.all_input_nodes:
        value = coupling.values.get(source)
        if isinstance(value, Value):
            yield source, value
