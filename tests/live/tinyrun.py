"""A run of seconds that has everything a live page shows, and a run folder whose records are written by hand."""

from pathlib import Path
from typing import Any

from prunescope.results import schema
from prunescope.results.files import write_json
from prunescope.results.live import FOLDER, LiveFile
from prunescope.results.schema import Record
from prunescope.results.store import TrialFolder, write_records

TINY: dict[str, Any] = {
    "name": "tiny", "data": {"name": "digits", "train_size": 200, "test_size": 100}, "model": {"name": "mlp", "widths": [6]},
    "training": {"epochs": 3, "lr": 0.3}, "finetune": {"epochs": 2}, "seeds": 1, "sparsity": [0.5],
    "measure": {"plane": {"estimators": [{"name": "binning", "bins": 8}]}},
}  # fmt: skip
VARIANTS = [
    {"name": "dense", "prune": {"when": "never"}},
    {"name": "weights"},
    {"name": "bad", "prune": {"criterion": "badcriterion:broken"}},
]


class ByHand:
    """A run folder with two trials that are told about bit by bit."""

    def __init__(
        self,
        folder: Path,
        title: str = "By hand",
        variants: tuple[str, ...] = ("weights", "neurons"),
        groups: tuple[str, ...] = ("", ""),
    ) -> None:
        self.folder, self.records = folder, [list[Record]() for _ in variants]
        named = enumerate(zip(variants, groups, strict=False))
        self.trials = [{"hash": f"{i}" * 8, "group": g, "variant": v, "sparsity": 0.5, "seed": 0} for i, (v, g) in named]
        about = {"schema": schema.VERSION, "name": "hand", "title": title, "created": "2026-01-01", "question": title, "config": {}}
        write_json(folder / "experiment.json", {**about, "trials": self.trials})
        members = [{"name": f"trials/{t['hash']}", "shared": False, "label": f"{t['variant']}, seed 0", **t} for t in self.trials]
        (folder / FOLDER).mkdir()
        self._file = LiveFile(folder / FOLDER / "batch.jsonl", members, seconds=0.0)

    def epoch(self, number: int, first: int = 0) -> None:
        """Another epoch of all trials, or of those from the `first` on, is over."""
        for place, found in list(enumerate(self.records))[first:]:
            value = 1 - 0.8 ** (number + 1 + place)
            for split in ("train", "validation"):
                found.append(Record("accuracy", value, "fraction", "train", number, number, split))
                found.append(Record("loss", 1 - value, "nats", "train", number, number, split))
            for name in ("h1", "h2"):
                found.append(Record("mi_input", 2 * value, "bits", "train", number, number, "train", name, estimator="binning"))
                found.append(Record("mi_label", value, "bits", "train", number, number, "train", name, estimator="binning"))
        self._file.write(self.records)

    def finish(self, place: int, reason: str = "") -> None:
        """A trial ends, well or with a reason."""
        trial, found = self.trials[place], self.records[place]
        where = TrialFolder(self.folder / "trials" / str(trial["hash"]))
        if not reason:
            found.append(Record("accuracy", 0.9, "fraction", "final", split="test"))
            columns = {**dict.fromkeys(schema.TRIAL_COLUMNS, ""), **{k: trial[k] for k in ("variant", "sparsity", "seed")}}
            write_records(where.records_file, schema.frame(found, columns))
        status = {"status": "failed", "reason": reason} if reason else {"status": "finished", "seconds": 1.5}
        write_json(where.status_file, {**status, "trial": f"{trial['variant']}, seed 0"})

    def end(self) -> None:
        """The run is over."""
        self._file.remove()
        (self.folder / FOLDER).rmdir()
