"""The compacted network as a graph of ATen operations: the traced graph with smaller parameters and other sizes in its code."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch.fx
from torch import Tensor, nn

from prunescope.pruning.compact import edits
from prunescope.pruning.compact.checking import Inputs
from prunescope.pruning.compact.layout import layouts
from prunescope.pruning.compact.own import UnfitError
from prunescope.pruning.compact.plan import Plan
from prunescope.pruning.compact.rewriting import Rewrite
from prunescope.pruning.compact.tracing import CourseError, batch_module, fixed_module, freed_module, open_module

RULE_FILES = (edits,)  # importing it registers its rules


class Traces:
    """The traces of one network on its example inputs: each is made once, however many plans are tried on it."""

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        self.model, self.inputs = model, inputs
        self._made: dict[Callable[..., torch.fx.GraphModule], torch.fx.GraphModule | Exception] = {}

    def __call__(self, build: Callable[[nn.Module, Inputs], torch.fx.GraphModule]) -> torch.fx.GraphModule:
        """A graph of its own that shares its tensors with the network; raises what `build` raised."""
        if build not in self._made:
            try:
                self._made[build] = build(self.model, self.inputs)
            except Exception as error:  # the user's forward runs on symbolic sizes, which may raise anything
                self._made[build] = error
        made = self._made[build]
        if isinstance(made, Exception):
            raise made
        tensors = [*made.parameters(), *made.buffers(), *(v for m in made.modules() for v in vars(m).values() if isinstance(v, Tensor))]
        return copy.deepcopy(made, {id(t): t for t in tensors})


def graph_modules(traces: Traces, plan: Plan, *, flexible: bool = True) -> Iterator[tuple[torch.fx.GraphModule, bool]]:
    """The smaller network as graphs, from the most to the least flexible in the sizes of its inputs: with the sizes that the code names
    found by comparing traces (seconds), traced with open sizes (which can take minutes, and is left out where another size means another
    graph), with the batch size found by comparing traces, and with the sizes of the example, the only one where `flexible` is False.
    Each comes with whether a later one may take more sizes. UnfitError where an operation's sizes cannot be changed.
    """
    old = [n for n in plan.coupling.trace.graph.graph.nodes if _gives_tensors(n)]
    said = "two traces of the network differ"
    builds = [freed_module, open_module, batch_module, fixed_module] if flexible else [fixed_module]
    while builds:
        build = builds.pop(0)
        try:
            module = traces(build)
        except Exception as error:
            said = f"torch.export gives no module of its own: {' '.join(str(error).split())[:200]}"
            if isinstance(error, CourseError):
                builds = [b for b in builds if b is not open_module]
            continue
        new = [n for n in module.graph.nodes if _gives_tensors(n)]
        if [n.target for n in old] == [n.target for n in new]:
            yield Rewrite(module, plan, dict(zip(old, new, strict=True)), layouts(plan)).go(), open_module in builds
    raise UnfitError(said)


def _gives_tensors(node: torch.fx.Node) -> bool:
    value = node.meta.get("val")
    several = isinstance(value, list | tuple) and any(isinstance(v, Tensor) for v in value)
    return node.op == "call_function" and (isinstance(value, Tensor) or several)
