"""Words that every layer shares: what data, estimates and errors look like. Imports nothing of the package."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

Unit = Literal["bits", "nats"]

LN2 = math.log(2.0)


class PrunescopeError(Exception):
    """One sentence for the user: the thing, what was expected, what came, what to do. The command line prints it alone."""


class ConfigError(PrunescopeError, ValueError):
    """A setting, name or combination of settings that cannot be used."""


class DataError(PrunescopeError, ValueError):
    """Data that are missing, damaged or of the wrong shape, type or value."""


class PruningError(PrunescopeError, ValueError):
    """A pruning request that cannot be carried out on this model."""


class EstimateError(PrunescopeError, ValueError):
    """Samples from which the asked quantity cannot be estimated."""


class StoreError(PrunescopeError, OSError):
    """A run folder or file that cannot be read or written."""


class ExportError(PrunescopeError, RuntimeError):
    """A network that cannot be written in the format asked for, or a file that does not compute what the network does."""


class MissingExtraError(PrunescopeError, ImportError):
    """An optional package that is not installed; the sentence names the extra that brings it."""


@dataclass(frozen=True)
class Split:
    """Samples and their labels: `x` of shape (n, ...) floating, `y` of shape (n,) int64 class numbers."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return int(self.x.shape[0])


@dataclass(frozen=True)
class Dataset:
    """A data set ready for training: `train`, `validation` and `test` are disjoint; `test` is for reporting only.

    `classes` is the number of labels; `notes` are sentences that the report shows (where the data came from, what was done to them).
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: int
    notes: tuple[str, ...] = ()

    def split(self, name: str) -> Split:
        """The split called `name`; "all" joins train, validation and test in that order."""
        if name == "all":
            import torch

            parts = [self.train, self.validation, self.test]
            return Split(torch.cat([p.x for p in parts]), torch.cat([p.y for p in parts]))
        if name not in ("train", "validation", "test"):
            raise DataError(f"split {name!r}: expected train, validation, test or all")
        return getattr(self, name)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Estimate:
    """An estimated information quantity: `value` in `unit`, with everything needed to judge it.

    stderr      standard error in `unit`, None where the method gives none
    interval    (low, high) in `unit`, nominally 95 %, None where none was asked for or the method has none; `parameters` say how made
    ceiling     the largest value this estimator can return on these samples (log2 n, H(Y), ...)
    n           samples used
    flags       what makes the value doubtful, in this estimator's or this sample's case (docs/how-to/judge-an-estimate.md has the list):
                "saturated" (within 0.1 bit of the ceiling), "above-ceiling", "unconverged" (it still changes with n), ...
    """

    value: float
    unit: Unit
    n: int
    estimator: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    stderr: float | None = None
    interval: tuple[float, float] | None = None
    ceiling: float | None = None
    flags: tuple[str, ...] = ()

    def __float__(self) -> float:
        return self.value

    def to(self, unit: Unit) -> Estimate:
        """The same estimate in "bits" or "nats"."""
        if unit not in ("bits", "nats"):
            raise EstimateError(f"unit {unit!r}: expected 'bits' or 'nats'")
        if unit == self.unit:
            return self
        factor = LN2 if unit == "nats" else 1 / LN2
        scaled = {
            name: None if (old := getattr(self, name)) is None else old * factor for name in ("stderr", "ceiling")
        }
        interval = None if self.interval is None else (self.interval[0] * factor, self.interval[1] * factor)
        return Estimate(
            self.value * factor, unit, self.n, self.estimator, self.parameters, interval=interval, flags=self.flags, **scaled
        )
