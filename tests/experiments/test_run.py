"""Experiments from config to records: phases, resuming, engines, failures, and what the records say."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import prunescope as ps
from prunescope.experiments import engines
from prunescope.experiments.planning import plan
from prunescope.results.schema import COLUMNS
from prunescope.types import ConfigError, DataError, StoreError

SMALL = {
    "name": "small",
    "question": "?",
    "baseline": "dense",
    "seeds": 2,
    "sparsity": [0.5],
    "data": {"name": "digits", "flatten": True, "classes": [0, 1, 2]},
    "model": {"name": "mlp", "widths": [8, 6], "activation": "tanh"},
    "training": {"epochs": 3, "batch_size": 64, "optimizer": "adam", "lr": 0.01},
    "measure": {"plane": {"estimators": [{"name": "binning", "bins": 8}]}},
    "variant": [
        {"name": "dense", "prune": {"when": "never"}},
        {"name": "init", "prune": {"when": "init", "granularity": "neuron"}},
        {"name": "trained", "finetune": {"epochs": 2}},
        {"name": "regrowth", "finetune": {"epochs": 2, "hold_masks": False}},
        {"name": "rounds", "prune": {"when": "iterative", "rounds": 2}, "finetune": {"epochs": 1}},
        {"name": "threshold", "prune": {"threshold": 0.1}},
    ],
}
TIMED = ["latency_ms"]


def run(folder: Path, *, engine: str = "serial", **changes) -> ps.load:
    return ps.run(SMALL, overrides=changes, out=folder, engine=engine)


def ordered(records: pd.DataFrame) -> pd.DataFrame:
    """Records without timings in an order of their own, for comparing runs; values take no part in it, as they may differ by rounding."""
    kept = records[~records["metric"].isin(TIMED)]
    return kept.sort_values([c for c in COLUMNS if c not in ("value", "stderr", "parameters")], kind="stable").reset_index(drop=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(tmp_path_factory.mktemp("run") / "small")


def pick(run, **where) -> pd.DataFrame:
    table = run.records
    for column, value in where.items():
        table = table[table[column] == value]
    return table


def test_every_trial_finishes_with_what_design_asks_for(finished):
    assert (finished.trials["status"] == "finished").all()
    assert len(finished.trials) == 12
    for name in finished.trials["hash"]:
        files = {p.name for p in (finished.folder / "trials" / name).iterdir()}
        assert files == {"trial.json", "records.parquet", "weights.safetensors", "masks.safetensors"}
    assert {"loss", "accuracy", "mi_input", "mi_label", "entropy", "sparsity", "parameters", "nonzero", "bytes", "flops",
            "weight_histogram"} <= set(finished.records["metric"])  # fmt: skip
    assert finished.experiment["versions"]["torch"] == torch.__version__
    assert (finished.folder / "experiment.toml").exists()


def test_phases_and_epochs(finished):
    assert pick(finished, variant="dense", metric="loss", split="train", phase="train", seed=0)["epoch"].tolist() == [0, 1, 2, 3, 3]
    assert set(pick(finished, variant="trained")["phase"]) == {"train", "pruned", "finetune", "final"}
    assert set(pick(finished, variant="init")["phase"]) == {"train", "pruned", "final"}
    tuned = pick(finished, variant="rounds", metric="loss", split="validation", phase="finetune", seed=0)
    assert sorted(set(tuned["epoch"])) == [0, 1, 2], "epochs of fine-tuning go on through the rounds"


def test_sparsity_reached_is_what_was_asked_and_what_the_weights_say(finished):
    for variant, level in (("trained", 0.5), ("rounds", 0.5)):
        reached = pick(finished, variant=variant, metric="sparsity", phase="final", seed=0)
        hidden = reached[reached["layer"].isin(["fc1.weight", "fc2.weight"])]
        assert hidden["value"].tolist() == [level, level]
        assert reached[reached["layer"] == "output.weight"]["value"].tolist() == [0.0]
    assert pick(finished, variant="regrowth", metric="sparsity", phase="pruned", layer="fc1.weight")["value"].tolist() == [0.5, 0.5]
    regrown = pick(finished, variant="regrowth", metric="sparsity", phase="final", layer="fc1.weight")["value"]
    assert (regrown < 0.15).all(), "without masks all grow back but those of pixels that are always zero"
    assert pick(finished, variant="threshold")["sparsity"].isna().all()


def test_stored_weights_are_masked_and_give_the_recorded_accuracy(finished):
    import safetensors.torch

    for row in finished.trials.itertuples():
        folder = finished.folder / "trials" / row.hash
        weights, masks = (safetensors.torch.load_file(folder / f) for f in ("weights.safetensors", "masks.safetensors"))
        if row.variant != "regrowth":
            assert all((weights[n][m == 0] == 0).all() for n, m in masks.items())
        assert bool(masks) == (row.variant != "dense")


def test_replicates_are_paired_across_variants(finished):
    """The same seed starts from the same weights and sees the same batches in every variant."""
    start = pick(finished, metric="loss", split="train", phase="train", epoch=0.0)
    dense = start[start["variant"] == "dense"].set_index("seed")["value"]
    for variant in ("trained", "regrowth", "rounds"):
        assert start[start["variant"] == variant].set_index("seed")["value"].equals(dense)
    assert dense[0] != dense[1]


def test_plane_rows_carry_their_ceiling_and_resolution(finished):
    rows = pick(finished, metric="mi_label", phase="train", variant="dense", seed=0)
    assert set(rows["layer"]) == {"act1", "act2", "output"}
    assert rows["unit"].unique().tolist() == ["bits"]
    detail = [json.loads(p) for p in rows["parameters"]]
    assert all(d["ceiling"] > 0 and d["resolution"] for d in detail)
    assert (rows["value"] <= [d["ceiling"] + 1e-9 for d in detail]).all()
    entropy = pick(finished, metric="entropy", phase="train", variant="dense", seed=0)["value"].to_numpy()
    np.testing.assert_allclose(pick(finished, metric="mi_input", phase="train", variant="dense", seed=0)["value"], entropy, rtol=1e-12)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """The same trials one by one: equal to the last bit whatever runs beside them, as stacks of different sizes are not."""
    return ps.run(SMALL, out=tmp_path_factory.mktemp("single") / "small", engine="serial", stack="off")


def test_a_trial_alone_equals_the_same_trial_in_the_sweep(single, tmp_path):
    one = {**SMALL, "variant": [SMALL["variant"][2]], "baseline": None, "seeds": [1]}
    alone = ps.run(one, out=tmp_path / "one", engine="serial", stack="off")
    same = single.records[single.records["trial"].isin(alone.trials["hash"])]
    assert len(same)
    pd.testing.assert_frame_equal(ordered(alone.records), ordered(same))


def test_processes_give_the_same_records(single, tmp_path):
    other = ps.run(SMALL, out=tmp_path / "p", engine="processes", stack="off")
    pd.testing.assert_frame_equal(ordered(other.records), ordered(single.records))


def test_finished_trials_are_skipped_and_fresh_does_them_again(tmp_path):
    only = {"variant": SMALL["variant"][:1], "seeds": 1}
    first = run(tmp_path / "r", **only)
    stamp = (first.folder / "trials" / first.trials["hash"][0] / "records.parquet").stat().st_mtime_ns
    more = run(tmp_path / "r", **{**only, "seeds": 2})
    assert len(more.trials) == 2
    assert (first.folder / "trials" / first.trials["hash"][0] / "records.parquet").stat().st_mtime_ns == stamp
    ps.run(SMALL, overrides=only, out=tmp_path / "r", engine="serial", fresh=True)
    assert (first.folder / "trials" / first.trials["hash"][0] / "records.parquet").stat().st_mtime_ns != stamp


def test_a_failed_trial_is_a_row_with_its_reason_and_the_sweep_goes_on(tmp_path):
    broken = {"name": "broken", "prune": {"granularity": "filter"}}
    result = run(tmp_path / "f", variant=[broken, SMALL["variant"][0]])
    by_variant = result.trials.set_index("variant")
    assert by_variant.loc["dense", "status"].tolist() == ["finished", "finished"]
    assert by_variant.loc["broken", "status"].tolist() == ["failed", "failed"]
    assert "granularity 'filter' fits convolution layers" in by_variant.loc["broken", "reason"].iloc[0]


def test_a_full_disk_stops_with_one_sentence_and_loses_nothing(tmp_path, monkeypatch):
    real, written = Path.replace, []

    def replace(self, target):
        written.append(target)
        if len(written) > 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(StoreError, match="No space left on device"):
        run(tmp_path / "d")
    monkeypatch.undo()
    partial = ps.load(tmp_path / "d")
    done = partial.trials[partial.trials["status"] == "finished"]["hash"]
    assert 0 < len(done) < 12
    stamps = {h: (tmp_path / "d" / "trials" / h / "records.parquet").stat().st_mtime_ns for h in done}
    run(tmp_path / "d")
    assert stamps == {h: (tmp_path / "d" / "trials" / h / "records.parquet").stat().st_mtime_ns for h in done}
    assert not [p for p in (tmp_path / "d").rglob(".*") if p.is_file()], "no half-written files are left"


def test_mistakes_show_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.delenv("PRUNESCOPE_DATA", raising=False)
    with pytest.raises(DataError, match="prunescope data get mnist"):
        ps.run({**SMALL, "data": {"name": "mnist"}}, out=tmp_path / "x", data_dir=tmp_path, engine="serial")
    with pytest.raises(ConfigError, match="unknown engine 'ry'"):
        run(tmp_path / "x", engine="ry")
    with pytest.raises(ConfigError, match="device 'gpu'"):
        ps.run(SMALL, out=tmp_path / "x", device="gpu")
    assert not (tmp_path / "x" / "trials").exists()


def test_overrides_reach_every_variant():
    planned = plan("quickstart", {"training.epochs": 1, "seeds": 1})
    assert {t.config.training.epochs for t in planned.trials} == {1}


class Silent:
    def started(self, label):
        pass

    def ended(self, label):
        pass


def die_once(path: str) -> str:
    """Kills its own worker the first time it is called for `path`."""
    if path.endswith("deadly") and not Path(path).exists():
        Path(path).write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    if path.endswith("fatal"):
        os.kill(os.getpid(), signal.SIGKILL)
    if path.endswith("wrong"):
        raise ValueError(path)
    return path


def test_a_killed_worker_costs_one_retry_and_an_error_is_a_result(tmp_path):
    tasks = [str(tmp_path / n) for n in ("a", "deadly", "wrong", "b", "fatal", "c")]
    results = dict(engines.Processes(2).map(die_once, tasks, label=str, watcher=Silent()))
    assert set(results) == set(tasks)
    assert [results[t] for t in (tasks[0], tasks[1], tasks[3], tasks[5])] == [tasks[0], tasks[1], tasks[3], tasks[5]]
    assert isinstance(results[tasks[2]], ValueError)
    assert "died twice" in engines.reason(results[tasks[4]])


@pytest.mark.slow
def test_workers_that_are_killed_with_their_run_and_the_same_run_again(tmp_path, single):
    """Killed in the middle: only what is missing runs, and the records equal those of a run that nobody disturbed."""
    config = tmp_path / "small.toml"
    import tomli_w

    config.write_text(tomli_w.dumps(SMALL))
    # one by one, so that equal means equal to the last bit; without the report, whose figures take longer than all of this
    code = f"import prunescope; prunescope.run({str(config)!r}, out={str(tmp_path / 'killed')!r}, jobs=2, stack='off')"
    command = [sys.executable, "-c", code]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 300

    def done() -> dict[str, int]:
        files = (tmp_path / "killed" / "trials").glob("*/trial.json")
        return {f.parent.name: f.stat().st_mtime_ns for f in files if json.loads(f.read_text())["status"] == "finished"}

    while len(done()) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    before = done()
    assert 3 <= len(before) < 12
    again = ps.run(SMALL, out=tmp_path / "killed", engine="serial", stack="off")
    assert (again.trials["status"] == "finished").all()
    assert {h: t for h, t in done().items() if h in before} == before, "finished trials are not touched"
    pd.testing.assert_frame_equal(ordered(again.records), ordered(single.records))
