"""Every preset runs from end to end, made tiny; what it promises to show is in its records."""

from typing import Any

import numpy as np
import pytest

import prunescope as ps
from prunescope.data import available
from prunescope.experiments import presets
from prunescope.experiments.planning import plan
from prunescope.report.pareto import pareto

OURS = ["lenet", "lenet-criteria", "rnn", "transformer", "fashion-cnn", "criteria", "information-guided", "compress"]
TINY: dict[str, Any] = {"seeds": 1, "training.epochs": 1, "data.train_size": 300}
TINIER: dict[str, dict[str, Any]] = {
    "lenet": {"data.test_size": 100, "sparsity": [0.36], "training.epochs": 2},
    "lenet-criteria": {"data.test_size": 100, "sparsity": [0.9], "measure.epochs": "none"},
    "fashion-cnn": {"data.test_size": 100, "measure.plane.samples": 100},
    "criteria": {"sparsity": [0.5], "prune.calibration": 32, "measure.epochs": "none"},
    "information-guided": {"sparsity": [0.5], "prune.calibration": 64, "measure.epochs": "none"},
    "compress": {"sparsity": [0.75], "data.test_size": 100, "finetune.epochs": 1, "deploy.formats": ["pt2"]},
    "rnn": {"sparsity": [0.5]},
    "transformer": {"sparsity": [0.5], "measure.epochs": "none"},
}


@pytest.mark.parametrize("name", presets.names())
def test_presets_plan_and_say_what_they_ask(name: str) -> None:
    planned = plan(name)
    assert planned.experiment.title
    assert planned.experiment.question.endswith("?")
    assert len({t.hash for t in planned.trials}) == len(planned.trials)
    if name in OURS:
        assert len(planned.experiment.seed_list) >= 5
        assert planned.experiment.notes
        assert planned.experiment.baseline


def _accuracy(run: Any, phase: str) -> Any:
    records = run.records[(run.records["phase"] == phase) & (run.records["metric"] == "accuracy") & (run.records["split"] == "test")]
    return records.set_index("variant")["value"]


@pytest.mark.slow
@pytest.mark.parametrize("name", OURS)
def test_each_runs_when_made_tiny(name: str, tmp_path: Any) -> None:
    tables, _ = presets.tables(name)
    there = {row.name: row.found for row in available()}
    if not there.get(tables["data"]["name"], True):
        pytest.skip(f"{tables['data']['name']} is not on this machine")
    run = ps.run(name, overrides={**TINY, **TINIER[name]}, out=tmp_path / name, engine="serial")
    assert (run.trials["status"] == "finished").all(), run.trials[["variant", "sparsity", "reason"]].dropna().to_dict("records")
    final = run.records[(run.records["phase"] == "final") & (run.records["metric"] == "accuracy") & (run.records["split"] == "test")]
    assert set(final["variant"]) == {v["name"] for v in tables["variant"]}
    assert np.isfinite(final["value"]).all()
    if name == "compress":
        stages = run.records[run.records["metric"] == "bytes"].groupby(["variant", "phase"])["value"].first()
        assert stages["distilled", "final"] > 3 * stages["distilled", "compacted"] > 9 * stages["distilled", "quantised"]
        assert (final.set_index("variant")["value"].drop("dense") == _accuracy(run, "compacted")).all()
        assert pareto(run)["front"].any()
    if "plane" in tables.get("measure", {}):
        layers = set(run.records[run.records["metric"] == "mi_label"]["layer"])
        assert {"output"} < layers
