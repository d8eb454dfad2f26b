"""`Pruner`: pruning over time in anybody's training loop. It counts the optimiser's steps, prunes when it is due and holds the masks.

A hook of the optimiser does all of it, so that accumulated gradients, mixed precision, compiled and data-parallel models need no
further call. The model keeps its class, its parameters and its state-dict keys.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from prunescope import rng
from prunescope.pruning import growth, oneshot
from prunescope.pruning.behind import Behind
from prunescope.pruning.granularity import fixed_sparsity
from prunescope.pruning.masks import Keeper, Masks
from prunescope.pruning.schedules import between
from prunescope.pruning.signals import LossFunction
from prunescope.pruning.targets import Target, targets
from prunescope.pruning.wrapping import distributed, from_first, plain, unwrapped
from prunescope.registry import Entry, granularities, schedules, unknown
from prunescope.types import ConfigError, PruningError, Split

UPDATES = 10  # where no end is given, the schedule has this many steps of `every`
OWN = {"sparsity", "masks", "data", "loss_fn", "seed"}  # what the Pruner itself hands to `prune`


class Pruner:
    """Prunes `model` little by little while `optimizer` trains it.

    sparsity     fraction removed in the end
    schedule     how it rises between the optimiser steps `begin` and `end`, one update `every` so many; `start`: the sparsity at `begin`.
                 Without `end`: ten updates ("one-shot": everything at `begin`).
    data         calibration set of criteria that need one: a Split, (inputs, labels) or a loader; its first `samples` are read once, now
    loss_fn      (outputs, labels) -> mean loss, for criteria that need gradients
    masks        earlier masks: they stay in force; with `dynamic` they are where it starts
    dynamic      "set" or "rigl": sparse from the first step (random masks with allocation "erk", unless `masks`, `criterion` or
                 `allocation` are given), and at every update up to `end` a share of each layer's weights goes and as many grow; it
                 begins with `grow_fraction`
    soft         straight-through: the model computes with masked weights, the gradients reach all of them, and masks are chosen anew at
                 every update from weights that went on learning behind them (Bengio et al. 2013; Lin et al. 2020, alg. 1)
    automatic    steps are counted by a hook of the optimiser; False: you call `step()` after each step of the optimiser
    state        what `state_dict` gave: it goes on from there, and prunes nothing that is not due
    seed         of what is drawn; further keywords as in `prune`: criterion, granularity, allocation, layers, exclude, options, ...

    Masked weights are exactly zero after every step. `masks` are the masks of now, `finish()` ends it. Raises ConfigError for settings
    that do not fit, PruningError where the optimiser lacks weights that are to be pruned; updates raise what `prune` raises.

    >>> layer = nn.Linear(4, 2, bias=False)
    >>> sgd = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9)
    >>> pruner = Pruner(layer, sgd, sparsity=0.5, schedule="linear", end=4, every=2, output=True)
    >>> for _ in range(4):
    ...     sgd.zero_grad(); layer(torch.ones(1, 4)).sum().backward(); sgd.step()
    ...     print(pruner.steps, pruner.masks.sparsity(), int((layer.weight == 0).sum()))
    1 0.0 0
    2 0.25 2
    3 0.25 2
    4 0.5 4
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        sparsity: float,
        schedule: str = "cubic",
        begin: int = 0,
        end: int | None = None,
        every: int = 100,
        start: float = 0.0,
        dynamic: str | None = None,
        grow_fraction: float = 0.3,
        soft: bool = False,
        masks: Masks | None = None,
        data: Any = None,
        samples: int = 512,
        loss_fn: LossFunction | None = None,
        automatic: bool = True,
        seed: int = 0,
        state: Mapping[str, Any] | None = None,
        **pruning: Any,
    ) -> None:
        self.model, self.optimizer, self.sparsity, self.soft, self.seed = unwrapped(model), optimizer, sparsity, soft, seed
        self.begin, self.every, self.start, self.dynamic, self.grow_fraction = begin, every, start, dynamic, grow_fraction
        self._automatic, self._group = automatic, distributed(model)
        self._schedule: Entry = schedules.get(schedule)
        self.end = self._last(end)
        self._check(samples)
        self._how = {**_checked(pruning), "loss_fn": loss_fn}
        self._check_granularity()
        self._how["data"] = read_calibration(data, samples, next(self.model.parameters()).device)
        self._targets = self._trainable_targets()
        self.steps, self.level = 0, 0.0
        self.masks = Masks({}, self.model)
        self._behind = Behind() if soft else None
        self._keep = Keeper(self.masks, {})
        self._hooks: list[RemovableHandle] = []
        if optimizer is not None:
            self._hooks.append(optimizer.register_step_pre_hook(self._before))
            self._hooks.append(optimizer.register_step_post_hook(self._after))
        if state is not None:
            self.load_state_dict(state)
        else:
            self._begin(masks)

    def __repr__(self) -> str:
        return f"Pruner(step {self.steps}, {self.level:.4g} of {self.sparsity:.4g} to be removed, {self.masks!r})"

    def step(self) -> None:
        """Count one step of the optimiser and do what is due; only where `automatic` is False."""
        if self._automatic:
            raise ConfigError("pruner.step(): the optimiser's hook counts the steps already: make the Pruner with automatic=False")
        self._keep()
        self._advance()

    def finish(self) -> Masks:
        """Let go of the optimiser and return the masks; the model keeps its masked weights at zero as they are now.

        `masks.attach(optimizer)` holds them through further training. Warns where the schedule had not yet reached its sparsity.
        """
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._behind = [], None
        if self.level < self.sparsity:
            warnings.warn(
                f"the training ended after {self.steps} steps at sparsity {self.level:.4g}, before the schedule's end at step {self.end} "
                f"with {self.sparsity:.4g}",
                stacklevel=2,
            )
        return self.masks

    def state_dict(self) -> dict[str, Any]:
        """Steps done, the sparsity asked for by now, masks, and with `soft` the weights behind them: numbers and tensors alone."""
        found: dict[str, Any] = {"steps": self.steps, "level": self.level, "masks": {n: m.clone() for n, m in self.masks.items()}}
        return found | ({"behind": self._behind.state_dict()} if self._behind is not None else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave; the model's masked weights become zero."""
        wanted = {"steps", "level", "masks"} | ({"behind"} if self.soft else set())
        if missing := wanted - set(state):
            raise PruningError(f"this is not the state of such a Pruner: it lacks {', '.join(sorted(missing))}")
        masks = Masks({name: torch.as_tensor(m) for name, m in state["masks"].items()}, self.model)
        if self._behind is not None:
            self._behind.load_state_dict(state["behind"], masks)
        self.steps, self.level = int(state["steps"]), float(state["level"])
        self._hold(masks)

    def _check_granularity(self) -> None:
        name = self._how.get("granularity", "weight")
        entry = granularities.get(name)
        stated = {**entry.traits.get("stated", {}), **{k: v for k, v in (self._how.get("options") or {}).items() if k in entry.options}}
        if fixed_sparsity(entry, stated) is not None and self._schedule.name != "one-shot":
            raise ConfigError(f'granularity {name!r} is all or nothing and cannot go by a schedule: use schedule="one-shot"')
        if self.dynamic is not None and name != "weight":
            raise ConfigError(f"dynamic exchanges single weights: granularity {name!r} does not fit, use 'weight'")

    def _begin(self, masks: Masks | None) -> None:
        if self.dynamic is not None:
            self._how.setdefault("criterion", "random")
            self._how.setdefault("allocation", "erk")
            self._adopt(masks if masks is not None else self._pruned(self.sparsity, None))
            self.level = self.sparsity
            return
        if masks is not None:
            self._adopt(masks)
        self._update()

    def _last(self, end: int | None) -> int | None:
        if end is not None or self.dynamic == "set":
            return end
        if self.dynamic is not None:
            raise ConfigError('dynamic="rigl" exchanges ever fewer weights until its end: give end (3/4 of the optimiser steps, say)')
        return self.begin if self._schedule.name == "one-shot" else self.begin + UPDATES * self.every

    def _check(self, samples: int) -> None:
        for name in ("sparsity", "start"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ConfigError(f"{name} {value}: expected a fraction removed, from 0 to 1")
        if self.start > self.sparsity:
            raise ConfigError(f"start {self.start} is above sparsity {self.sparsity}: expected the sparsity at which the schedule begins")
        if not 0 < self.grow_fraction <= 1:
            raise ConfigError(f"grow_fraction {self.grow_fraction}: expected a share of a layer's weights, above 0 and up to 1")
        for name, value, least in (("begin", self.begin, 0), ("every", self.every, 1), ("samples", samples, 1)):
            if not isinstance(value, int) or value < least:
                raise ConfigError(f"{name} {value!r}: expected a whole number of at least {least}")
        if self.end is not None and self.end <= self.begin and self._schedule.name != "one-shot":
            raise ConfigError(f"begin {self.begin} and end {self.end}: expected begin before end, both in optimiser steps")
        if self.dynamic is not None and self.dynamic not in growth.WAYS:
            raise ConfigError(unknown("way of dynamic sparse training", self.dynamic, list(growth.WAYS)))
        if self.dynamic is not None and self.soft:
            raise ConfigError("dynamic and soft are two ways of letting weights come back: choose one of them")
        if self.optimizer is None and (self._automatic or self.soft):
            raise ConfigError("without an optimizer nothing counts the steps: give it, or automatic=False (not soft) and call step()")

    def _trainable_targets(self) -> dict[str, Target]:
        chosen = {k: self._how[k] for k in ("layers", "exclude", "output") if k in self._how}
        found = {t.name: t for t in targets(self.model, **chosen)}
        if sharded := [n for n, t in found.items() if hasattr(t.parameter, "placements")]:
            raise PruningError(
                f"{sharded[0]} is sharded: prune before fully_shard, then hold them by masks.bind(model).attach(optimizer)"
            )
        if self.optimizer is not None:
            held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
            lacking = [n for n, t in found.items() if t.parameter.requires_grad and id(t.parameter) not in held]
            if lacking:
                raise PruningError(
                    f"the optimiser lacks {len(lacking)} of {len(found)} weights to prune ({', '.join(lacking[:3])}, ...): give the "
                    "optimiser that trains this model, or name the layers it trains by layers=[...]"
                )
        return found

    def _before(self, *_: Any) -> None:
        if self._behind is not None:
            self._behind.show()

    def _after(self, *_: Any) -> None:
        if self._behind is not None:
            self._behind.keep()
        self._keep()
        if self._automatic and not _skipped(self.optimizer):
            self._advance()

    def _advance(self) -> None:
        self.steps += 1
        if self.dynamic is not None:
            self._exchange()
        else:
            self._update()

    def _update(self) -> None:
        """Prune to the level of now, if an update is due."""
        assert self.end is not None, "schedules end"
        since = self.steps - self.begin
        if since < 0 or (since % self.every and self.steps != self.end) or (self.steps > self.end and not self.soft):
            return
        position = 1.0 if self.steps >= self.end else since / (self.end - self.begin)
        level = between(self._schedule, position, self.sparsity, self.start)
        if level > self.level or (self.soft and level > 0):
            if self._behind is not None:
                self._behind.show()
                self._behind.note(self.model)
            self._adopt(self._pruned(level, None if self.soft else self.masks))
            self.level = level
            if self._behind is not None:
                self._behind.cover(self.masks)

    def _pruned(self, level: float, masks: Masks | None) -> Masks:
        return oneshot.prune(self.model, sparsity=level, masks=masks or None, seed=self.seed, **self._how)

    @torch.no_grad()
    def _exchange(self) -> None:
        since = self.steps - self.begin
        if since <= 0 or since % self.every or (self.end is not None and self.steps >= self.end):
            return
        assert self.dynamic is not None, "only dynamic sparse training exchanges weights"
        share = growth.exchanged_share(self.dynamic, self.grow_fraction, 0.0 if self.end is None else since / (self.end - self.begin))
        generator = rng.torch_generator(self.seed, "grow", self.steps)
        parameters, new = self.masks.parameters(), dict(self.masks)
        for name in self._targets:
            if name not in new:
                continue
            weight, mask = parameters[name], self.masks[name].to(parameters[name].device)
            wish = growth.wish(self.dynamic, name, weight, generator)
            new[name] = growth.exchange(weight, mask, round(share * int(mask.sum())), wish)
            if self.optimizer is not None:
                growth.forget(self.optimizer, weight, new[name] & ~mask)
        self._adopt(Masks(new, self.model))

    def _adopt(self, masks: Masks) -> None:
        self._hold(masks if self._group is None else self._agreed(masks))

    def _hold(self, masks: Masks) -> None:
        self.masks = masks.bind(self.model).apply()
        self._keep = Keeper(self.masks, self.masks.parameters())

    def _agreed(self, masks: Masks) -> Masks:
        """The masks and weights of the first process, for all of them: each scored with data of its own."""
        parameters = {plain(n): p for n, p in self.model.named_parameters()}
        known = {plain(n): m for n, m in masks.items()}
        whole = {n: known[n].clone() if n in known else torch.ones_like(p, dtype=torch.bool) for n, p in parameters.items()}
        from_first([*whole.values(), *parameters.values()], self._group)
        wanted = {plain(n) for n in self._targets}
        return Masks({n: m for n, m in whole.items() if n in wanted or not bool(m.all())}, self.model)


def _checked(pruning: Mapping[str, Any]) -> dict[str, Any]:
    known = [n for n in inspect.signature(oneshot.prune).parameters if n not in OWN and n not in ("model", "threshold", "table")]
    for name in pruning:
        if name not in known:
            raise ConfigError(unknown("setting of Pruner", name, known))
    return dict(pruning)


def _skipped(optimizer: torch.optim.Optimizer | None) -> bool:
    """Whether a GradScaler found infinite gradients and told a fused optimiser to leave the weights alone."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)


def read_calibration(data: Any, samples: int, device: torch.device) -> list[tuple[Any, Tensor]] | None:
    """The first `samples` of a Split, a pair (inputs, labels) or an iterable of such pairs, as batches on `device`."""
    if data is None:
        return None
    found: list[tuple[Any, Tensor]] = []
    left = samples
    for x, y in _pairs(data):
        taken = min(left, len(y))
        found.append((_mapped(x, taken, device), y[:taken].to(device)))
        left -= taken
        if left <= 0:
            break
    if not found:
        raise PruningError("data holds no batch: expected at least one (inputs, labels)")
    return found


def _pairs(data: Any) -> Iterator[tuple[Any, Tensor]]:
    if isinstance(data, Split):
        data = [(data.x, data.y)]
    elif isinstance(data, tuple) and len(data) == 2 and all(isinstance(d, Tensor) for d in data):
        data = [data]
    for batch in data:
        if not isinstance(batch, tuple | list) or len(batch) != 2 or not isinstance(batch[1], Tensor):
            raise PruningError(f"data gave a {type(batch).__name__}: expected (inputs, labels) with labels as a tensor")
        yield batch[0], batch[1]


def _mapped(value: Any, rows: int, device: torch.device) -> Any:
    """The first `rows` of every tensor in nested tuples, lists and dictionaries, on `device`."""
    if isinstance(value, Tensor):
        return value[:rows].to(device)
    if isinstance(value, Mapping):
        return {k: _mapped(v, rows, device) for k, v in value.items()}
    return type(value)(_mapped(v, rows, device) for v in value) if isinstance(value, tuple | list) else value
