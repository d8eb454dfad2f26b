"""`auto`: which estimator suits these samples, by a rule that is written down, and what it cannot be trusted for.

The rule, in order:
1. labels on both sides: counts with Miller and Madow's correction; Chao and Shen's where cells are sparse (flag "undersampled").
2. labels on one side: Ross on normal scores up to 10 columns; beyond, the held-out bound of MINE (flag "unreliable").
3. columns with many equal rows (more than 5 %): Gao's mixed estimator.
4. three continuous columns or fewer: Kraskov on normal scores, k = 4; where an elliptical copula passes the test of `misfit` and agrees
   within two standard errors, its value, which scatters less. Flag "unreliable" where the value still grows with n.
5. more columns: the elliptical copula (normal or Student), unless a network finds information beyond it on held-out samples. Then the
   copula's value plus that gain, or Kraskov's where that is larger and columns are at most six; flagged "unreliable". That sum is no
   bound: a copula that does not fit can itself read high (points on a ring, docs/science/estimators/auto.md). Where the test of
   `misfit` rejects the copula but the network finds nothing, the copula's value, flagged "unreliable".

The interval holds the doubt between the methods besides each one's error. Counts and neighbours: `uncertainty.extrapolation`. A copula
that passes: its value +- 1.96 standard errors, and the neighbours' whole interval (few columns: a test that passes may have lacked the
samples to see) or, above, what the network may have overlooked by chance (many columns). A copula that fails: from its own lower end to
the highest upper end of all methods asked; nothing bounds the truth from above there, which the flag says.

The family of copulas and the constants below were chosen with the tasks of `prunescope.data.synthetic` in view: expect it to do less well
elsewhere than in docs/science/mi_accuracy.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

from prunescope.information.elliptical import Elliptical, Floats, fit_elliptical, half_ranks, scores
from prunescope.information.knn import gao_mixed, ksg, ross
from prunescope.information.misfit import Misfit, misfit
from prunescope.information.neural import LEAST, mine
from prunescope.information.raw import Raw
from prunescope.information.residual import residual
from prunescope.information.uncertainty import Spread, extrapolation_or_own
from prunescope.registry import estimators
from prunescope.rng import numpy_generator, torch_generator
from prunescope.types import EstimateError

FEW = 3  # columns of x and y together up to which neighbours are trusted by themselves
SOME = 6  # columns up to which neighbours are asked beside the network
LABELLED = 10  # columns of x up to which Ross's estimator is used with labels
TIED = 0.05  # share of equal rows from which samples count as mixed
NEIGHBOURS = 4
GROWTH = 3.0  # standard errors (and a tenth of itself) by which a value may exceed the one at n / 2
Z = 1.96  # standard errors to each side of a 95 % interval
DOUBT = "sampling error, bias by extrapolation in n, and the distance between the methods that were asked, 95 %"
NEAR_LIMIT = 2.0  # nats below ln n from which a value of few columns is doubtful: exp(I) approaches n


@dataclass(frozen=True)
class Choice:
    """What was chosen for one sample: value, standard error and ends of the 95 % interval in nats, and why."""

    value: float
    stderr: float
    method: str
    why: str
    ends: tuple[float, float]
    flags: tuple[str, ...] = ()
    detail: dict[str, Any] = field(default_factory=dict)


@estimators(
    "auto", source="rule in the docstring of prunescope.information.auto", x="any", y="any", symmetric=False, batched=True,
    consistent=False, invariant=("shift", "scale"), quantities=("mi",),
)  # fmt: skip
def auto(x: Tensor, y: Tensor, *, generator: Generator | None = None) -> Raw:
    """Mutual information in nats by the estimator that suits size, dimension, ties and kind; `detail["why"]` says which and why.

    x (..., n, dx), y (..., n, dy) floating or labels (..., n). The flag "unreliable" means that the methods at hand disagree or that
    the sample is too small for the dependence: the value may then be off in either direction. Takes seconds at n = 10,000 with more
    than three columns, because a network looks for what the copula misses. Fails, without a flag, where that network has too few samples
    to find it (a few thousand for two pairs on a spiral) or starts from a copula that reads high (points on a ring).
    Source: rule in the docstring of prunescope.information.auto. See docs/science/estimators/auto.md#auto.
    """
    draw = generator if generator is not None else torch_generator(0, "auto")
    batch = x.shape[:-2] if x.is_floating_point() else x.shape[:-1]
    flat = [v.reshape(-1, *v.shape[len(batch) :]) for v in (x, y)]
    choices = [choose(a, b, draw) for a, b in zip(*flat, strict=True)]
    numbers = ([c.value for c in choices], [c.stderr for c in choices], [c.ends[0] for c in choices], [c.ends[1] for c in choices])
    value, error, low, high = (torch.tensor(v, dtype=torch.float64).reshape(batch) for v in numbers)
    flags = tuple(dict.fromkeys(flag for c in choices for flag in c.flags))
    first = choices[0]
    detail = {"method": first.method, "why": first.why, **first.detail}
    if len(choices) > 1:
        detail = {"method": [c.method for c in choices], "why": [c.why for c in choices]}
    return Raw(value, error, flags=flags, detail={**detail, "uncertainty": DOUBT}, interval=(low, high))


def choose(x: Tensor, y: Tensor, generator: Generator) -> Choice:
    """The choice for one sample of x (n, dx) or labels (n,), and y likewise."""
    labels = [not v.is_floating_point() for v in (x, y)]
    if all(labels):
        return _counts(x, y)
    if any(labels):
        continuous, label = (y, x) if labels[0] else (x, y)
        return _one_label(continuous, label, generator)
    tied = max(_share_of_equal_rows(v) for v in (x, y))
    if tied > TIED:
        flags = ("ties", "unreliable") if tied < 1 - TIED else ("ties",)  # a ball around a point of the density may swallow an atom
        raw = gao_mixed(x, y)
        why = f"{tied:.0%} of the rows of x or y equal others: atoms and density mixed"
        return _taken("gao-mixed", raw, why, flags, spread=_spread(gao_mixed, x, y, raw))
    if x.shape[1] + y.shape[1] <= FEW:
        return _few_columns(x, y)
    a, b = (v.detach().cpu().double().numpy() for v in (x, y))
    return _many_columns(a, b, generator)


def _taken(method: str, raw: Raw, why: str, flags: tuple[str, ...] = (), *, spread: Spread | None = None, **detail: Any) -> Choice:
    error = math.nan if raw.stderr is None else float(raw.stderr)
    value = float(raw.value)
    if spread is not None:
        ends, error, flags = (value - spread.below, value + spread.above), spread.stderr, (*flags, *spread.flags)
    elif raw.interval is not None:
        ends = float(raw.interval[0]), float(raw.interval[1])
    else:
        ends = value - Z * error, value + Z * error
    return Choice(value, error, method, why, ends, (*raw.flags, *flags), detail)


def _spread(function: Callable[..., Raw], x: Tensor, y: Tensor, raw: Raw, other: Raw | None = None, **options: Any) -> Spread:
    """Standard error and interval (nats) of `raw`, the function's value of x and y, by extrapolation in n."""
    columns = sum(v.shape[-1] for v in (x, y) if v.is_floating_point())
    own = 0.0 if raw.stderr is None else float(raw.stderr)
    return extrapolation_or_own(
        lambda rows: float(function(x[rows], y[rows], **options).value), len(x), value=float(raw.value), own=own,
        rate=1 / max(1, columns), other=None if other is None else float(other.value),
    )  # fmt: skip


