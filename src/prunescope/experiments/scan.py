"""The layers of an experiment's network one by one: what each can bear (trained, then pruned alone level by level), what each takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from prunescope import rng
from prunescope.experiments.execution import Execution
from prunescope.experiments.planning import plan
from prunescope.experiments.sweep import Trial
from prunescope.experiments.together import together
from prunescope.measures.quality import loss_function
from prunescope.pruning.groups import Group
from prunescope.pruning.latency import layer_times
from prunescope.pruning.oneshot import groups_of, split_options
from prunescope.pruning.scoring import scores_of
from prunescope.pruning.sensitivity import Scan, levels_for, scan
from prunescope.pruning.signals import Calibration, compute
from prunescope.pruning.streams import Scores
from prunescope.pruning.targets import targets
from prunescope.registry import allocations, criteria, granularities, unknown
from prunescope.types import ConfigError


@dataclass(frozen=True)
class Sensitivity:
    """A scan, what it was made of, the pieces of each layer, and the table that meets a target at equal cost (None: none asked)."""

    title: str
    scan: Scan
    sizes: Mapping[str, int]
    table: Mapping[str, float] | None

    def frame(self) -> pd.DataFrame:
        """A row a layer and level: layer, pieces, sparsity, loss, increase (in the loss function's unit)."""
        rows = [
            {"layer": n, "pieces": self.sizes[n], "sparsity": level, "loss": loss, "increase": loss - self.scan.dense}
            for n, losses in self.scan.losses.items()
            for level, loss in zip(self.scan.levels, losses, strict=True)
        ]
        return pd.DataFrame(rows)


def sensitivity_of(
    source: str | Mapping[str, Any],
    *,
    overrides: Mapping[str, Any] | Iterable[tuple[str, Any]] = (),
    variant: str | None = None,
    levels: Sequence[float] = (0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98),
    target: float | None = None,
    seed: int = 0,
    data_dir: str | Path | None = None,
    allow: Sequence[str] = (),
) -> Sensitivity:
    """The mean validation loss of an experiment's trained network with each layer alone pruned to each of `levels`.

    variant   whose criterion, granularity and layers are used; the first that prunes unless given
    allow     functions "module:function" of one's own, or modules, that a file may name (as in `prunescope.run`)
    target    also find the sparsity of each layer at which all raise the loss alike and `target` of all pieces are gone

    The training data are looked at where there are no validation data. ConfigError for levels outside 0 to 1 and unknown variants.
    """
    if wrong := [v for v in (*levels, *([] if target is None else [target])) if not 0 <= v < 1]:
        raise ConfigError(f"sparsity {wrong[0]}: expected fractions removed from 0 to below 1")
    trial = _trial(source, overrides, variant, seed, allow)
    work = Execution(trial, data_dir=None if data_dir is None else Path(data_dir), device="cpu")
    if isinstance(error := together([work.dense(None)])[0], Exception):
        raise error
    groups, scores = _scored(work, seed)
    split = work.data.validation if len(work.data.validation) else work.data.train
    judged = Calibration(work.model, [], [(split.x, split.y)], loss_function(trial.config.training.loss))
    found = scan(groups, scores, judged, levels=levels)
    sizes = {g.name: g.pieces for g in groups}
    table = None if target is None else levels_for(found, sizes, target)
    which = "validation" if split is work.data.validation else "training"
    own = trial.config.prune
    what = f"{trial.experiment}, {own.granularity} by {own.criterion}, {len(split):,} {which} samples"
    return Sensitivity(what, found, sizes, table)


def latency_of(
    source: str | Mapping[str, Any],
    *,
    overrides: Mapping[str, Any] | Iterable[tuple[str, Any]] = (),
    batch_size: int = 64,
    threads: int = 1,
    seed: int = 0,
    data_dir: str | Path | None = None,
    allow: Sequence[str] = (),
) -> tuple[str, dict[str, dict[str, float]]]:
    """What was timed, and milliseconds of every layer of an experiment's network on this machine (see `layer_times`), untrained.

    The inputs are `batch_size` training samples, the network that of the first trial that prunes.
    """
    trial = _trial(source, overrides, None, seed, allow)
    work = Execution(trial, data_dir=None if data_dir is None else Path(data_dir), device="cpu")
    inputs = work.data.train.x[:batch_size]
    return f"{trial.experiment}, {len(inputs)} samples, {threads} threads", layer_times(work.model, inputs, threads=threads)


def _scored(work: Execution, seed: int) -> tuple[list[Group], Scores]:
    """The pieces of the trial's granularity and their scores by its criterion, in the criterion's unit."""
    own = work.config.prune
    entries = (criteria.get(own.criterion), granularities.get(own.granularity), allocations.get("uniform"))
    options = split_options(entries, {**entries[1].traits.get("stated", {}), **own.options})
    chosen = {t.name: t for t in targets(work.model, layers=own.layers, exclude=own.exclude, output=own.output)}
    groups = groups_of(work.model, list(chosen.values()), entries[1], options[1], work.data.train.x[:2])
    if any(g.pattern for g in groups):
        raise ConfigError(f"granularity {own.granularity!r} has one sparsity only, so there are no levels to try: choose another")
    named = [chosen[n] for n in dict.fromkeys(s.parameter for g in groups for s in g.scored)]
    extra, loss = {"initial": work.initial, "example_inputs": work.data.train.x[:2]}, loss_function(work.config.training.loss)
    seen = Calibration(work.model, named, work.calibration, loss, rng.torch_generator(seed, "prune", own.criterion), extra)
    available = compute(entries[0].needs, seen, options[0])
    with torch.no_grad():
        scores = scores_of(groups, chosen, entries[0], available, options[0], norm=own.norm)
    return groups, scores


def _trial(source: Any, overrides: Any, variant: str | None, seed: int, allow: Sequence[str]) -> Trial:
    planned = plan(source, [*dict(overrides).items(), ("seeds", [seed])], allow=allow)
    able = [t for t in planned.trials if t.config.prune.when != "never"]
    if variant is not None:
        able = [t for t in planned.trials if t.variant == variant]
        if not able:
            raise ConfigError(unknown("variant", variant, list(dict.fromkeys(t.variant for t in planned.trials))))
    if not able:
        raise ConfigError("no variant of this experiment prunes, so there is nothing to scan: name another experiment")
    return able[0]
