"""A watcher that lets others look on: what the trials of a batch have recorded is written to a live file while they train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prunescope.config import value_hash
from prunescope.experiments.sweep import Trial
from prunescope.experiments.trial import Execution
from prunescope.results.live import FOLDER, LiveFile
from prunescope.training import State


class Broadcast:
    """Hears the ends of epochs of a batch; it reads the recorders that are there anyway and changes nothing."""

    def __init__(self, folder: Path, trials: Mapping[str, Trial], works: Sequence[Execution]) -> None:
        self._works = works
        members = [_about(name, trial) for name, trial in trials.items()]
        self._file = LiveFile(folder / FOLDER / f"{value_hash(sorted(trials))}.jsonl", members)

    def start(self, states: Sequence[State]) -> None:
        """Before the first step."""
        self._file.write([work.recorder.records for work in self._works])

    def epoch_end(self, states: Sequence[State]) -> None:
        """After every epoch."""
        self._file.write([work.recorder.records for work in self._works])

    def done(self) -> None:
        """The batch is stored."""
        self._file.remove()


def _about(name: str, trial: Trial) -> dict[str, Any]:
    shared = not name.startswith("trials/")
    about = {"name": name, "shared": shared, "group": trial.group, "seed": trial.seed}
    if shared:
        what = "training" if name.startswith("dense/") else "rounds"
        label = ", ".join(part for part in (trial.group, f"{what} that trials share", f"seed {trial.seed}") if part)
        return {**about, "label": label, "variant": f"{what} that trials share", "sparsity": None}
    return {**about, "label": trial.label, "variant": trial.variant, "sparsity": trial.sparsity}
