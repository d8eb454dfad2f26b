"""Replicas: many networks of one architecture trained at once, to the same weights as one after another.

    for epoch in epochs:
        for stack in stacks:                    a few replicates that fit the cache together
            epoch_start
            for batch in batches:               each replicate's own rows, in its own order
                forward and backward            of the whole stack
                gradients
                optimiser step, masks           on one flat buffer
                step
        epoch_end                               of all replicates, so that one pass can evaluate them together
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.config import TrainingConfig
from prunescope.pruning.masks import Masks
from prunescope.training.arrangement import TAUGHT, Arrangement, Way, arrange
from prunescope.training.checkpoint import Snapshot, put_back
from prunescope.training.distillation import Distillation
from prunescope.training.events import EVENTS, State, handlers
from prunescope.training.flat import FlatParameters
from prunescope.training.loop import batch_size as batch_size
from prunescope.training.loop import train
from prunescope.training.optim import build, learning_rates
from prunescope.training.rows import StackedRows
from prunescope.training.stacked import StackedPerceptrons
from prunescope.training.vectorised import VectorisedNetworks
from prunescope.types import ConfigError, Split

Hearing = dict[str, list[Callable[[Any], None]]]


class ReplicateState(State):
    """One replicate of a stack as its listeners see it.

    The model's parameters and gradients are views of the stack: reading them is free and changing them changes what is trained.
    `optimizer` is the whole stack's; `loss` is computed when it is asked for. `flat` holds the whole stack, this one at `place`.
    """

    losses: Callable[[], Tensor] | None = None
    place: int = 0
    flat: FlatParameters | None = None

    @property
    def loss(self) -> Tensor | None:  # type: ignore[override]
        """The replicate's mean loss on the last batch."""
        return None if self.losses is None else self.losses()[self.place]

    @loss.setter
    def loss(self, value: Tensor | None) -> None:
        """Dataclasses set every field; what is set here is not kept."""

    def optimizer_numbers(self) -> dict[str, dict[str, Any]]:
        """What the stack's optimiser keeps of this replicate's parameters."""
        return {} if self.flat is None else self.flat.parts(self.optimizer.state.get(self.flat.parameter, {}), self.place)


def train_stack(
    models: Sequence[nn.Module],
    data: Split | Sequence[Split],
    settings: TrainingConfig,
    *,
    seeds: Sequence[int],
    phase: str = "train",
    masks: Sequence[Masks | None] | None = None,
    listeners: Sequence[Sequence[Any]] | None = None,
    watchers: Sequence[Any] = (),
    stack: str | int = "auto",
    resume: Sequence[Snapshot | None] | None = None,
    teachings: Sequence[Distillation | None] | None = None,
    apart: str | None = None,
) -> list[State]:
    """Train every model in place, each as `train` would alone, and return their final States in order.

    data        one split for all, or one for each
    seeds       of each replicate: they fix its order of batches
    masks       of each replicate, None for a dense one
    listeners   of each replicate, as `train` takes them
    watchers    listeners of several replicates at once: each event gives them a list of States. All replicates come together at
                start, epoch_end and end; the replicates of one stack at epoch_start, gradients and step.
    stack       "auto", "on", "off", or the number of replicates a stack; see `arrange`
    resume      where each replicate stood; those that train together must have come equally far
    teachings   of each replicate, None for one without a teacher; with any the replicates go one by one
    apart       a reason of the caller's to go one by one

    Weights equal those of one by one but for rounding: in 100 steps less than 1e-5 of their size apart.
    Raises ConfigError where the networks differ in architecture or the lists in length.
    """
    splits = [data] * len(models) if isinstance(data, Split) else list(data)
    kept = list(masks) if masks is not None else [None] * len(models)
    hearing = [handlers(x) for x in listeners] if listeners is not None else [handlers(()) for _ in models]
    stood = list(resume) if resume is not None else [None] * len(models)
    if not len(models) == len(splits) == len(seeds) == len(kept) == len(hearing) == len(stood):
        raise ConfigError(
            f"{len(models)} models, {len(splits)} splits, {len(seeds)} seeds, {len(kept)} masks and {len(hearing)} lists of listeners: "
            "expected as many of each"
        )
    taught = list(teachings) if teachings is not None else [None] * len(models)
    plan = arrange(models, splits, settings, stack=stack, apart=apart or (TAUGHT if any(taught) else None))
    if plan.way is Way.ALONE:
        own = listeners if listeners is not None else [()] * len(models)
        each = [[*x, *(_Single(w) for w in watchers)] for x in own]
        rows = zip(models, splits, seeds, kept, each, stood, taught, strict=True)
        return [
            train(m, d, settings, seed=s, phase=phase, masks=k, listeners=x, resume=f, teaching=t) for m, d, s, k, x, f, t in rows
        ]
    if len({f.epoch if f is not None else 0 for f in stood}) > 1:
        raise ConfigError("the replicates have come differently far: expected one epoch to go on from, or stack=\"off\"")
    parts = [slice(i, i + plan.size) for i in range(0, len(models), plan.size)]
    stacks = [_Stack(plan, models[p], splits[p], settings, list(seeds[p]), phase, kept[p], hearing[p], stood[p]) for p in parts]
    return _trained(stacks, settings, handlers(watchers))


