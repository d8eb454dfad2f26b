"""Neural lower bounds on mutual information (nats), trained on one part of the samples and evaluated on another.

A bound holds in expectation for ANY critic, but only on samples that the critic has not seen: hence three parts (train, stop,
evaluate). They fail where exp(I) exceeds the number of evaluation pairs (variance), and read low where the critic has not learned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from prunescope.information.critics import Critic, NormalStart, Shape
from prunescope.information.elliptical import half_ranks, scores
from prunescope.information.raw import Raw
from prunescope.registry import estimators
from prunescope.rng import torch_generator
from prunescope.types import EstimateError

Bound = Literal["donsker-varadhan", "nwj", "infonce", "smile"]
Margins = Literal["rank", "standard"]
CLIP = 5.0  # nats: SMILE's limit of the scores of unmatched pairs
AVERAGED = 200  # steps over which weights are averaged: their mean generalises better than any of them
WARM = 0.15  # share of the steps over which the rate rises
LEAST = 60  # samples: below, the three parts are too small to say anything


@dataclass(frozen=True)
class Training:
    """How a critic is trained. `patience` counts checks (every `every` steps) without progress on the stopping part."""

    hidden: tuple[int, ...] = (64, 64)
    critic: Shape = "separable"
    start: Literal["normal", "zero"] = "normal"
    batch: int = 256
    steps: int = 800
    rate: float = 1e-2
    every: int = 50
    patience: int = 5
    decay: float = 0.3

    def share(self, step: int) -> float:
        """Share of `rate` (unitless) at a step: rising over the first 15 %, since the bounds' exponentials explode early, then a cosine."""
        warm = max(1, round(WARM * self.steps))
        return (step + 1) / warm if step < warm else (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm))) / 2


def off_diagonal(pairs: Tensor) -> Tensor:
    """Scores (rows, rows - 1) of the pairs (x_i, y_j) with i != j: samples of the product of the margins."""
    n = len(pairs)
    return pairs.flatten()[1:].view(n - 1, n + 1)[:, :-1].reshape(n, n - 1)


def bound_value(pairs: Tensor, bound: Bound) -> Tensor:
    """A lower bound in nats from the scores (n, n) of all pairs, in which pair (i, i) was drawn together.

    donsker-varadhan  <T> - ln <exp T'>            (Donsker & Varadhan 1983; Belghazi et al. 2018, eq. 10)
    nwj               1 + <T> - <exp T'>           (Nguyen et al. 2010; Poole et al. 2019, sec. 2 (I_NWJ))
    infonce           <T_ii - ln mean_j exp T_ij>  (van den Oord et al. 2018; Poole et al. 2019, sec. 2 (I_NCE)), at most ln n
    smile             <T> - ln <exp clip(T')>      (Song & Ermon 2020, sec. 5 (SMILE))

    >>> round(float(bound_value(torch.zeros(4, 4), "infonce")), 6) == 0
    True
    """
    matched, others = pairs.diagonal(), off_diagonal(pairs)
    if bound == "infonce":
        return (matched - pairs.logsumexp(1)).mean() + math.log(len(pairs))
    if bound == "nwj":
        return 1 + matched.mean() - others.exp().mean()
    if bound == "smile":
        others = others.clamp(-CLIP, CLIP)
    return matched.mean() - (others.logsumexp((0, 1)) - math.log(others.numel()))


class Objective:
    """Minus the bound (nats), with the gradient that the bound's authors train by."""

    def __init__(self, bound: Bound, *, forget: float = 0.99) -> None:
        self.bound, self.forget, self.level = bound, forget, 0.0

    def __call__(self, pairs: Tensor) -> Tensor:
        if self.bound in ("infonce", "nwj"):
            return -bound_value(pairs, self.bound)
        matched, others = pairs.diagonal(), off_diagonal(pairs)
        if self.bound == "smile":  # the Jensen-Shannon objective (Song & Ermon 2020, sec. 5), whose optimum is the same critic
            plus = torch.nn.functional.softplus
            return plus(-matched).mean() + plus(others).mean()
        # a batch's mean of exp T' in the denominator biases the gradient: a moving average replaces it (Belghazi et al. 2018, sec. 3.2)
        top = others.exp().mean()
        current = float(top.detach())
        self.level = current if self.level == 0.0 else self.forget * self.level + (1 - self.forget) * current
        return -(matched.mean() - top / self.level)


