"""Trials that train together: the same records as one by one, whatever else goes on in the stack."""

import pandas as pd
import pytest

import prunescope as ps
from prunescope.experiments import tasks
from prunescope.experiments.planning import plan
from prunescope.experiments.tasks import Task, batches
from prunescope.results.schema import COLUMNS
from prunescope.training import rows
from prunescope.types import ConfigError

KEYS = [c for c in COLUMNS if c not in ("value", "stderr", "parameters")]
SMALL = {
    "name": "together",
    "seeds": 3,
    "sparsity": [0.5],
    "data": {"name": "digits", "flatten": True, "classes": [0, 1, 2]},
    "model": {"name": "mlp", "widths": [8, 6], "activation": "tanh"},
    "training": {"epochs": 2, "batch_size": 64, "optimizer": "adam", "lr": 0.005},
    "measure": {
        "gradients": True,
        "latency": False,
        "plane": {"estimators": [{"name": "binning", "bins": 8, "range": "auto"}, {"name": "kde"}]},
    },
    "variant": [
        {"name": "dense", "prune": {"when": "never"}},
        {"name": "init", "prune": {"when": "init", "granularity": "neuron"}},
        {"name": "random init", "prune": {"when": "init", "criterion": "random"}, "sparsity": [0.3, 0.6]},
        {"name": "trained", "finetune": {"epochs": 1}},
        {"name": "rounds", "prune": {"when": "iterative", "rounds": 2}, "finetune": {"epochs": 1}},
        {"name": "regrowth", "finetune": {"epochs": 1, "hold_masks": False}},
    ],
}


def run(folder, stack, **changes):
    return ps.run(SMALL, overrides=changes, out=folder, engine="serial", stack=stack)


def records(run) -> pd.DataFrame:
    return run.records.sort_values(KEYS, kind="stable").reset_index(drop=True)


def assert_equal(one: pd.DataFrame, two: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one[KEYS], two[KEYS])
    assert len(one)
    exact = one["metric"].isin(["sparsity", "nonzero", "parameters", "mask", "flops", "chance"])
    pd.testing.assert_frame_equal(one[exact], two[exact])
    kept = ~exact & (one["metric"] != "bytes")  # compressed sizes depend on every last bit
    pd.testing.assert_series_equal(one[kept]["value"], two[kept]["value"], rtol=2e-3, atol=1e-5)
    close = (one[kept]["value"] - two[kept]["value"]).abs() <= 1e-4 * one[kept]["value"].abs() + 1e-6
    assert close.mean() > 0.99, "but for a sample at the edge of a bin, all agree to four digits"
    losses = one["metric"] == "loss"
    pd.testing.assert_series_equal(one[losses]["value"], two[losses]["value"], rtol=1e-5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return records(run(tmp_path_factory.mktemp("alone") / "r", "off"))


@pytest.mark.parametrize("stack", ["auto", "on", 2])
def test_records_equal_those_of_one_by_one(alone, tmp_path, stack):
    result = run(tmp_path / "r", stack)
    assert (result.trials["status"] == "finished").all()
    assert_equal(alone, records(result))


def test_trials_of_one_architecture_and_schedule_go_together(tmp_path):
    todo = [Task(t, tmp_path, None, "cpu") for t in plan(SMALL).trials]
    made, texts = batches(todo, lambda t: t.kind if t.trains else None, stack="auto", jobs=1)
    sizes = {b.tasks[0].trial.variant: len(b.tasks) for b in made}
    assert sizes == {"dense": 1, "init": 9, "trained": 6, "rounds": 3}
    assert len(texts) == 3
    assert "9 at once by batched matrix products" in " ".join(texts)
    assert {len(b.tasks) for b in batches(todo, lambda t: t.kind, stack="off", jobs=1)[0]} == {1}
    shared = batches(todo, lambda t: t.kind, stack="auto", jobs=2)[0]
    assert max(len(b.tasks) for b in shared) == 5, "two workers share the nine"


def test_networks_that_cannot_be_stacked_are_told_apart_with_the_reason(tmp_path, monkeypatch):
    changes = {"data.flatten": False, "model": {"name": "cnn", "channels": [2], "dense": 4}}
    todo = [Task(t, tmp_path, None, "cpu") for t in plan(SMALL, changes).trials]
    made, texts = batches(todo, lambda t: t.kind, stack="auto", jobs=1)
    assert {len(b.tasks) for b in made} == {1}
    assert all("one by one: conv1 (Conv2d)" in t for t in texts)


def test_a_trial_that_fails_in_a_stack_fails_alone(tmp_path):
    """One variant asks for filters of a network that has none: the others of its stack go on."""
    broken = {"name": "broken", "prune": {"when": "init", "granularity": "filter"}}
    result = run(tmp_path / "r", "auto", variant=[*SMALL["variant"][1:3], broken])
    status = result.trials.groupby("variant")["status"].agg(set).to_dict()
    assert status == {"init": {"finished"}, "random init": {"finished"}, "broken": {"failed"}}
    assert result.trials.set_index("variant").loc["broken", "reason"].str.contains("granularity 'filter'").all()


def test_a_stack_that_fails_is_done_again_one_by_one(alone, tmp_path, monkeypatch):
    real = tasks.together
    calls = []

    def fails_in_company(steps, **how):
        calls.append(len(steps))
        return [RuntimeError("stack") for _ in steps] if len(steps) > 1 else real(steps, **how)

    monkeypatch.setattr(tasks, "together", fails_in_company)
    result = run(tmp_path / "r", "auto")
    assert (result.trials["status"] == "finished").all()
    assert max(calls) > 1
    assert_equal(alone, records(result))


def test_what_is_left_of_a_stack_gives_the_same_records(tmp_path):
    """As after a kill: some trials of a stack are finished, the rest are stacked anew."""
    whole = run(tmp_path / "r", "auto")
    before = records(whole)
    for name in whole.trials["hash"][::2]:
        (whole.folder / "trials" / name / "trial.json").unlink()
    again = run(tmp_path / "r", "auto")
    assert (again.trials["status"] == "finished").all()
    assert_equal(before, records(again))


def test_replicates_with_their_own_splits(tmp_path, monkeypatch):
    changes = {"data.split": "per-seed", "variant": SMALL["variant"][1:2]}
    one = run(tmp_path / "a", "off", **changes)
    together, real = [], rows.StackedRows.epoch
    monkeypatch.setattr(rows.StackedRows, "epoch", lambda self, seeds, *purpose: together.append(len(seeds)) or real(self, seeds, *purpose))
    two = run(tmp_path / "b", "on", **changes)
    assert set(together) == {3}, "different rows, as many of each: one stack"
    starts = one.records.query("metric == 'loss' and split == 'validation' and epoch == 0 and phase == 'train'")
    assert starts["value"].nunique() == len(starts) > 1
    assert_equal(records(one), records(two))


def test_a_wrong_stack_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="stack 'sideways': expected auto, on, off"):
        run(tmp_path / "r", "sideways")
