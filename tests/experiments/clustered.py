"""A small experiment and its tasks, for the tests of clusters and storages."""

from pathlib import Path

import pandas as pd

import prunescope as ps
from prunescope.experiments.planning import plan
from prunescope.experiments.tasks import Batch, Task
from prunescope.results.schema import COLUMNS

SMALL = {
    "name": "small",
    "seeds": 2,
    "sparsity": [0.5],
    "data": {"name": "digits", "flatten": True, "classes": [0, 1], "train_size": 60, "test_size": 40},
    "model": {"name": "mlp", "widths": [4]},
    "training": {"epochs": 1},
    "measure": {"histogram_bins": 0},
    "variant": [{"name": "dense", "prune": {"when": "never"}}, {"name": "trained"}],
}


def ordered(records: pd.DataFrame) -> pd.DataFrame:
    return records.sort_values([c for c in COLUMNS if c not in ("value", "stderr", "parameters")], kind="stable").reset_index(drop=True)


def equal(one: ps.load, other: ps.load) -> None:
    """Raise unless both runs have the same records, to the last bit."""
    pd.testing.assert_frame_equal(ordered(one.records), ordered(other.records))


def tasks(folder: Path, data_dir: Path | None = None) -> list[Task]:
    return [Task(t, folder, data_dir, "cpu") for t in plan(SMALL).trials]


def batch(task: Task) -> Batch:
    return Batch((task,), "off")
