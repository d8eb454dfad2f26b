"""Rules: how channels pass through an operation. One function for each kind of ATen operation, registered by its names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from prunescope.pruning.coupling.channels import Label, Ledger, State, Value

Result = Value | list[Any]
Rule = Callable[["Call"], Result]
RULES: dict[str, Rule] = {}


@dataclass
class Call:
    """One operation at work: its overload, arguments by the schema's names (tensors as `Value`), and the shapes that it gives.

    shapes   of the result: one tuple, or a list of them (None for a result that is no tensor)
    """

    ledger: Ledger
    target: Any
    arguments: dict[str, Any]
    shapes: Any
    name: str = ""
    tensors: list[Value] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str) -> Any:
        """An argument that the operation may not have, else None."""
        return self.arguments.get(name)

    @property
    def input(self) -> Value:
        """The first tensor."""
        return self.tensors[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the result, of the first where there are several."""
        return self.shapes if isinstance(self.shapes, tuple) else next(s for s in self.shapes if s is not None)

    @property
    def data(self) -> bool:
        """Whether the result depends on the network's inputs."""
        return any(t.data for t in self.tensors)

    def result(self, labels: Iterable[Label] = ()) -> Result:
        """The result with `labels`; where there are several tensors each has them (those whose shape they fit)."""
        labels = tuple(labels)
        if isinstance(self.shapes, tuple):
            return Value(self.shapes, labels, self.data)
        return [s if s is None else Value(s, tuple(n for n in labels if n.ids.ndim == len(s)), self.data) for s in self.shapes]

    def opaque(self, reason: str) -> Result:
        """A result without channels: all that went in are frozen."""
        for tensor in self.tensors:
            for label in tensor.labels:
                self.ledger.freeze(label.ids, reason)
        return self.result()


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for operations by their ATen names, without overload."""

    def register(function: Rule) -> Rule:
        for name in names:
            if name in RULES:
                raise ValueError(f"operation {name!r} has two rules")
            RULES[name] = function
        return function

    return register


def settled(call: Call, label: Label, mixing: Iterable[int], reason: str) -> Label | None:
    """A label after an operation that mixes the dimensions `mixing`: channels that run along those and others are united over them.

    None where the channels run along mixed dimensions alone: then the caller says what becomes of them.
    """
    inside = label.dims & set(mixing)
    if not inside:
        return label
    if label.dims - inside:
        return call.ledger.collapse(label, inside)
    call.ledger.freeze(label.ids, reason)
    return None


def at_least(label: Label, state: State) -> Label:
    """The label in `state` or a worse one."""
    return replace(label, state=max(label.state, state))
