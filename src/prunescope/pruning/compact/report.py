"""The report of a compaction: what went, what stayed and why, how the result is built, and how it was checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from prunescope.pruning.compact.checking import Check
from prunescope.pruning.compact.plan import Plan
from prunescope.pruning.coupling import Coupling


@dataclass(frozen=True)
class Row:
    """One family of coupled channels: how many pieces it had, how many the masks leave dead, how many went, why others stayed."""

    family: str
    pieces: int
    dead: int
    removed: int
    reason: str


@dataclass(frozen=True)
class CompactReport:
    """What `compact` did.

    before, after   parameters (entries) of the model that came and of the one returned
    removable       parameters that belong to channels that the masks leave dead, or would if all of these could go
    how             "own classes" or "graph module"; note: why the first was not possible, and other things to know
    exact           whether the result computes what the masked network does; False for `approximate`
    checks          errors in double precision, relative to the largest output; rounded: the same in the model's own precision
    seconds         by part: trace, plan, build, check
    recalibrated    batch norms of an approximation whose statistics were taken anew
    """

    before: int
    after: int
    removable: int
    how: str
    exact: bool
    rows: tuple[Row, ...]
    checks: tuple[Check, ...]
    rounded: tuple[Check, ...]
    seconds: dict[str, float] = field(default_factory=dict)
    note: str = ""
    recalibrated: int = 0

    @property
    def removed(self) -> int:
        """Parameters that went."""
        return self.before - self.after

    @property
    def error(self) -> float:
        """The largest error in double precision, relative to the largest output."""
        return max((c.error for c in self.checks), default=float("nan"))

    @property
    def rounded_error(self) -> float:
        """The largest error in the model's own precision, relative to the largest output."""
        return max((c.error for c in self.rounded), default=float("nan"))

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return asdict(self) | {"removed": self.removed, "error": self.error, "rounded_error": self.rounded_error}

    def __str__(self) -> str:
        """The report as a table."""
        share = f" ({self.removed / self.removable:.1%} of what the masks make removable)" if self.removable else ""
        kind = "the same function" if self.exact else "an APPROXIMATION of the masked network"
        lines = [
            f"{self.before:,} parameters -> {self.after:,}: {self.removed:,} removed{share}; {self.how}, {kind}",
            f"largest error: {self.error:.1e} in double precision, {self.rounded_error:.1e} as returned "
            f"({', '.join(c.what for c in self.checks)})",
        ]
        if not self.exact:
            lines.append(f"statistics of {self.recalibrated} batch norms were taken anew from the calibration samples")
        if self.note:
            lines.append(f"note: {self.note}")
        wide = max([6, *(len(r.family) for r in self.rows)])
        lines.append(f"{'family':<{wide}} {'pieces':>7} {'dead':>7} {'removed':>8}  why others stay")
        lines += [f"{r.family:<{wide}} {r.pieces:>7} {r.dead:>7} {r.removed:>8}  {r.reason}" for r in self.rows]
        return "\n".join(lines)


def rows(plan: Plan, dead: np.ndarray) -> tuple[Row, ...]:
    """A row for every family; `dead` says by set what the masks leave dead."""
    found = []
    for family in (*plan.coupling.families, *plan.coupling.frozen):
        gone, lost = plan.removed[family.sets], dead[family.sets]
        reasons: dict[str, int] = {}
        for number in family.sets[lost & ~gone].tolist():
            why = plan.stays.get(number) or "; ".join(family.frozen) or plan.study.reason(number)
            reasons[why] = reasons.get(why, 0) + 1
        text = "; ".join(f"{n} {why}" for why, n in reasons.items()) or ("; ".join(family.frozen) if family.frozen else "")
        found.append(Row(family.name, family.pieces, int(lost.sum()), int(gone.sum()), text))
    return tuple(found)


def counted(coupling: Coupling, removed: np.ndarray, names: Sequence[str]) -> int:
    """Parameters (entries) in `names` that go with the `removed` sets."""
    shapes: dict[str, list[int]] = {}
    left: dict[str, list[int]] = {}
    for start, size, name, _dim in coupling.ledger.spans:
        shapes.setdefault(name, []).append(size)
        left.setdefault(name, []).append(size - int(removed[coupling.sets[start : start + size]].sum()))
    return sum(int(np.prod(shapes[n])) - int(np.prod(left[n])) for n in names if n in shapes)
