"""Distillation, int8 and files in experiments: what is recorded and stored, that trials of before stay what they were, and reading back."""

import copy
import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

import prunescope as ps
from commands import prunescope
from prunescope.experiments.execution import Execution
from prunescope.experiments.planning import plan
from prunescope.experiments.saved import open_saved
from prunescope.experiments.tasks import Task, batches
from prunescope.experiments.together import carry_out
from prunescope.experiments.trial import trial_steps
from prunescope.measures.quality import batched
from prunescope.types import ConfigError, StoreError

CONFIG = {
    "name": "tiny", "seeds": 2, "sparsity": [0.75], "data": {"name": "digits", "train_size": 300, "flatten": True, "scale": "standard"},
    "model": {"name": "mlp", "widths": [24, 12]}, "training": {"epochs": 3, "optimizer": "adam", "lr": 1e-2},
    "finetune": {"epochs": 2}, "measure": {"epochs": "none", "histogram_bins": 0},
}  # fmt: skip
TAUGHT = {"finetune.distill.alpha": 0.9, "finetune.distill.temperature": 2.0}


def test_settings_at_their_defaults_change_no_hash():
    plain = plan(CONFIG).trials[0]
    told = {"finetune.distill.alpha": 0.0, "quantize": {"weights": "float", "aware": False}, "deploy": {"compact": False, "formats": []}}
    assert plan(CONFIG, told).trials[0].hash == plain.hash == "6fa2c7551ac45c84", "the hash of before these settings were there"
    pairs = (("finetune.distill.alpha", 0.1), ("quantize.weights", "int8"), ("deploy.compact", True))
    changed = [plan(CONFIG, [pair]).trials[0] for pair in pairs]
    assert len({plain.hash, *(t.hash for t in changed)}) == 4
    assert {t.dense_hash for t in changed} == {plain.dense_hash}, "they share the training before pruning"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prune.when": "init", **TAUGHT}, "needs a trained dense network"),
        ({"finetune.epochs": 0, **TAUGHT}, "finetune.distill.alpha takes place in fine-tuning"),
        ({"training.loss": "binary-cross-entropy", **TAUGHT}, "distribution over classes"),
        ({"quantize": {"aware": True}}, "nothing to get used to"),
        ({"quantize": {"weights": "int8", "aware": True, "activations": "static"}}, "no static ones"),
        ({"finetune.epochs": 0, "quantize": {"weights": "int8", "aware": True}}, "quantize.aware takes place in fine-tuning"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        plan(CONFIG, changes)


def test_the_teacher_is_the_dense_network_before_pruning():
    trial = plan(CONFIG, TAUGHT).trials[0]
    work = Execution(trial, data_dir=None, device="cpu")
    steps = trial_steps(work, None)
    training = next(steps)
    assert (training.phase, training.teaching) == ("train", None)
    carry_out([training], stack="off")
    dense = copy.deepcopy(work.model)
    tuning = next(steps)
    assert tuning.phase == "finetune"
    assert (work.model.fc1.weight == 0).any()
    assert torch.equal(tuning.teaching.outputs, batched(dense, work.data.train.x)), "unmasked"
    carry_out([tuning], stack="off")
    assert list(steps) == []
    assert torch.equal(work.teaching.outputs, batched(dense, work.data.train.x)), "frozen"
    assert not work.teaching.outputs.requires_grad


def test_taught_and_aware_trials_go_one_by_one_and_the_log_says_why(tmp_path):
    aware = {"quantize": {"weights": "int8", "aware": True}}
    for changes, why in ((TAUGHT, "learns from its own dense one"), (aware, "compute as int8 will")):
        tasks = [Task(t, tmp_path, None, "cpu") for t in plan(CONFIG, changes).trials]
        found, texts = batches(tasks, lambda t: t.kind, stack="on", jobs=1)
        assert [len(b.tasks) for b in found] == [1, 1]
        assert "one by one" in texts[0]
        assert why in texts[0]


def final(run, phase="final", metric="loss"):
    mine = run.records[(run.records["phase"] == phase) & (run.records["metric"] == metric) & run.records["split"].isin(["test", ""])]
    return mine.sort_values("seed").drop_duplicates("seed", keep="last")["value"].to_numpy()


def test_a_teacher_changes_the_results(tmp_path):
    plain = ps.run(CONFIG, out=tmp_path / "run", engine="serial")
    taught = ps.run(CONFIG, overrides=TAUGHT, out=tmp_path / "run", engine="serial")
    assert (taught.trials["status"] == "finished").all()
    assert (final(plain) != final(taught)).all()
    alone = ps.run(CONFIG, overrides={**TAUGHT, "seeds": [1]}, out=tmp_path / "alone", engine="serial")
    assert np.allclose(final(alone), final(taught)[1:], rtol=1e-5)


@pytest.fixture(scope="module")
def int8_run(tmp_path_factory):
    pytest.importorskip("torchao")
    changes = {"quantize": {"weights": "int8"}, "deploy.formats": ["safetensors"], "measure.latency": True, "prune.granularity": "neuron"}
    return ps.run(CONFIG, overrides=changes, out=tmp_path_factory.mktemp("int8") / "run", engine="serial")


def test_int8_is_recorded_beside_floating_point(int8_run):
    assert (int8_run.trials["status"] == "finished").all(), int8_run.trials["reason"].tolist()
    weights, rows, biases = 64 * 24 + 24 * 12 + 12 * 10, 24 + 12 + 10, 24 + 12 + 10
    assert final(int8_run, metric="bytes").tolist() == [4 * (weights + biases)] * 2
    assert final(int8_run, "quantised", "bytes").tolist() == [weights + 4 * (rows + biases)] * 2
    assert final(int8_run, "quantised", "int8_weights").tolist() == [weights] * 2
    assert np.abs(final(int8_run, "quantised") - final(int8_run)).max() < 0.05
    assert (final(int8_run, "quantised") != final(int8_run)).all()
    assert (final(int8_run, "quantised", "latency_ms") > 0).all()
    file = int8_run.folder / "trials" / int8_run.trials["hash"][0] / "model.safetensors"
    assert final(int8_run, "quantised", "bytes_safetensors")[0] == file.stat().st_size
    with safetensors.safe_open(file, framework="pt") as opened:
        assert opened.get_tensor("fc1.weight").dtype == torch.int8
    assert "| accuracy |" in file.with_name("model.safetensors.md").read_text()


def test_fine_tuning_that_knows_of_int8_gives_another_network(int8_run, tmp_path):
    changes = {"quantize": {"weights": "int8", "aware": True}, "seeds": 1, "prune.granularity": "neuron"}
    aware = ps.run(CONFIG, overrides=changes, out=tmp_path / "aware", engine="serial")
    assert (aware.trials["status"] == "finished").all(), aware.trials["reason"].tolist()
    assert final(aware)[0] != final(int8_run)[0]
    assert abs(final(aware, "quantised")[0] - final(aware)[0]) < 0.05
    sparsity = aware.records[(aware.records["metric"] == "sparsity") & (aware.records["layer"] == "fc1.weight")]
    assert sparsity.set_index("phase")["value"]["final"] == 0.75, "masks hold"


def said_by(capsys, monkeypatch, *words: str) -> tuple[int, str]:
    """Exit code, and what was printed, of the command line."""
    code = prunescope(monkeypatch, *words)
    printed = capsys.readouterr()
    return code, printed.out + printed.err


@pytest.mark.parametrize("hold_masks", [True, False])
def test_a_trial_is_compacted_as_it_ended_and_loads_in_another_process(tmp_path, capsys, monkeypatch, hold_masks):
    changes = {"seeds": 1, "prune.granularity": "neuron", "finetune.hold_masks": hold_masks, "model.activation": "tanh"}  # relu stays dead
    run = ps.run(CONFIG, overrides=changes, out=tmp_path / "run", engine="serial", stack="off")
    whole = open_saved(f"{run.folder}:{run.trials['hash'][0]}", stage="final")
    for where in (f"{run.folder}:{run.trials['hash'][0][:5]}", str(whole.place), f"{run.folder}:best"):
        code, said = said_by(capsys, monkeypatch, "compact", where)
        assert code == 0, said
    assert (whole.place / "compact.safetensors").is_file()
    inputs = torch.randn(5, 64, generator=torch.Generator().manual_seed(1))
    safetensors.torch.save_file({"x": inputs}, tmp_path / "x.safetensors")
    script = f"""
import safetensors.torch, prunescope as ps, prunescope.models as models
fresh = models.build("mlp", input_shape=(64,), classes=10, seed=9, options={{"widths": [24, 12], "activation": "tanh"}})
small = ps.load_compact(fresh, {str(whole.place / "compact.safetensors")!r}).eval()
x = safetensors.torch.load_file({str(tmp_path / "x.safetensors")!r})["x"]
safetensors.torch.save_file({{"y": small(x).detach()}}, {str(tmp_path / "y.safetensors")!r})
print(small.fc1.weight.shape[0])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == (6 if hold_masks else 24), "units that grew back are part of the network"
    y = safetensors.torch.load_file(tmp_path / "y.safetensors")["y"]
    assert torch.allclose(y, whole.model(inputs), atol=1e-5)


def test_compact_names_what_it_was_not_given(tmp_path, capsys, monkeypatch):
    code, said = said_by(capsys, monkeypatch, "compact", "mpl", "--input", "4")
    assert (code, "did you mean 'mlp'" in said) == (2, True), said
    code, said = said_by(capsys, monkeypatch, "compact", str(tmp_path))
    assert (code, "expected a trial" in said) == (2, True), said


def test_a_trial_is_read_back_exported_and_read_from_the_file(int8_run, tmp_path, capsys, monkeypatch):
    first, second = int8_run.trials["hash"]
    with pytest.raises(StoreError, match=f"2 finished trials: name one(.|\n)*{second}  pruned 75 %, seed 1, validation accuracy"):
        open_saved(str(int8_run.folder))
    with pytest.raises(StoreError, match="0 finished trials begin with zz"):
        open_saved(f"{int8_run.folder}:zz")
    with pytest.raises(ConfigError, match="unknown stage 'small'"):
        open_saved(f"{int8_run.folder}:{first}", stage="small")
    whole = open_saved(f"{int8_run.folder}:{first[:6]}", stage="final")
    assert whole.masks is not None
    assert not whole.model.fc1.weight[~whole.masks["fc1.weight"]].any()
    compacted = open_saved(f"{int8_run.folder}:{first}", stage="compacted")
    assert compacted.masks is None
    assert compacted.model.fc1.weight.shape == (6, 64)
    assert torch.allclose(compacted.model(whole.example), whole.model(whole.example), atol=1e-5)
    assert open_saved(f"{int8_run.folder}:best").about["hash"] in (first, second)
    file = tmp_path / "net.safetensors"
    code, said = said_by(capsys, monkeypatch, "export-model", f"{int8_run.folder}:{first}", "--out", str(file))
    assert code == 0
    assert str(file) in said
    assert "last bit" in said
    small = open_saved(f"{int8_run.folder}:{first}")
    again = open_saved(str(file))
    assert torch.equal(again.model(small.example), small.model(small.example))
    assert json.loads(file.with_name("net.safetensors.json").read_text())["about"]["hash"] == first
    pickled = tmp_path / "net.pt"
    torch.save({}, pickled)
    with pytest.raises(ConfigError, match="may run code when they are read"):
        open_saved(str(pickled))


def test_each_stage_is_timed_on_the_named_back_ends_and_a_strange_name_is_refused_before_training(tmp_path):
    deploy = {"compact": True, "backends": ["eager", "csr"], "batch_size": 8}
    config = CONFIG | {"seeds": 1, "training": {"epochs": 1}, "finetune": {"epochs": 0}, "deploy": deploy}
    run = ps.run({**config, "prune": {"granularity": "neuron"}}, out=tmp_path / "run", engine="serial")
    rows = run.records[run.records["metric"] == "backend_ms"]
    named = rows["parameters"].map(json.loads)
    assert sorted(zip(rows["phase"], named.map(lambda d: d["backend"]), strict=True)) == [
        ("compacted", "csr"), ("compacted", "eager"), ("final", "csr"), ("final", "eager"),
    ]  # fmt: skip
    assert (rows["value"] > 0).all()
    assert set(named.map(lambda d: (d["batch_size"], d["threads"]))) == {(8, 1)}
    with pytest.raises(ConfigError, match=r"onnxrutime.*onnxruntime"):
        ps.run({**config, "deploy": {"backends": ["onnxrutime"]}}, out=tmp_path / "other", engine="serial")