def _trained(stacks: list[_Stack], settings: TrainingConfig, watching: Hearing) -> list[State]:
    """All epochs of all stacks; whatever happens, every network owns its parameters afterwards."""
    try:
        for one in stacks:
            one.flat.lend()
        _tell_all(stacks, watching, "start")
        for one in stacks:
            one.let_go()  # those that had stopped before they were taken up again
        for epoch in range(stacks[0].states[0].epoch, settings.epochs):
            for one in stacks:
                one.epoch(epoch, watching)
            _tell_all(stacks, watching, "epoch_end")
            for one in stacks:
                one.let_go()
            if not any(one.active for one in stacks):
                break
        _tell_all(stacks, watching, "end", everyone=True)
    finally:
        for one in stacks:
            one.release(sorted(one.active))
    return [state for one in stacks for state in one.states]


def _tell_all(stacks: list[_Stack], watching: Hearing, event: str, *, everyone: bool = False) -> None:
    for one in stacks:
        one.tell(event, {}, everyone=everyone)
    states: list[State] = [s for one in stacks for s in (one.states if everyone else one.states_at_work)]
    for watcher in watching[event] if states else ():
        watcher(states)


class _Stack:
    """Some replicates that take every step together."""

    def __init__(
        self,
        plan: Arrangement,
        models: Sequence[nn.Module],
        splits: Sequence[Split],
        settings: TrainingConfig,
        seeds: list[int],
        phase: str,
        masks: Sequence[Masks | None],
        hearing: Sequence[Hearing],
        stood: Sequence[Snapshot | None],
    ) -> None:
        self._seeds, self._phase, self._hearing = seeds, phase, hearing
        self.flat = FlatParameters(models, masks)
        self._optimizer = build(nn.ParameterList([self.flat.parameter]), settings)
        self._rates = learning_rates(self._optimizer, settings)
        classes = plan.blueprint.layers[-1].outputs if plan.blueprint is not None else None
        self._rows = StackedRows(splits, batch_size(len(splits[0]), settings), drop_last=settings.drop_last, classes=classes)
        self._networks = (
            StackedPerceptrons(plan.blueprint, self.flat)
            if plan.blueprint is not None
            else VectorisedNetworks(models[0], settings.loss, self.flat, tuple(splits[0].x.shape[1:]))
        )
        self.states = [ReplicateState(m.train(), self._optimizer, settings, phase, epoch=settings.from_epoch) for m in models]
        for place, state in enumerate(self.states):
            state.place, state.flat = place, self.flat
        self.active = set(range(len(models)))
        self._heard = {event for own in hearing for event, heard in own.items() if heard}
        self._steps, self._begun = 0, False
        if (found := [f for f in stood if f is not None]) and len(found) == len(self.states):
            self._take_up(found)

    def _take_up(self, found: Sequence[Snapshot]) -> None:
        for state, one in zip(self.states, found, strict=True):
            state.model.load_state_dict(dict(one.weights))  # before the parameters are lent
            state.epoch, state.steps, state.stop = one.epoch, one.steps, one.stop
        put_back(self._optimizer, self._rates, {self.flat.parameter: self.flat.joined([f.numbers for f in found])}, found[0])
        self._steps = found[0].steps

    @property
    def states_at_work(self) -> list[ReplicateState]:
        """The states of the replicates that have not stopped."""
        return [s for i, s in enumerate(self.states) if i in self.active]

    @torch.no_grad()
    def epoch(self, epoch: int, watching: Hearing) -> None:
        """One epoch of all replicates, up to but not including its end's event."""
        if not self.active:
            return
        self.tell("epoch_start", watching)
        listening = {e for e in ("gradients", "step") if watching[e] or e in self._heard}
        for x, target in self._rows.epoch(self._seeds, self._phase, "order", epoch):
            self._networks.backward(x, target)
            if not self._begun:
                self._begun = True
                for state in self.states:
                    state.losses = self._networks.losses
            if "gradients" in listening:
                self.tell("gradients", watching)
            self._optimizer.step()
            self.flat.mask()
            self._steps += 1
            if listening:
                self._count()
            if "step" in listening:
                self.tell("step", watching)
        self._rates.step()
        self._count()
        for state in self.states_at_work:
            state.epoch = epoch + 1

    def _count(self) -> None:
        for state in self.states_at_work:
            state.steps = self._steps

    def tell(self, event: str, watching: Hearing, *, everyone: bool = False) -> None:
        """Call each replicate's listeners, then the watchers, if any are given."""
        for i, state in enumerate(self.states) if event in self._heard else ():
            if everyone or i in self.active:
                for handler in self._hearing[i][event]:
                    handler(state)
        for watcher in watching.get(event, ()):
            watcher(self.states_at_work)

    def let_go(self) -> None:
        """Replicates that asked to stop keep the weights of now; the stack goes on without them."""
        self.release([i for i in self.active if self.states[i].stop])

    def release(self, places: Sequence[int]) -> None:
        """The networks at `places` own their weights again; their last loss is kept, the stack's memory is not."""
        losses = self._networks.losses() if places and self._begun else None
        for i in places:
            self.flat.give_back(i)
            self.states[i].losses = None if losses is None else functools.partial(torch.clone, losses)
            self.active.discard(i)


class _Single:
    """A watcher as a listener of one replicate that trains alone."""

    def __init__(self, watcher: Any) -> None:
        for event in EVENTS:
            if callable(heard := getattr(watcher, event, None)):
                setattr(self, event, lambda state, heard=heard: heard([state]))