@torch.no_grad()
def average(mean: list[Tensor], parameters: list[Tensor], share: float) -> None:
    """Move the running mean of the weights (no unit) by `share` towards the present ones."""
    for old, new in zip(mean, parameters, strict=True):
        old.lerp_(new, share)


@contextmanager
def swapped(critic: Critic, weights: list[Tensor]) -> Iterator[None]:
    """`critic` with other weights for a while."""
    own = [p.data for p in critic.parameters]
    for parameter, value in zip(critic.parameters, weights, strict=True):
        parameter.data = value
    try:
        yield
    finally:
        for parameter, value in zip(critic.parameters, own, strict=True):
            parameter.data = value


def train(
    critic: Critic, x: Tensor, y: Tensor, rows: Tensor, stop: Tensor, *, objective: Bound, training: Training, generator: Generator
) -> list[float]:
    """Train `critic` on `rows` and leave it as it was when best on `stop`: the bound (nats) on `stop` at each check."""
    optimizer = torch.optim.AdamW(critic.parameters, lr=training.rate, weight_decay=training.decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, training.share)
    loss, curve = Objective(objective), [float(evaluate(critic, x[stop], y[stop], objective)[0])]
    best, mean = ([p.detach().clone() for p in critic.parameters] for _ in range(2))
    order, size = rows[:0], min(training.batch, len(rows))
    for step in range(1, training.steps + 1):
        if len(order) < size:
            order = rows[torch.randperm(len(rows), generator=generator)]
        chosen, order = order[:size], order[size:]
        optimizer.zero_grad()
        loss(critic.scores(x[chosen], y[chosen])).backward()
        torch.nn.utils.clip_grad_norm_(critic.parameters, 1.0)
        optimizer.step()
        schedule.step()
        average(mean, critic.parameters, 1 / min(step, AVERAGED))
        if step % training.every == 0:
            with swapped(critic, mean):
                curve.append(float(evaluate(critic, x[stop], y[stop], objective)[0]))
            if curve[-1] == max(curve):
                best = [value.clone() for value in mean]
            elif len(curve) - 1 - curve.index(max(curve)) >= training.patience:
                break
    with torch.no_grad():
        for parameter, value in zip(critic.parameters, best, strict=True):
            parameter.copy_(value)
    return curve


def groups(critic: Shape, n: int) -> int:
    """Number of groups in which n samples are evaluated: of at most 1,000, or 125 where every pair passes a network."""
    return math.ceil(n / (1000 if critic == "separable" else 125))


@torch.no_grad()
def evaluate(critic: Critic, x: Tensor, y: Tensor, bound: Bound) -> tuple[Tensor, Tensor]:
    """The bound in nats on samples that the critic has not seen, and terms (n,) whose standard error of the mean is the bound's.

    All pairs within groups of samples are scored, so that memory stays bounded. Each x_i takes part in one matched
    pair and in all of its row: the terms carry the first-order variance of both means together.
    """
    count = groups(critic.shape, len(x))
    pieces = [critic.scores(a, b).double() for a, b in zip(x.tensor_split(count), y.tensor_split(count), strict=True)]
    matched = torch.cat([p.diagonal() for p in pieces])
    if bound == "infonce":
        terms = torch.cat([p.diagonal() - p.logsumexp(1) + math.log(len(p)) for p in pieces])
        return terms.mean(), terms
    others = [off_diagonal(p).clamp(-CLIP, CLIP) if bound == "smile" else off_diagonal(p) for p in pieces]
    rows = torch.cat([o.logsumexp(1) - math.log(o.shape[1]) for o in others])
    top = rows.logsumexp(0) - math.log(len(rows))  # ln <exp T'>, without overflow
    if bound == "nwj":
        return 1 + matched.mean() - top.exp(), matched - rows.exp()
    return matched.mean() - top, matched - (rows - top).exp()