def _share_of_equal_rows(values: Tensor) -> float:
    return 1 - len(torch.unique(values, dim=0)) / len(values)


def _counts(x: Tensor, y: Tensor) -> Choice:
    cells = len(torch.unique(torch.stack([x, y]), dim=1).T)
    sparse = len(x) < 5 * cells
    entry = estimators.get("chao-shen" if sparse else "miller-madow")
    raw = entry.function(x, y)
    why = f"labels on both sides, {len(x)} samples in {cells} cells: " + ("sparse" if sparse else "enough to count")
    return _taken(entry.name, raw, why, ("undersampled", "unreliable") if sparse else (), spread=_spread(entry.function, x, y, raw))


def _one_label(x: Tensor, labels: Tensor, generator: Generator) -> Choice:
    if _share_of_equal_rows(x) > TIED:
        raw = gao_mixed(x, labels)
        why = "labels on one side, many equal rows on the other"
        return _taken("gao-mixed", raw, why, ("ties",), spread=_spread(gao_mixed, x, labels, raw))
    d = x.shape[1]
    if d <= LABELLED:
        normal = torch.from_numpy(scores(half_ranks(x.detach().cpu().double().numpy())))
        raw = ross(normal, labels)
        why = f"labels on one side, {d} continuous columns: neighbours of normal scores"
        return _taken("ross", raw, why, spread=_spread(ross, normal, labels, raw, ross(x, labels)))
    if len(x) < LEAST:
        raise EstimateError(f"auto: {len(x)} samples of {d} columns and labels are too few for any estimator: expected at least {LEAST}")
    raw = mine(x, labels, generator=generator)
    return _taken("mine", raw, f"labels on one side, {d} columns: a held-out lower bound", ("high-dimension", "unreliable"))


