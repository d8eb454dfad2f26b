"""A finished trial's network as it ended, with its masks and samples to run it on."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from prunescope.experiments.execution import build_model, load_data
from prunescope.experiments.run import plan
from prunescope.pruning import Masks
from prunescope.results.store import Run, TrialFolder
from prunescope.training import load_weights
from prunescope.types import StoreError


@dataclass(frozen=True)
class Stored:
    """A trial's network in evaluation mode, a fresh one of its kind, its masks (None without), and test samples (n, ...)."""

    label: str
    model: nn.Module
    fresh: nn.Module
    masks: Masks | None
    x: Tensor


def stored(folder: Path, data_dir: Path | None = None) -> Stored:
    """The network in a trial's folder (RUN/trials/HASH). StoreError where it is not finished or this version makes another trial of it."""
    folder = folder.resolve()
    place, run = TrialFolder(folder), Run(folder.parent.parent)
    if place.status().get("status") != "finished":
        raise StoreError(f"{folder}: this trial is not finished ({place.status().get('status')}): run its experiment again, it goes on")
    trial = next((t for t in plan(tomllib.loads(str(run.experiment["toml"]))).trials if t.hash == folder.name), None)
    if trial is None:
        raise StoreError(f"{folder}: this is not a trial that this version makes of the run's config: run it again with this version")
    data = load_data(trial.config.data, trial.seed, data_dir)
    model = load_weights(build_model(trial, data), place.weights_file).eval()
    masks = Masks.load(place.masks_file, model)
    return Stored(trial.label, model, build_model(trial, data), masks if len(masks) else None, data.test.x)
