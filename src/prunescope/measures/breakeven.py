"""Break-even: the sparsity from which on a sparse back-end is faster than the best dense one, measured for the user's own layer sizes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.crossing import crossing
from prunescope.measures.backends import BackendError, Call, Job, Prepared, exact, prepare
from prunescope.measures.backends.sparse import linear_inputs
from prunescope.measures.timing import compared
from prunescope.registry import backends
from prunescope.types import ConfigError, PrunescopeError

LEVELS = (0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)
WHOLE = "whole network"


@dataclass(frozen=True)
class Point:
    """Time of the sparse back-end over time of the best dense one at a sparsity: median and 95 % interval; `latency_ms` of the sparse."""

    sparsity: float
    ratio: float
    low: float
    high: float
    latency_ms: float


@dataclass(frozen=True)
class BreakEven:
    """From which sparsity on `backend` beats `dense`, the best dense back-end, on `what`; None where it never does.

    interval   (low, high) of that sparsity from the intervals of the ratios, None for an end beyond the highest level tried; without a
               high end there is no break-even either
    points     the ratios measured, without levels at which nothing can be made sparse with profit; reason: why there are none
    """

    model: str
    what: str
    rows: int
    batch_size: int
    backend: str
    dense: str
    sparsity: float | None
    interval: tuple[float | None, float | None] = (None, None)
    points: tuple[Point, ...] = ()
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Setting:
    """How to measure: the dense back-ends to beat, sparsities, threads, seconds a timing, clock, options for back-ends."""

    dense: Sequence[str]
    sparse: Sequence[str]
    levels: Sequence[float] = LEVELS
    threads: int = 1
    seconds: float = 0.1
    clock: str | Callable[[], float] = "wall"
    options: Mapping[str, Any] = field(default_factory=dict)


def from_points(levels: Sequence[float], points: Sequence[Point | None]) -> tuple[float | None, tuple[float | None, float | None]]:
    """The break-even and its interval from one point a level, None where nothing could be made sparse with profit.

    There is none unless at the highest level the whole interval of the ratio lies below 1.
    """
    by_end = {end: [math.inf if p is None else float(getattr(p, end)) for p in points] for end in ("ratio", "low", "high")}
    ends = (crossing(levels, by_end["low"]), crossing(levels, by_end["high"]))
    return (crossing(levels, by_end["ratio"]) if ends[1] is not None else None), ends


def break_evens(name: str, model: nn.Module, x: Tensor, setting: Setting) -> Iterator[BreakEven]:
    """The break-evens of every sparse back-end on each distinct linear layer of `model` with the rows that a batch `x` gives it, and on
    the whole network with all its linear layers at one sparsity. Zeros are placed at random, exactly as many as asked, seeded."""
    check_levels(setting.levels)
    inputs = linear_inputs(model, x)
    shapes: dict[tuple[int, int, int], tuple[nn.Linear, Tensor]] = {}
    for layer_name, given in inputs.items():
        layer = model.get_submodule(layer_name)
        assert isinstance(layer, nn.Linear), "only those are looked at"
        shapes.setdefault((layer.in_features, layer.out_features, given.numel() // layer.in_features), (layer, given))
    for (wide, tall, rows), (layer, given) in shapes.items():
        every = replace(setting, options={"threshold": 0.0, **setting.options})  # sparse even where that is slower, to see how much
        yield from _on((name, f"Linear {wide} x {tall}", rows, len(x)), layer, given, every)
    yield from _on((name, WHOLE, len(x), len(x)), model, x, setting)


def check_levels(levels: Sequence[float]) -> None:
    """Refuse sparsities that are none, or not in rising order."""
    if not levels or any(not 0 <= s < 1 for s in levels) or list(levels) != sorted(set(levels)):
        raise ConfigError(f"sparsities {list(levels)}: expected fractions removed from 0 to below 1, rising, e.g. 0.5,0.8,0.9")


def _on(what: tuple[str, str, int, int], model: nn.Module, x: Tensor, setting: Setting) -> Iterator[BreakEven]:
    """Every sparse back-end on one network or layer."""
    job = Job(model, x, setting.threads)
    best, reason = best_dense(job, setting)
    for backend in setting.sparse:
        if best is None:
            yield BreakEven(*what, backend, "", None, reason=reason)
            continue
        pattern = backends.get(backend).traits.get("pattern")
        levels = [0.5] if pattern else list(setting.levels)
        points: list[Point | None] = []
        reason = ""
        for level in levels:
            try:
                points.append(_point(best, backend, job, level, setting))
            except BackendError as error:
                points.append(None)
                reason = str(error)
            except PrunescopeError as error:  # it cannot be used here at all
                reason = str(error)
                break
        if not any(points):
            yield BreakEven(*what, backend, best.backend, None, reason=reason)
            continue
        yield BreakEven(*what, backend, best.backend, *from_points(levels, points), tuple(p for p in points if p is not None))


def best_dense(job: Job, setting: Setting) -> tuple[Prepared | None, str]:
    """The fastest of the dense back-ends that compute the same function, and why there is none if so."""
    ready: dict[str, Prepared] = {}
    reasons = []
    for name in setting.dense:
        if not exact(name):
            continue
        try:
            ready[name] = prepare(name, job)
        except PrunescopeError as error:
            reasons.append(str(error))
    if not ready:
        return None, "; ".join(reasons) or "no dense back-end was asked for"
    with torch.no_grad():
        times = compared({n: Call(p, job.example) for n, p in ready.items()}, **_how(setting))
    return ready[min(times, key=lambda n: times[n].median)], ""


def _point(best: Prepared, backend: str, job: Job, level: float, setting: Setting) -> Point:
    thinned = sparsified(job.model, level, pattern=backends.get(backend).traits.get("pattern"))
    x = job.example
    ready = prepare(backend, Job(thinned, x, setting.threads, like=job, **setting.options))
    with torch.no_grad():
        times = compared({"sparse": Call(ready, x), "dense": Call(best, x)}, **_how(setting))
    return Point(level, *times["sparse"].over(times["dense"]), times["sparse"].median)


def _how(setting: Setting) -> dict[str, Any]:
    return {"seconds": setting.seconds, "threads": setting.threads, "clock": setting.clock}


def sparsified(model: nn.Module, sparsity: float, *, pattern: str | None = None, seed: int = 0) -> nn.Module:
    """A copy of `model` with round(sparsity * n) random weights of every linear layer at zero, or two of every four with "2:4".

    >>> int((sparsified(nn.Linear(10, 4), 0.7).weight == 0).sum())
    28
    """
    made = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, nn.Linear):
                w = module.weight
                scores = torch.rand(w.shape, generator=generator).to(w.device)
                if pattern == "2:4" and w.shape[1] % 4 == 0:
                    order = scores.reshape(-1, 4).argsort(1)
                    w.view(-1, 4).scatter_(1, order[:, :2], 0.0)
                elif pattern is None:
                    w.view(-1)[scores.view(-1).argsort()[: round(sparsity * w.numel())]] = 0.0
    return made