def _few_columns(x: Tensor, y: Tensor) -> Choice:
    a, b = (v.detach().cpu().double().numpy() for v in (x, y))
    p, q = (torch.from_numpy(scores(half_ranks(v))) for v in (a, b))
    raw = ksg(p, q, k=NEIGHBOURS)
    spread = _spread(ksg, p, q, raw, ksg(x, y, k=NEIGHBOURS), k=NEIGHBOURS)
    near, error = float(raw.value), spread.stderr
    fit, columns = _fitted(a, b), x.shape[1] + y.shape[1]
    if fit is not None and fit.mi > near - 2 * error and not _misfit(a, b, fit).rejects and fit.mi < near + 2 * error:
        own = fit.standard_error(a, b)
        ends = min(fit.mi - Z * own, near - spread.below), max(fit.mi + Z * own, near + spread.above)
        why = f"{columns} columns; the {_family(fit)} copula fits, agrees with neighbours ({near:.3f} nats) and scatters less"
        return Choice(fit.mi, own, "elliptical-copula", why, ends, (), {"ksg": near, "dof": fit.dof})
    half = float(ksg(p[::2], q[::2], k=NEIGHBOURS).value)
    growing = near - half > max(GROWTH * error, near / 10) or near > math.log(len(x)) - NEAR_LIMIT
    why = f"{columns} columns: neighbours of normal scores; no elliptical copula fits and agrees" + (
        f" ({fit.mi:.3f} nats)" if fit is not None else " (columns determine each other)"
    )
    if growing:
        why += f"; the value still grows with n ({half:.3f} nats at n / 2): too few samples for a dependence so strong"
    return _taken("ksg", raw, why, ("unreliable",) if growing else (), spread=spread, ksg_half=half)


def _many_columns(x: Floats, y: Floats, generator: Generator) -> Choice:
    n, columns = len(x), x.shape[1] + y.shape[1]
    fit = _fitted(x, y)
    if fit is None:
        raise EstimateError(
            f"auto: {columns} columns determine each other or are too many for {n} samples: reduce them first (PCA) or name an estimator"
        )
    flags = ("high-dimension",) if columns > n / 10 else ()
    error = fit.standard_error(x, y)
    low, high = fit.mi - Z * error, fit.mi + Z * error
    if n < 5 * LEAST:
        why = f"{columns} columns and only {n} samples: the {_family(fit)} copula, unchecked"
        return Choice(fit.mi, error, "elliptical-copula", why, (low, high), (*flags, "unreliable"), {"dof": fit.dof})
    beyond, test = residual(x, y, fit, generator=generator), _misfit(x, y, fit)
    more = max(0.0, beyond.gain + Z * beyond.stderr)  # what a network may have overlooked by chance
    found = {"dof": fit.dof, "copula": fit.mi, "gain": beyond.gain, "gain_stderr": beyond.stderr, "misfit": test.deviation / test.limit}
    if not beyond.rejects and not test.rejects:
        why = f"{columns} columns: the {_family(fit)} copula fits; a network found nothing beyond it ({beyond.gain:+.4f} nats held out)"
        return Choice(fit.mi, error, "elliptical-copula", why, (low, high + more), flags, found)
    why = f"{columns} columns: the {_family(fit)} copula misses {beyond.gain:.3f} nats or more that a network finds on held-out samples"
    value, method = fit.mi + beyond.gain, "elliptical-copula+network"
    if not beyond.rejects:
        value, method = fit.mi, "elliptical-copula"
        why = f"{columns} columns: the {_family(fit)} copula does not fit, but a network found nothing beyond it: its error is not known"
    low, high = min(low, value - Z * math.hypot(error, beyond.stderr)), high + more
    if columns <= SOME:
        p, q = (torch.from_numpy(scores(half_ranks(v))) for v in (x, y))
        raw = ksg(p, q, k=NEIGHBOURS)
        found["ksg"] = float(raw.value)
        spread = _spread(ksg, p, q, raw, k=NEIGHBOURS)
        high = max(high, found["ksg"] + spread.above)
        if found["ksg"] > value:
            value, method = found["ksg"], "ksg"
    ends = low, high
    return Choice(value, math.hypot(error, beyond.stderr), method, why, ends, (*flags, "unreliable"), found)


def _misfit(x: Floats, y: Floats, fit: Elliptical) -> Misfit:
    return misfit(x, y, fit, generator=numpy_generator(0, "misfit"))


def _fitted(x: Floats, y: Floats) -> Elliptical | None:
    try:
        return fit_elliptical(x, y)
    except EstimateError:  # singular or too few rows: the caller has another way, or refuses in its own words
        return None


def _family(fit: Elliptical) -> str:
    return "normal" if math.isinf(fit.dof) else f"Student-t ({fit.dof:.1f} degrees of freedom)"
