"""The verbs: mutual information, entropy and conditional mutual information of samples, in bits unless nats are asked for."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from prunescope.information.raw import Raw
from prunescope.information.samples import Columns, columns, pair
from prunescope.information.uncertainty import LEAST_PART, METHODS, Spread, extrapolation, extrapolation_or_own
from prunescope.registry import Entry, estimators, unknown
from prunescope.rng import torch_generator
from prunescope.types import LN2, ConfigError, Estimate, EstimateError, Unit

Uncertainty = Literal["auto", "extrapolation", "subsampling", "jackknife"] | None
KNOWN = ("auto", "extrapolation", *METHODS)
NEAR_CEILING = 0.1 * LN2


def mutual_information(
    x: Any,
    y: Any,
    estimator: str = "auto",
    *,
    unit: Unit = "bits",
    uncertainty: Uncertainty = "auto",
    seed: int = 0,
    **parameters: Any,
) -> Estimate | list[Estimate]:
    """Mutual information in bits (or nats) between samples x and y, row by row; a list of them for batched input.

    x, y        (n,) whole numbers, truth values or strings are labels; (n,) or (n, d) floating numbers are continuous;
                (..., n, d) is a batch. Arrays, tensors, lists, Series and DataFrames are taken.
    estimator   a name of `prunescope list estimators`, or "module:function" of your own; "auto" chooses and says why
    uncertainty how the 95 % interval is made. "auto": "extrapolation" for estimators that are consistent but biased at any n (its trait
                `interval`; two to four times the work), else the method's own; and the tests of the method's assumptions, which add
                flags. "extrapolation" (statistical error and bias), "subsampling", "jackknife" (no bias) for any estimator.
                None: the bare value and the method's own standard error, no interval, nothing tested.
    Errors: EstimateError for samples that cannot be used, ConfigError for an unknown estimator or parameter.

    >>> print(mutual_information([0, 0, 1, 1], ["a", "a", "b", "b"], "plugin").value)
    1.0
    """
    job = _job(estimators.get(estimator), "mi", parameters, unit, uncertainty, seed)
    return _run(job, pair(("x", x), ("y", y)))


def entropy(
    x: Any,
    estimator: str | None = None,
    *,
    unit: Unit = "bits",
    uncertainty: Uncertainty = "auto",
    seed: int = 0,
    **parameters: Any,
) -> Estimate | list[Estimate]:
    """Entropy in bits (or nats) of samples x: of labels, or differential of continuous numbers (which may be negative).

    estimator   None takes "plugin" for labels and "kl-entropy" for numbers; else one that gives entropies

    >>> print(entropy([0, 1, 0, 1]).value)
    1.0
    """
    column = columns(x, "x")
    entry = estimators.get(estimator or ("plugin" if column.kind == "discrete" else "kl-entropy"))
    return _run(_job(entry, "entropy", parameters, unit, uncertainty, seed), [column])


def conditional_mutual_information(
    x: Any,
    y: Any,
    z: Any,
    estimator: str | None = None,
    *,
    unit: Unit = "bits",
    uncertainty: Uncertainty = "auto",
    seed: int = 0,
    **parameters: Any,
) -> Estimate | list[Estimate]:
    """Conditional mutual information I(X; Y | Z) in bits (or nats) of samples x, y, z.

    estimator   None takes "plugin" for labels and "ksg" for numbers; else one that gives it

    >>> print(conditional_mutual_information([0, 0, 1, 1], [0, 0, 1, 1], [0, 1, 0, 1]).value)
    1.0
    """
    parts = pair(("x", x), ("y", y), ("z", z))
    discrete = all(p.kind == "discrete" for p in parts)
    entry = estimators.get(estimator or ("plugin" if discrete else "ksg"))
    return _run(_job(entry, "conditional", parameters, unit, uncertainty, seed), parts)


def _quantity(entry: Entry, name: str) -> Callable[..., Any]:
    """The function of `entry` that gives the quantity: its trait of that name, or itself where that is all it gives."""
    if name in entry.traits:
        return entry.traits[name]  # type: ignore[no-any-return]
    given = entry.traits.get("quantities", ("mi",))
    short = {"conditional": "cmi"}.get(name, name)
    if (short in given and (name == "mi" or "mi" not in given)) or entry.traits.get("own"):
        return entry.function
    able = [e.name for e in estimators if name in e.traits or short in e.traits.get("quantities", ("mi",))]
    raise ConfigError(f"estimator {entry.name!r} gives {', '.join(given)}, not {short}: choose one of {', '.join(able)}")


@dataclass(frozen=True)
class _Job:
    """One estimation: what to compute and how to report it."""

    entry: Entry
    function: Callable[..., Any]
    parameters: Mapping[str, Any]
    unit: Unit
    uncertainty: Uncertainty
    seed: int
    quantity: str = "mi"

    @property
    def random(self) -> bool:
        """Whether the method draws numbers: each element of a batch then gets its own stream, the one it would get alone."""
        return "generator" in inspect.signature(self.function).parameters

    @property
    def looks(self) -> bool:
        """Whether the samples are looked at beyond one call of the method: each element of a batch is then on its own."""
        return self.uncertainty not in (None, "auto") or (self.uncertainty == "auto" and self._asks)

    @property
    def _asks(self) -> bool:
        traits = self.entry.traits
        return traits.get("interval") == "extrapolation" or (self.quantity == "mi" and "check" in traits)

    def spread(self, parts: list[Columns], raw: Raw) -> Spread | None:
        """Standard error, interval and flags from parts of the samples, where that was asked for."""

        def compute(rows: Tensor) -> float:
            return float(self.raw([p.take(rows) for p in parts]).value)

        if self.uncertainty in METHODS:
            return METHODS[self.uncertainty](compute, parts[0].n, seed=self.seed)
        if self.uncertainty == "extrapolation":
            return extrapolation(compute, parts[0].n, seed=self.seed, **self._known(parts, raw))
        if self.uncertainty == "auto" and self.entry.traits.get("interval") == "extrapolation":
            return extrapolation_or_own(compute, parts[0].n, seed=self.seed, **self._known(parts, raw))
        return None

    def _known(self, parts: list[Columns], raw: Raw) -> dict[str, Any]:
        """What extrapolation starts from: the value, its own error, the slowest rate of the bias, and the value on normal scores."""
        traits = self.entry.traits
        columns = sum(p.values.shape[-1] for p in parts if p.kind != "discrete")
        rate = traits["rate"](columns) if "rate" in traits else 1 / max(1, columns)
        other = None
        if traits.get("coordinates") and columns and self.quantity != "entropy":
            other = float(self.raw([p.on_normal_scores() for p in parts]).value)
        own = 0.0 if raw.stderr is None or not math.isfinite(float(raw.stderr)) else float(raw.stderr)
        return {"value": float(raw.value), "own": own, "rate": rate, "other": other}

    def doubts(self, parts: list[Columns]) -> tuple[str, ...]:
        """Flags from the test of what the method assumes, where it has one."""
        check = self.entry.traits.get("check")
        if check is None or self.uncertainty is None or self.quantity != "mi":
            return ()
        found: tuple[str, ...] = check(*_arguments(self.entry, parts))
        return found

    def raw(self, parts: list[Columns]) -> Raw:
        options = dict(self.parameters)
        if self.random:
            options["generator"] = torch_generator(self.seed, "estimator", self.entry.name)
        result = self.function(*_arguments(self.entry, parts), **options)
        return result if isinstance(result, Raw) else Raw(torch.as_tensor(result, dtype=torch.float64))


def _job(
    entry: Entry, quantity: str, parameters: Mapping[str, Any], unit: Unit, uncertainty: Uncertainty, seed: int
) -> _Job:
    if unit not in ("bits", "nats"):
        raise EstimateError(f"unit {unit!r}: expected 'bits' or 'nats'")
    if uncertainty is not None and uncertainty not in KNOWN:
        raise EstimateError(f"uncertainty {uncertainty!r}: expected None or one of {', '.join(KNOWN)}")
    function = _quantity(entry, quantity)
    _known_parameters(entry, function, parameters)
    return _Job(entry, function, parameters, unit, uncertainty, seed, quantity)


def _run(job: _Job, parts: list[Columns]) -> Estimate | list[Estimate]:
    _enough(parts[0].n, {**_defaults(job.function), **job.parameters}.get("k"))
    parts = _ordered(job.entry, parts)
    batch = max((p.batch for p in parts), key=len)
    if not batch:
        return _single(job, parts)
    singles = [[p.at(i) for p in parts] for i in itertools.product(*map(range, batch))]
    whole = job.entry.traits.get("batched") and not job.looks and not job.random
    if not whole or any(p.constant or "degenerate" in p.flags for s in singles for p in s):
        return [_single(job, s) for s in singles]
    return _batched(job, [_expanded(p, batch) for p in parts], singles)


def _single(job: _Job, parts: list[Columns]) -> Estimate:
    flags = tuple(dict.fromkeys(f for p in parts for f in p.flags))
    if job.quantity == "entropy" and parts[0].kind != "discrete" and "degenerate" in flags:
        raise EstimateError("x: expected columns that vary, got a constant one, whose differential entropy is minus infinity; drop it")
    if any(p.constant for p in parts[:2]):
        stated = {**job.parameters, "why": "a constant variable carries no information"}
        flags = tuple(dict.fromkeys((*flags, "degenerate")))
        return Estimate(0.0, job.unit, parts[0].n, job.entry.name, stated, 0.0, None, 0.0, flags)
    raw = job.raw(parts)
    value = float(raw.value)
    if not math.isfinite(value):
        raise EstimateError(f"estimator {job.entry.name!r} returned {value} on these samples: try another one or other parameters")
    return _report(job, raw, parts, value, (*flags, *job.doubts(parts)), job.spread(parts, raw))


def _batched(job: _Job, parts: list[Columns], singles: list[list[Columns]]) -> list[Estimate]:
    """One call for the whole batch, its values handed out in row-major order of the leading dimensions."""
    raw = job.raw(parts)
    flags = [tuple(dict.fromkeys(f for p in s for f in p.flags)) for s in singles]
    values = raw.value.reshape(-1).tolist()
    stderr = [None] * len(singles) if raw.stderr is None else [v[None] for v in raw.stderr.reshape(-1)]
    ceilings = _spread_out(raw.ceiling, len(singles))
    each = [Raw(raw.value, e, c, raw.flags, raw.detail) for e, c in zip(stderr, ceilings, strict=True)]
    return [_report(job, r, s, v, f, None) for r, s, v, f in zip(each, singles, values, flags, strict=True)]


def _spread_out(ceiling: Tensor | float | None, count: int) -> list[float | None]:
    if isinstance(ceiling, Tensor) and ceiling.numel() > 1:
        return list(ceiling.reshape(-1).tolist())
    return [None if ceiling is None else float(ceiling)] * count


def _report(
    job: _Job, raw: Raw, parts: list[Columns], value: float, flags: tuple[str, ...], spread: Spread | None
) -> Estimate:
    if not math.isfinite(value):
        raise EstimateError(f"estimator {job.entry.name!r} returned {value} on these samples: try another one or other parameters")
    stderr = None if raw.stderr is None else float(raw.stderr)
    interval, stated = None, {**_defaults(job.function), **job.parameters, **raw.detail}
    if spread is not None:
        stderr, interval, stated = spread.stderr, (value - spread.below, value + spread.above), {**stated, **spread.stated}
    elif raw.interval is not None and job.uncertainty is not None:
        ends = float(raw.interval[0]), float(raw.interval[1])
        interval = ends if all(map(math.isfinite, ends)) else None
        stated.setdefault("uncertainty", "the estimator's own 95 % interval")
    elif stderr is not None and job.uncertainty is not None:
        interval = value - 1.96 * stderr, value + 1.96 * stderr
        stated["uncertainty"] = "the estimator's own standard error, 95 % normal interval"
    ceiling = capacity(raw, parts)
    few = ("few-samples",) if parts[0].n < LEAST_PART else ()
    found = (*flags, *raw.flags, *few, *(() if spread is None else spread.flags), *ceiling_flags(value, ceiling, interval))
    estimate = Estimate(
        value, "nats", parts[0].n, job.entry.name, stated, stderr, interval, ceiling, tuple(dict.fromkeys(found)),
    )  # fmt: skip
    return estimate.to(job.unit)


def capacity(raw: Raw, parts: list[Columns]) -> float:
    """Ceiling in nats: the method's own and the labels' entropies, or log n for a method that states none.

    No lower bound that holds whatever the distribution can exceed log n by much: McAllester & Stratos 2020, theorem 1.1.
    """
    own = math.log(parts[0].n) if raw.ceiling is None else float(raw.ceiling)
    return min(own, *(p.entropy_ceiling() for p in parts[:2])) if len(parts) > 1 else own


def saturated(value: float, ceiling: float) -> bool:
    """Whether a value in nats lies within 0.1 bit of its ceiling (half the ceiling where that is below 0.2 bit)."""
    return value >= ceiling - min(NEAR_CEILING, ceiling / 2)


def ceiling_flags(value: float, ceiling: float, interval: tuple[float, float] | None = None) -> tuple[str, ...]:
    """"saturated" for a value (nats) near or above its ceiling; "above-ceiling" beyond it by more than 0.1 bit and than its interval.

    >>> ceiling_flags(1.0, 1.0), ceiling_flags(1.2, 1.0), ceiling_flags(1.2, 1.0, (0.9, 1.5))
    (('saturated',), ('saturated', 'above-ceiling'), ('saturated',))
    """
    if not saturated(value, ceiling):
        return ()
    above = value - ceiling > NEAR_CEILING and (interval is None or interval[0] > ceiling)
    return ("saturated", "above-ceiling") if above else ("saturated",)


def _arguments(entry: Entry, parts: list[Columns]) -> list[Tensor]:
    """Tensors as the estimator takes them: labels become a column of numbers for one that mixes both."""
    wanted = _wanted(entry, len(parts))
    return [
        p.values.to(torch.float64)[..., None] if w == "mixed" and p.kind == "discrete" else p.values
        for p, w in zip(parts, wanted, strict=True)
    ]


def _wanted(entry: Entry, count: int) -> tuple[str, ...]:
    x, y = entry.traits.get("x", "any"), entry.traits.get("y", "any")
    return (x, y, entry.traits.get("z", x))[:count]


def fits(entry: Entry, *kinds: str) -> bool:
    """Whether the estimator takes variables of these kinds in this order."""
    return all(w in ("any", "mixed", k) for w, k in zip(_wanted(entry, len(kinds)), kinds, strict=True))


def _ordered(entry: Entry, parts: list[Columns]) -> list[Columns]:
    """The variables in the order that the estimator takes them (mutual information does not change when x and y do)."""
    kinds = [p.kind for p in parts]
    if fits(entry, *kinds):
        return parts
    if len(parts) == 2 and fits(entry, *kinds[::-1]):
        return parts[::-1]
    wanted, got = " and ".join(_wanted(entry, len(parts))), " and ".join(kinds)
    able = [e.name for e in estimators if fits(e, *kinds) or fits(e, *kinds[::-1])]
    raise EstimateError(f"estimator {entry.name!r} takes {wanted} variables, got {got}: choose one of {', '.join(able)}")


def _expanded(part: Columns, batch: tuple[int, ...]) -> Columns:
    own = part.values.shape[len(part.batch) :]
    return part if part.batch else Columns(part.values.expand(*batch, *own), part.kind, part.flags)


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "generator"}


def _known_parameters(entry: Entry, function: Callable[..., Any], parameters: Mapping[str, Any]) -> None:
    known = _defaults(function)
    for name in parameters:
        if name not in known and not entry.traits.get("own"):
            raise ConfigError(unknown(f"parameter of estimator {entry.name!r}", name, list(known) or ["none"]))


def _enough(n: int, k: Any) -> None:
    least = max(2, k + 2) if isinstance(k, int) else 2
    if n < least:
        raise EstimateError(f"too few samples: expected at least {least}, got {n}; collect more" + (" or lower k" if least > 2 else ""))
