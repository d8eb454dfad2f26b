"""The compacted network as a graph of ATen operations: the traced graph with smaller parameters and other sizes in its code."""

from __future__ import annotations

from collections.abc import Iterator

import torch.fx
from torch import Tensor, nn

from prunescope.pruning.compact import edits
from prunescope.pruning.compact.checking import Inputs
from prunescope.pruning.compact.layout import layouts
from prunescope.pruning.compact.own import UnfitError
from prunescope.pruning.compact.plan import Plan
from prunescope.pruning.compact.rewriting import Rewrite
from prunescope.pruning.compact.tracing import batch_module, fixed_module, freed_module, open_module

RULE_FILES = (edits,)  # importing it registers its rules


def graph_modules(model: nn.Module, plan: Plan, inputs: Inputs, *, flexible: bool = True) -> Iterator[torch.fx.GraphModule]:
    """The smaller network as graphs, from the most to the least flexible in the sizes of its inputs: with the sizes that the code names
    found by comparing traces (seconds), traced with open sizes (which can take minutes), with the batch size found by comparing traces,
    and with the sizes of the example, the only one where `flexible` is False. UnfitError where an operation's sizes cannot be changed.
    """
    old = [n for n in plan.coupling.trace.graph.graph.nodes if _gives_tensors(n)]
    said = "two traces of the network differ"
    for build in (freed_module, open_module, batch_module, fixed_module) if flexible else (fixed_module,):
        try:
            module = build(model, inputs)
        except Exception as error:  # the user's forward runs on symbolic sizes, which may raise anything
            said = f"torch.export gives no module of its own: {' '.join(str(error).split())[:200]}"
            continue
        new = [n for n in module.graph.nodes if _gives_tensors(n)]
        if [n.target for n in old] == [n.target for n in new]:
            yield Rewrite(module, plan, dict(zip(old, new, strict=True)), layouts(plan)).go()
    raise UnfitError(said)


def _gives_tensors(node: torch.fx.Node) -> bool:
    value = node.meta.get("val")
    several = isinstance(value, list | tuple) and any(isinstance(v, Tensor) for v in value)
    return node.op == "call_function" and (isinstance(value, Tensor) or several)
