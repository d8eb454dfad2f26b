"""Opening: the networks that a word on the command line stands for, each with samples that it can be run on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunescope import models
from prunescope.experiments.execution import build_model, load_data
from prunescope.experiments.finding import known, parted, planned
from prunescope.registry import models as registered
from prunescope.results.store import Run, TrialFolder
from prunescope.rng import torch_generator
from prunescope.training import load_weights
from prunescope.types import ConfigError, StoreError

SAMPLES = 256


@dataclass(frozen=True)
class Opened:
    """A network in evaluation mode and samples (n, ...) for it."""

    name: str
    model: nn.Module
    x: Tensor


@dataclass(frozen=True)
class Building:
    """What a network built by name is made for: shape of a sample (None: the model's own example), classes, options, seed."""

    input_shape: tuple[int, ...] | None = None
    classes: int = 10
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


def opened(
    what: str, building: Building = Building(), data_dir: Path | None = None, *, allow: Sequence[str] = ()
) -> list[Opened]:
    """The networks that `what` stands for.

    "RUN"              a run folder: of each variant and sparsity the finished trial with the smallest seed, on the trial's test samples
    "RUN:HASH"         one trial of it, by its hash or the first digits of that; the trial's own folder is understood too
    "NAME"             a model by name (`prunescope list models`), or "module:function", with weights drawn from the seed and random samples
    "NAME@FILE.safetensors"   the same with the weights in a file

    allow   functions of one's own that a run's config may name; `what` itself may name any
    Raises ConfigError or StoreError that says which of these was taken for meant and what was wrong with it.
    """
    if (found := parted(what)) is not None:
        return _of_run(*found, data_dir, allow)
    if (path := Path(what)).exists():
        own = path.suffix == ".safetensors"
        hint = f"say what network it belongs to: NAME@{what}" if own else "other files may run code when they are read"
        raise ConfigError(f"{what}: expected a run folder, a trial, or a model's name with or without @FILE.safetensors; {hint}")
    return [_built(what, building)]


def _of_run(folder: Path, wanted: str, data_dir: Path | None, allow: Sequence[str]) -> list[Opened]:
    run = Run(folder)
    done = run.trials[(run.trials["status"] == "finished") & run.trials["hash"].str.startswith(wanted)]
    if done.empty:
        there = ", ".join(str(h)[:8] for h in run.trials["hash"].head(8))
        raise StoreError(f"{folder}: no finished trial" + (f" begins with {wanted}: there are {there}, ..." if wanted else ""))
    if wanted and len(done) > 1:
        raise StoreError(f"{folder}: {len(done)} finished trials begin with {wanted}: give more digits of the hash")
    trials = planned(run, allow)
    first = done.sort_values("seed", kind="stable").drop_duplicates(["group", "variant", "sparsity"])
    found = []
    for name in done["hash"][done["hash"].isin(first["hash"])]:
        trial = known(run, trials, name)
        data = load_data(trial.config.data, trial.seed, data_dir)
        model = load_weights(build_model(trial, data), TrialFolder(folder / "trials" / name).weights_file)
        found.append(Opened(trial.label, model.eval(), data.test.x[:SAMPLES]))
    return found


def _built(what: str, building: Building) -> Opened:
    name, _, file = what.partition("@")
    entry = registered.get(name)
    shape = building.input_shape or entry.traits.get("sample")
    if shape is None:
        raise ConfigError(f"{name}: no shape of a sample is known: give one, e.g. --input 1,28,28")
    model = models.build(name, input_shape=tuple(shape), classes=building.classes, seed=building.seed, options=building.options)
    if file:
        load_weights(model, file)
    generator = torch_generator(building.seed, "samples")
    if building.options.get("tokens"):
        x = torch.randint(0, 2, (SAMPLES, *shape), generator=generator)
    else:
        x = torch.randn((SAMPLES, *shape), generator=generator)
    return Opened(what, model.eval(), x)