def standard_error(terms: Tensor) -> Tensor:
    """Standard error of the mean of independent terms (n,), in their unit.

    >>> float(standard_error(torch.tensor([0.0, 2.0])))
    1.0
    """
    return terms.std() / math.sqrt(len(terms))


def thirds(n: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Row numbers to train on (65 %), to stop by (15 %) and to evaluate on (20 %), disjoint and drawn by chance."""
    order = torch.randperm(n, generator=generator)
    first, second = int(0.65 * n), int(0.8 * n)
    return order[:first], order[first:second], order[second:]


def prepared(values: Tensor, margins: Margins) -> Tensor:
    """What the networks see, float32 (n, d): normal scores of each column's ranks, standardised columns, or labels as 0 and 1."""
    if not values.is_floating_point():
        return torch.nn.functional.one_hot(values.unique(return_inverse=True)[1]).float()
    if margins == "rank":
        return torch.from_numpy(scores(half_ranks(values.detach().cpu().double().numpy()))).float()
    centred = values.double() - values.double().mean(0)
    return (centred / centred.std(0).clamp_min(1e-300)).float()


def _neural(name: str, bound: Bound, x: Tensor, y: Tensor, training: Training, margins: Margins, generator: Generator | None) -> Raw:
    """One bound on every sample of a batch."""
    draw = generator if generator is not None else torch_generator(0, name)
    batch = x.shape[:-2] if x.is_floating_point() else x.shape[:-1]
    flat = [v.reshape(-1, *v.shape[len(batch) :]) for v in (x, y)]
    results = [_one(name, bound, prepared(a, margins), prepared(b, margins), training, draw) for a, b in zip(*flat, strict=True)]
    value, error, low, high = (torch.stack(numbers).reshape(batch) for numbers in list(zip(*results, strict=True))[:4])
    detail = {key: float(sum(r[4][key] for r in results) / len(results)) for key in results[0][4]}
    ceiling = math.log(results[0][4]["group"]) if bound == "infonce" else None
    text = "from the held-out value to that on the training samples, 1.96 standard errors to either side"
    flags = tuple(dict.fromkeys(flag for r in results for flag in r[5]))
    return Raw(value, error, ceiling, flags, detail | {"uncertainty": text}, (low, high))


def _one(
    name: str, bound: Bound, x: Tensor, y: Tensor, training: Training, generator: Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, float], tuple[str, ...]]:
    """Value, standard error and both ends of the interval in nats, details and flags of one bound on one sample."""
    n = len(x)
    if n < LEAST:
        raise EstimateError(f"{name}: {n} samples are too few to train on one part and evaluate on another: expected at least {LEAST}")
    if not bool(torch.isfinite(x).all() & torch.isfinite(y).all()):
        raise EstimateError(f"{name}: samples contain NaN or infinite values: expected finite numbers, remove those rows")
    rows, stop, held = thirds(n, generator)
    normal = training.start == "normal" and x.shape[1] + y.shape[1] < len(rows) / 2
    start = NormalStart(x[rows], y[rows]) if normal else None
    critic = Critic(x.shape[1], y.shape[1], shape=training.critic, hidden=training.hidden, start=start, generator=generator)
    curve = train(critic, x, y, rows, stop, objective=bound, training=training, generator=generator)
    value, terms = evaluate(critic, x[held], y[held], bound)
    seen, seen_terms = evaluate(critic, x[rows], y[rows], bound)  # reads high by as much as the critic has learned by heart
    errors = standard_error(terms), standard_error(seen_terms)
    gap = float(seen - value) > 2 * float(torch.hypot(*errors))
    flags = ("overfit",) * gap + ("untrained",) * (curve.index(max(curve)) == 0)
    group = float(len(held) // groups(critic.shape, len(held)))
    detail = {"checks": float(len(curve)), "before_training": curve[0], "stopping_value": max(curve), "group": group}
    detail["training_value"] = float(seen)
    low, high = value - 1.96 * errors[0], torch.maximum(value + 1.96 * errors[0], seen + 1.96 * errors[1])
    if high == low:  # a critic that is the same everywhere: its bound of 0 holds, and says nothing of what is above
        low, high = (torch.full_like(value, math.nan) for _ in range(2))
    return value, errors[0], low, high, detail, flags


def _register(name: str, bound: Bound, source: str, summary: str) -> Callable[..., Raw]:
    """The estimator `name`: the four bounds take the same options."""

    def estimator(
        x: Tensor, y: Tensor, *, critic: Shape = "separable", start: Literal["normal", "zero"] = "normal", margins: Margins = "rank",
        hidden: Sequence[int] = (64, 64), batch: int = 256, steps: int = 800, rate: float = 1e-2, patience: int = 5,
        generator: Generator | None = None,
    ) -> Raw:  # fmt: skip
        _choice(name, "critic", critic, ("separable", "joint"))
        _choice(name, "start", start, ("normal", "zero"))
        _choice(name, "margins", margins, ("rank", "standard"))
        plain = not (x.is_floating_point() and y.is_floating_point())  # labels have no normal fit to start from
        size = min(batch, 64) if critic == "joint" else batch
        training = Training(tuple(hidden), critic, "zero" if plain else start, size, steps, rate, patience=patience)
        return _neural(name, bound, x, y, training, margins, generator)

    estimator.__name__ = estimator.__qualname__ = name
    estimator.__doc__ = f"""{summary}

    x (..., n, dx), y (..., n, dy) floating or labels (..., n). Trained on 65 % of the samples, stopped by 15 %, evaluated on 20 %: a
    lower bound in expectation. `start="normal"` begins at the normal fit's density ratio and learns what that misses ("zero": nothing);
    `margins="rank"` replaces columns by normal scores, which changes no information. Interval: from the held-out value up to that on the
    training samples, which reads high, with 1.96 standard errors; no bound holds above it. Flags: "overfit" (the two differ by more than
    2 standard errors: more samples would raise the value), "untrained" (no step beat the start).
    Fails: reads low where the critic has not learned;
    "mine" and "nwj" scatter by exp(I) / n, "infonce" cannot exceed ln of the evaluation group (at most 1,000), "smile" is no bound and
    reads high for strong dependence. Source: {source}. See docs/science/estimators/neural.md#{name}. Errors: fewer than {LEAST} samples.
    """
    return estimators(
        name, source=source, x="any", y="any", symmetric=False, batched=True, consistent=False, invariant=("shift", "scale"),
        quantities=("mi",),
    )(estimator)  # fmt: skip


def _choice(name: str, option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise EstimateError(f"{name}: {option} is one of {', '.join(known)}, {value!r} came")


mine = _register("mine", "donsker-varadhan", "Donsker & Varadhan 1983; Belghazi et al. 2018, eq. 10 and sec. 3.2",
                 "Mutual information (nats, lower bound): <T> - ln <exp T'> with MINE's unbiased gradient.")  # fmt: skip
nwj = _register("nwj", "nwj", "Nguyen et al. 2010; Poole et al. 2019, sec. 2 (I_NWJ)",
                "Mutual information (nats, lower bound): 1 + <T> - <exp T'>.")  # fmt: skip
infonce = _register("infonce", "infonce", "van den Oord et al. 2018; Poole et al. 2019, sec. 2 (I_NCE)",
                    "Mutual information (nats, lower bound, at most ln of the evaluation group): <T_ii - ln mean_j exp T_ij>.")  # fmt: skip
smile = _register("smile", "smile", "Song & Ermon 2020, sec. 5 (SMILE)",
                  "Mutual information (nats): <T> - ln <exp clip(T')>, less variance than a bound at the price of a bias.")  # fmt: skip
