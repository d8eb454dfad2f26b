"""Trackers: a run's records in TensorBoard and MLflow, read back with the packages' own readers; nothing twice, nothing depends on them."""

import math
import sys

import pytest

import prunescope as ps
from prunescope import cli
from prunescope.integrations.tracking import Tracking, trackers
from prunescope.integrations.tracks import Told, parameters, tag
from prunescope.results import live
from prunescope.results.following import Followed
from prunescope.results.live import Fact
from prunescope.types import ConfigError, MissingExtraError

TINY = {
    "name": "tiny", "data": {"name": "digits", "train_size": 200, "test_size": 100}, "model": {"name": "mlp", "widths": [6]},
    "training": {"epochs": 3, "lr": 0.3}, "finetune": {"epochs": 2}, "seeds": 1, "sparsity": [0.5],
    "measure": {"plane": {"estimators": [{"name": "binning", "bins": 8}]}}, "variant": [{"name": "weights"}],
}  # fmt: skip
BAD = {"name": "bad / variant", "prune": {"criterion": "badcriterion:broken"}}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "SECONDS", 0.0)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "badcriterion.py").write_text("def broken(weight):\n    raise RuntimeError('no scores')\n")
    return tmp_path


def values(run, metric, split, phases=("train", "pruned", "finetune")):
    rows = run.records[(run.records["metric"] == metric) & (run.records["split"] == split) & run.records["phase"].isin(phases)]
    return sorted(rows["value"].tolist())


