"""A run folder about one network of the user's own: what it was and what it became, for the report, `compare`, `export` and the others."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from prunescope.config import MeasureConfig, PruneConfig, value_hash
from prunescope.experiments import engines
from prunescope.experiments.deployment import COMPACTED
from prunescope.experiments.own import Network, Watcher
from prunescope.experiments.planning import versions
from prunescope.experiments.recorder import Recorder
from prunescope.measures.quality import as_split, evaluate
from prunescope.measures.size import size
from prunescope.pruning import Masks
from prunescope.results import schema
from prunescope.results.files import write_beside, write_json
from prunescope.results.store import Run, TrialFolder, write_records
from prunescope.training import save_weights
from prunescope.types import ConfigError, Dataset, Split, StoreError

GIVEN, PRUNED = "as given", "pruned"


class RunFolder(Watcher):
    """Hears what `shrink` does and makes records of it; `finish` writes the folder. Trials: the network "as given", and "pruned".

    Needs training and test data of tensors and whole-number labels, and a loss by name: ConfigError that says what is missing. StoreError
    where `folder` holds something else.
    """

    def __init__(self, folder: Path, net: Network, pruning: PruneConfig, *, command: str, seed: int) -> None:
        if net.train is None or net.test is None or not isinstance(net.loss, str):
            raise ConfigError("a report needs training data, test data and a loss by name: return (model, train, test), or a mapping")
        if folder.exists() and any(folder.iterdir()) and not (folder / "experiment.json").is_file():
            raise StoreError(f"{folder}: is not empty and holds no run: give an empty or new folder for the report")
        self.folder, self._net, self._pruning, self._command, self._seed = folder, net, pruning, command, seed
        device = next((p.device for p in net.model.parameters()), torch.device("cpu"))
        train, test = (as_split(d, device) for d in (net.train, net.test))
        data = Dataset(net.name, train, Split(train.x[:0], train.y[:0]), test, int(max(train.y.max(), test.y.max())) + 1)
        self._given, self._pruned = (Recorder(net.model, data, MeasureConfig(latency=True), loss=net.loss, seed=seed) for _ in range(2))
        self._masks: Masks | None = None
        self._weights: dict[str, Any] = {}

    def stage(self, name: str, model: nn.Module, masks: Masks | None) -> None:
        """A stage is reached."""
        if name == "as given":
            self._given.final(None)
            self._pruned.state_after("train", None)
            write_beside(self._place(GIVEN).weights_file, lambda p: save_weights(model, p))
        elif name == "compacted":
            self._pruned.final(self._masks)
            self._pruned.stage(COMPACTED, model, size(model))
        else:
            self._masks = masks
            self._pruned.state_after("pruned" if name == "pruned" else "finetune", masks)

    def epoch(self, number: int, model: nn.Module, steps: int) -> None:
        """An epoch of fine-tuning is over: its curve goes on."""
        self._pruned.begin("finetune")
        train = self._pruned.curves["train"]
        self._pruned.add_curve(SimpleNamespace(epoch=number, steps=steps), "train", evaluate(model, train, self._pruned.loss))  # type: ignore[arg-type]

    def finish(self, sparsity: float, seconds: float) -> Run:
        """Write what is left and give the run; `sparsity` is what was asked for, or where nothing was what was reached."""
        if not any(r.phase == "final" for r in self._pruned.records):
            self._pruned.final(self._masks)
        place = self._place(PRUNED)
        write_beside(place.weights_file, lambda p: save_weights(self._net.model, p))
        write_beside(place.masks_file, (self._masks or Masks({})).save)
        trials = []
        for variant, level, recorder in ((GIVEN, 0.0, self._given), (PRUNED, round(sparsity, 6), self._pruned)):
            where, columns = self._place(variant), self._columns(variant, level)
            write_records(where.records_file, schema.frame(recorder.records, columns))
            status = {"status": "finished", "trial": f"{self._net.name}, {variant}", "values": columns, "seconds": round(seconds, 3)}
            write_json(where.status_file, status)
            trials.append({"hash": where.folder.name, "group": "", "variant": variant, "sparsity": level, "seed": self._seed})
        write_json(self.folder / "experiment.json", {
            "schema": schema.VERSION, "name": self._net.name, "title": f"{self._net.name}: pruned", "question": "", "faults": [],
            "notes": ["One network, pruned once: what it says of other seeds is not known."], "baseline": GIVEN,
            "config": {"prune": self._pruning.model_dump(mode="json")}, "toml": "", "command": self._command, "data_notes": [],
            "versions": versions(), "machine": f"{platform.machine()}, {engines.cores()} cores, Python {platform.python_version()}",
            "created": datetime.now(UTC).isoformat(timespec="seconds"), "trials": trials,
        })  # fmt: skip
        return Run(self.folder)

    def _place(self, variant: str) -> TrialFolder:
        return TrialFolder(self.folder / "trials" / value_hash({"network": self._net.name, "variant": variant, "seed": self._seed}))

    def _columns(self, variant: str, level: float) -> dict[str, Any]:
        how = self._pruning
        named = {"criterion": how.criterion, "granularity": how.granularity, "allocation": how.allocation}
        own = named if variant == PRUNED else dict.fromkeys(named, "")
        common = {"experiment": self._net.name, "group": "", "seed": self._seed, "sparsity": level}
        return {**common, **own, "variant": variant, "trial": self._place(variant).folder.name}
