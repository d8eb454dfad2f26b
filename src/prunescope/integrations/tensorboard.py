"""A run's records as TensorBoard's event files: one TensorBoard run a trial, named by variant, sparsity and seed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prunescope import extras
from prunescope.integrations.tracks import Told, parameters
from prunescope.results.files import read_json, write_json
from prunescope.results.following import Followed, Following
from prunescope.results.live import Fact
from prunescope.types import StoreError

LOGGED = "prunescope.json"


def maker(folder: Path) -> Callable[[Following], TensorBoard]:
    """Makes the tracker that writes to `folder`. Raises MissingExtraError where TensorBoard is not installed."""
    extras.load("tensorboard", extra="track", purpose="--log tensorboard")
    writer = extras.load("torch.utils.tensorboard", extra="track", purpose="--log tensorboard").SummaryWriter
    hparams = extras.load("torch.utils.tensorboard.summary", extra="track", purpose="--log tensorboard").hparams
    return lambda following: TensorBoard(folder, following, writer, hparams)


class TensorBoard:
    """Writes each trial to a folder of its own below `folder`, with its settings as hyper-parameters when it ends.

    A trial that an earlier call logged to its end is left alone; one that was broken off is written anew.
    """

    def __init__(self, folder: Path, following: Following, writer: Callable[..., Any], hparams: Callable[..., Any]) -> None:
        self._folder, self._following, self._writer, self._hparams = folder, following, writer, hparams
        self._open: dict[str, Any] = {}
        self._told = Told()
        self._logged = self._read()

    def begun(self, trial: Followed) -> None:
        """A trial begins: what an attempt that was broken off left is removed."""
        if (writer := self._open.pop(trial.name, None)) is not None:
            writer.close()
        self._told.forget(trial)
        if self._logged.pop(trial.hash, None) is not None:
            write_json(self._folder / LOGGED, self._logged)
        shutil.rmtree(self._folder / place(trial), ignore_errors=True)

    def facts(self, trial: Followed, facts: Sequence[Fact]) -> None:
        """Write what is new."""
        if trial.hash in self._logged:
            return
        writer = self._file(trial)
        for name, step, value in self._told.new(trial, facts):
            writer.add_scalar(name, value, step)

    def ended(self, trial: Followed) -> None:
        """Write the settings and the outcome, and close the file."""
        if trial.hash in self._logged:
            return
        writer = self._file(trial)
        settings = parameters(trial, (self._following.experiment or {}).get("config", {}))
        plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in settings.items()}
        measured = [f for f in trial.facts if f.phase == "final" and f.split == "test" and f.metric != "chance"]
        final = {f"final/{f.metric}/test": f.value for f in measured}
        writer.add_text("trial", f"{trial.label}: {trial.status} {trial.reason}".strip())
        for summary in self._hparams(plain, final):  # as writer.add_hparams, which would write the outcome a second time
            writer.file_writer.add_summary(summary)
        self._open.pop(trial.name).close()
        self._told.forget(trial)
        if trial.status == "finished":
            self._logged[trial.hash] = str(place(trial))
            write_json(self._folder / LOGGED, self._logged)

    def close(self) -> None:
        """Close what is open."""
        for writer in self._open.values():
            writer.close()
        self._open = {}

    def _file(self, trial: Followed) -> Any:
        if trial.name not in self._open:
            shutil.rmtree(self._folder / place(trial), ignore_errors=True)
            self._open[trial.name] = self._writer(str(self._folder / place(trial)), flush_secs=5)
        return self._open[trial.name]

    def _read(self) -> dict[str, Any]:
        try:
            return read_json(self._folder / LOGGED) if (self._folder / LOGGED).is_file() else {}
        except StoreError:
            return {}  # all is written anew


def place(trial: Followed) -> Path:
    """The trial's folder below TensorBoard's: group, variant, sparsity and seed, fit for file names, and some of its hash."""
    level = [] if trial.sparsity is None else [f"{trial.sparsity * 100:g} %"]
    parts = [trial.group, trial.variant, *level, f"seed {trial.seed} {trial.hash[:6]}"]
    return Path(*(re.sub(r"[^\w ,=%+-]", "_", part)[:80] for part in parts if part))
