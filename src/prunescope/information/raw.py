"""What an estimator's function returns, before the verb gives it a unit and the sample's flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Raw:
    """Estimated quantity in nats, float64, of the shape of the input's leading (batch) dimensions: () for one sample.

    stderr    standard error in nats, shaped like `value`, where the method itself gives one
    interval  low and high end in nats, shaped like `value`, of the 95 % interval where the method knows more than its standard error;
              nan where it knows none
    ceiling   the largest value the method can return on such samples, in nats
    flags     what the method noticed ("degenerate", "ties", "unreliable", ...)
    detail    further results worth keeping with the estimate's parameters (both bounds, chosen width, steps trained, ...)
    """

    value: Tensor
    stderr: Tensor | None = None
    ceiling: Tensor | float | None = None
    flags: tuple[str, ...] = ()
    detail: Mapping[str, Any] = field(default_factory=dict)
    interval: tuple[Tensor, Tensor] | None = None