def test_tensorboard_reads_what_was_recorded(here):
    pytest.importorskip("tensorboard", reason="needs tensorboard: pip install 'prunescope[track]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = ps.run({**TINY, "variant": [{"name": "weights"}, BAD]}, out=here / "run", engine="serial", log=f"tensorboard={here / 'tb'}")
    folders = sorted(p.parent for p in (here / "tb").rglob("events*"))
    names = [f.relative_to(here / "tb").parts for f in folders]
    assert [n[:2] for n in names] == [("bad _ variant", "50 %"), ("weights", "50 %")]
    read = EventAccumulator(str(folders[1])).Reload()
    told = read.Scalars("accuracy/validation")
    assert [e.step for e in told] == [0, 1, 2, 3, 3, 3, 4, 5]  # training, pruning at its end, fine-tuning
    recorded = values(run, "accuracy", "validation")
    assert all(any(abs(e.value - v) < 1e-6 for v in recorded) for e in told)
    final = run.records[(run.records["phase"] == "final") & (run.records["split"] == "test")].set_index("metric")["value"]
    assert read.Scalars("final/accuracy/test")[-1].value == pytest.approx(final["accuracy"])
    assert [e.step for e in read.Scalars("mi_label/binning/output")][:4] == [0, 1, 2, 3]
    settings = read.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"training.epochs" in settings
    assert b"variant" in settings
    before = {p: p.stat().st_mtime_ns for p in folders[1].iterdir()}
    ps.run({**TINY, "variant": [{"name": "weights"}]}, out=here / "run", engine="serial", log=f"tensorboard={here / 'tb'}")
    assert {p: p.stat().st_mtime_ns for p in folders[1].iterdir()} == before


def test_mlflow_reads_what_was_recorded(here):
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow: pip install 'prunescope[track]'")
    pytest.importorskip("alembic", reason="MLflow's SQLite store needs alembic")
    run = ps.run({**TINY, "variant": [{"name": "weights"}, BAD]}, out=here / "run", engine="serial", log=["mlflow"])
    client = mlflow.MlflowClient(f"sqlite:///{here / 'run' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny").experiment_id
    found = {r.info.run_name: r for r in client.search_runs([experiment])}
    assert {name: r.info.status for name, r in found.items()} == {
        "weights, 50 %, seed 0": "FINISHED", "bad / variant, 50 %, seed 0": "FAILED",
    }  # fmt: skip
    bad, good = found["bad / variant, 50 %, seed 0"], found["weights, 50 %, seed 0"]
    assert bad.data.tags["prunescope.reason"] == "RuntimeError: no scores"
    assert bad.data.params["prune.criterion"] == "badcriterion:broken"
    assert {k: good.data.params[k] for k in ("variant", "sparsity", "seed", "training.epochs")} == {
        "variant": "weights", "sparsity": "0.5", "seed": "0", "training.epochs": "3",
    }  # fmt: skip
    history = client.get_metric_history(good.info.run_id, "loss/train")
    assert [m.step for m in history] == [0, 1, 2, 3, 3, 3, 4, 5]
    assert {m.value for m in history} <= set(values(run, "loss", "train"))
    final = run.records[(run.records["phase"] == "final") & (run.records["split"] == "test")].set_index("metric")["value"]
    assert good.data.metrics["final/accuracy/test"] == pytest.approx(final["accuracy"])
    ps.run({**TINY, "variant": [{"name": "weights"}]}, out=here / "run", engine="serial", log=["mlflow"])
    assert len(client.search_runs([experiment], filter_string="tags.`prunescope.status` = 'finished'")) == 1


class Failing:
    """A tracker whose server goes away."""

    def __init__(self, following):
        self.told = []

    def begun(self, trial):
        """A trial begins."""

    def facts(self, trial, facts):
        """There are facts."""
        raise ConnectionError("the server is gone\nand more")

    def ended(self, trial):
        """A trial is over."""

    close = ended


def test_a_tracker_that_fails_does_not_touch_the_run(here):
    said = "log x: ended by ConnectionError: the server is gone. The run goes on"
    with pytest.warns(UserWarning, match=said), Tracking(here / "run", {"x": Failing}):
        run = ps.run(TINY, out=here / "run", engine="serial")
    assert run.trials["status"].tolist() == ["finished"]


def test_mistakes_are_told_before_anything_runs(here, monkeypatch, capsys):
    with pytest.raises(ConfigError, match=r"unknown tracker 'tensorbord': did you mean 'tensorboard'"):
        ps.run(TINY, out=here / "run", log=["tensorbord"])
    with pytest.raises(ConfigError, match="expected a place behind the sign"):
        trackers(["mlflow="], here)
    assert not (here / "run").exists()
    for name in ("tensorboard", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    for name in ("tensorboard", "mlflow"):
        with pytest.raises(MissingExtraError, match=rf"--log {name} needs the package {name} .*pip install 'prunescope\[track\]'"):
            trackers([name], here)
    monkeypatch.setattr(sys, "argv", ["prunescope", "run", "quickstart", "--log", "mlflow", "--out", str(here / "run")])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_facts_are_told_once_and_have_names():
    trial, told = Followed("trials/a", "a"), Told()
    first = [Fact("loss", "train", e, "train", "", "", 1.0 - e) for e in (0.0, 1.0)]
    assert told.new(trial, first) == [("loss/train", 0, 1.0), ("loss/train", 1, 0.0)]
    later = [Fact("loss", "pruned", 0.0, "train", "", "", 2.0), Fact("loss", "finetune", 1.0, "train", "", "", math.nan)]
    found = told.new(trial, [first[1], *later])
    assert [(name, step) for name, step, _ in found] == [("loss/train", 1), ("loss/train", 2)]
    trial.facts = [*first, *later, Fact("bytes", "final", 0.0, "", "", "", 80.0), Fact("entropy", "train", 0.0, "", "fc", "binning", 1.0)]
    assert told.new(trial, trial.facts) == [("final/bytes", 1, 80.0)]
    assert tag(Fact("sparsity", "pruned", 0.0, "", "fc1.weight", "", 0.5)) == "sparsity/fc1.weight"
    variants = [{"name": "v", "prune": {"criterion": "b"}}]
    config = {"data": {"name": "digits"}, "prune": {"criterion": "a", "layers": None}, "variant": variants}
    trial.variant, trial.sparsity = "v", 0.5
    assert parameters(trial, config) == {"variant": "v", "sparsity": 0.5, "seed": 0, "data.name": "digits", "prune.criterion": "b"}
