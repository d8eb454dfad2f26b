"""What the callbacks for other people's training loops share: a Pruner or fixed masks on their optimiser, a plane, a state to be kept."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from prunescope.information import PlanePoint
from prunescope.measures.flow import InformationPlane
from prunescope.pruning import Masks, Pruner, prunable
from prunescope.types import ConfigError, Estimate, PruningError

END = 0.75  # of the training, as in experiments: what comes after it is the fine-tuning
UPDATES = 20


class LoopPruning:
    """Prunes by schedule, or holds `masks`, in a loop that somebody else runs.

    sparsity    fraction removed in the end, by a Pruner; further keywords are the Pruner's (criterion, schedule, begin, end, every, ...).
                Left out are `end`, three quarters of the loop's optimiser steps, and `every`, twenty updates until then
    masks       without `sparsity`: one-shot masks (`ps.prune`), held through the training; with it: where the Pruner starts
    plane       an InformationPlane of the same model, recorded before the first epoch and after every `plane_every`-th

    `pruner` is None before the training and where masks are only held; `masks` are the masks of now, also after the training.
    """

    def __init__(
        self,
        *,
        sparsity: float | None = None,
        masks: Masks | None = None,
        plane: InformationPlane | None = None,
        plane_every: int = 1,
        **pruning: Any,
    ) -> None:
        if sparsity is None and masks is None:
            raise ConfigError("expected sparsity=FRACTION (pruned by schedule) or masks=ps.prune(...) (held), got neither")
        if sparsity is None and pruning:
            raise ConfigError(f"{', '.join(sorted(pruning))}: settings of a Pruner, which only sparsity=FRACTION makes")
        if sparsity is not None:
            own = {"model", "optimizer", "automatic", "state"}
            if wrong := sorted(own & set(pruning)):
                raise ConfigError(f"{', '.join(wrong)}: the loop decides that: leave it out")
        if plane_every < 1:
            raise ConfigError(f"plane_every {plane_every}: expected a number of epochs of at least 1")
        self.sparsity, self.plane, self.plane_every, self.pruning = sparsity, plane, plane_every, pruning
        self.pruner: Pruner | None = None
        self._masks: Masks | None = masks
        self._handle: RemovableHandle | None = None
        self._schedule: dict[str, int] = {}
        self._kept: Mapping[str, Any] | None = None  # of a checkpoint, until the training begins

    @property
    def masks(self) -> Masks | None:
        """The masks of now: the Pruner's, or those that are held; None before there are any."""
        return self.pruner.masks if self.pruner is not None else self._masks

    def reached(self) -> float:
        """The fraction of the masked weights that is removed by now."""
        return 0.0 if self.masks is None else self.masks.sparsity()

    def begin(self, model: nn.Module, optimizers: Sequence[Any], steps: float) -> None:
        """The training begins, or goes on from a checkpoint: `steps` optimiser steps in all (inf where nobody knows)."""
        optimizer = holder(model, optimizers)
        state = self._kept or {}
        self._kept = None
        if self.sparsity is None:
            assert self._masks is not None, "checked when the callback was made"
            if "masks" in state:
                self._masks = Masks({n: torch.as_tensor(m) for n, m in state["masks"].items()})
            self._handle = self._masks.bind(model).apply().attach(optimizer)
        else:
            self._schedule = dict(state.get("schedule") or _schedule(self.pruning, steps))  # a longer second training keeps its place
            self.pruner = Pruner(
                model, optimizer, sparsity=self.sparsity, masks=self._masks, state=state.get("pruner"), **{**self.pruning, **self._schedule}
            )
        if self.plane is not None and "plane" in state:
            self.plane.points = [_point(row) for row in json.loads(state["plane"])]

    def record(self, epoch: int) -> None:
        """Record the plane after `epoch` epochs, where it is due and not yet recorded."""
        if self.plane is not None and epoch % self.plane_every == 0 and all(e != epoch for e, _ in self.plane.points):
            self.plane.record(epoch)

    def finish(self) -> None:
        """The training is over: the optimiser is let go, the model keeps its zeros."""
        if self.pruner is not None:
            self._masks = self.pruner.finish()
        if self._handle is not None:
            self._handle.remove()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: numbers, texts and tensors alone."""
        if self._kept is not None:  # a checkpoint that is saved again before any training
            return dict(self._kept)
        found: dict[str, Any] = {}
        if self.pruner is not None:
            found |= {"pruner": self.pruner.state_dict(), "schedule": self._schedule}
        elif self._masks is not None:
            found["masks"] = {n: m.clone() for n, m in self._masks.items()}
        if self.plane is not None:
            found["plane"] = json.dumps([{"epoch": e, **asdict(p)} for e, p in self.plane.points], default=str)
        return found

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave, once the training begins. PruningError where it belongs to another kind of pruning."""
        wanted = "masks" if self.sparsity is None else "pruner"
        if wanted not in state and ({"masks", "pruner"} & set(state)):
            raise PruningError(f"the checkpoint holds no {wanted}: make the callback with the settings that it was saved with")
        self._kept = dict(state)


def _point(row: dict[str, Any]) -> tuple[float, PlanePoint]:
    estimate = dict(row["estimate"])
    estimate["flags"] = tuple(estimate["flags"])
    estimate["interval"] = None if estimate["interval"] is None else tuple(estimate["interval"])
    return row["epoch"], PlanePoint(**{**{k: v for k, v in row.items() if k != "epoch"}, "estimate": Estimate(**estimate)})


def _schedule(pruning: Mapping[str, Any], steps: float) -> dict[str, int]:
    """`end` and `every` where they are left out, from the length of the training."""
    begin, found = int(pruning.get("begin", 0)), dict[str, int]()
    if not math.isfinite(steps) or pruning.get("schedule") == "one-shot":
        return found
    end = pruning.get("end")
    if end is None:
        end = found["end"] = max(begin + 1, int(END * steps))
    if "every" not in pruning:
        found["every"] = max(1, (end - begin) // UPDATES)
    return found


def innermost(optimizer: Any) -> torch.optim.Optimizer:
    """The optimiser inside the wrappers that frameworks put around it, whose hooks are those that run."""
    while not isinstance(getattr(optimizer, "_optimizer_step_post_hooks", None), dict) and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError(f"the loop's optimiser is a {type(optimizer).__name__}: expected one of torch.optim, whose steps can be counted")
    return optimizer


def holder(model: nn.Module, optimizers: Sequence[Any]) -> torch.optim.Optimizer:
    """Of the loop's optimisers the one that trains most of the weights that can be pruned."""
    found = [innermost(o) for o in optimizers]
    if not found:
        raise ConfigError("the loop has no optimiser: expected one that trains the model to be pruned")
    weights = {id(p): p.numel() for p in prunable(model).values()}
    return max(found, key=lambda o: sum(weights.get(id(p), 0) for group in o.param_groups for p in group["params"]))


def flat_tensors(state: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of nested dictionaries under names joined by "/"."""
    for key, value in state.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping):
            yield from flat_tensors(value, f"{prefix}{key}/")


def plain_values(state: Mapping[str, Any]) -> dict[str, Any]:
    """The rest of the nested dictionaries: what can be written as JSON."""
    return {
        key: plain_values(value) if isinstance(value, Mapping) else value for key, value in state.items() if not isinstance(value, Tensor)
    }


def joined(values: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The nested dictionaries again. Names of parameters may hold dots, never "/"."""
    for name, tensor in tensors.items():
        *parents, last = name.split("/")
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = tensor
    return values


def nothing(*_: Any, **__: Any) -> None:
    """What a hook does that we have no use for."""
