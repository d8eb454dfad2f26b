"""The same code on a GPU: what it computes there is what it computes on the processor. Skipped where torch sees no GPU."""

import copy
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import prunescope as ps
from prunescope.experiments.checkpoints import Checkpoints
from prunescope.registry import criteria
from zoo import ZOO, difference

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))
contracts = importlib.import_module("test_estimators")
axes = importlib.import_module("test_pruning_axes")

DEVICE = "cuda"
COMPACTED = (
    "lenet_5", "resnet", "densenet", "mobilenet_v2", "unet", "vit", "gpt", "llama", "swin", "hf_bert", "lstm", "encoderdecoder", "wavenet",
)  # fmt: skip
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch sees")

SMALL = {
    "name": "on a gpu",
    "seeds": 2,
    "sparsity": [0.5],
    "data": {"name": "digits", "flatten": True, "classes": [0, 1, 2], "train_size": 150},
    "model": {"name": "mlp", "mlp": {"widths": [8, 6], "activation": "tanh"}},
    "training": {"epochs": 4, "batch_size": 32, "optimizer": "adam", "lr": 0.01},
    "measure": {
        "gradients": True,
        "latency": True,
        "plane": {"estimators": [{"name": "binning", "bins": 8, "range": "auto"}, {"name": "kde"}, {"name": "ksg"}]},
    },
    "variant": [
        {"name": "dense", "prune": {"when": "never"}},
        {"name": "init", "prune": {"when": "init", "criterion": "snip"}, "training": {"optimizer": "sgd", "lr": 0.1}},
        {"name": "units", "prune": {"when": "trained", "granularity": "neuron"}, "finetune": {"epochs": 2}},
        {"name": "rounds", "prune": {"when": "iterative", "rounds": 2}, "finetune": {"epochs": 2}},
        {"name": "ticket", "prune": {"when": "rewind", "rate": 0.3, "rewind": 1}},
        {"name": "during", "prune": {"when": "during", "every": 2, "every_in": "steps", "criterion": "taylor"}},
        {"name": "rigl", "prune": {"when": "dynamic", "grow": "rigl", "every": 2, "every_in": "steps"}, "finetune": {"epochs": 2}},
        {
            "name": "filters",
            "data": {"flatten": False},
            "model": {"name": "vgg", "stages": [[4]]},
            "prune": {"when": "trained", "granularity": "filter"},
            "finetune": {"epochs": 2, "recalibrate_batchnorm": True},
        },
    ],
}
SETTINGS = ["variant", "sparsity", "seed", "metric", "phase", "epoch", "split", "layer", "estimator", "unit"]


def finals(run, metric: str):
    rows = run.records[(run.records["metric"] == metric) & (run.records["phase"] == "final") & (run.records["layer"] == "")]
    return rows.set_index(["variant", "seed", "split"])["value"].sort_index()


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return ps.run(SMALL, out=tmp_path_factory.mktemp("here") / "run", engine="serial", device=DEVICE, stack="off")


def test_an_experiment_records_the_same_facts_as_on_the_processor(here, tmp_path):
    there = ps.run(SMALL, out=tmp_path / "run", engine="serial", device="cpu", stack="off")
    assert set(here.trials["status"]) == set(there.trials["status"]) == {"finished"}
    facts = [r.records[SETTINGS].sort_values(SETTINGS).reset_index(drop=True) for r in (here, there)]
    assert facts[0].equals(facts[1])
    assert finals(here, "sparsity").tolist() == finals(there, "sparsity").tolist()
    assert (finals(here, "accuracy") - finals(there, "accuracy")).abs().max() < 0.1  # other sums in another order, 4 epochs of them


def test_trials_that_train_together_and_in_workers_give_what_single_ones_do(here, tmp_path):
    together = ps.run(SMALL, out=tmp_path / "together", engine="serial", device=DEVICE, stack="on")
    workers = ps.run(SMALL, out=tmp_path / "workers", engine="processes", jobs=2, device=DEVICE, stack="off")
    for run in (together, workers):
        assert set(run.trials["status"]) == {"finished"}
        assert np.allclose(finals(run, "sparsity"), finals(here, "sparsity"))
        assert (finals(run, "accuracy") - finals(here, "accuracy")).abs().max() < 0.1


@pytest.mark.parametrize("stack", ["on", "off"])
def test_a_training_goes_on_from_its_checkpoint_to_the_same_bits(tmp_path, monkeypatch, stack):
    config = {**SMALL, "measure": {"gradients": True}}
    whole = ps.run(config, out=tmp_path / "whole", engine="serial", device=DEVICE, stack=stack)
    real = Checkpoints.reached
    for epochs in (3, 7, 12, 5):
        seen = []

        def reached(self, *arguments, seen=seen, epochs=epochs, **more):
            real(self, *arguments, **more)
            seen.append(1)
            if len(seen) == epochs:
                raise KeyboardInterrupt

        monkeypatch.setattr(Checkpoints, "reached", reached)
        with pytest.raises(KeyboardInterrupt):
            ps.run(config, out=tmp_path / "killed", engine="serial", device=DEVICE, stack=stack, checkpoint=0)
    monkeypatch.setattr(Checkpoints, "reached", real)
    again = ps.run(config, out=tmp_path / "killed", engine="serial", device=DEVICE, stack=stack, checkpoint=0)
    values = [r.records.set_index(SETTINGS)["value"].sort_index() for r in (whole, again)]
    convolutions = values[0].index.get_level_values("variant") == "filters"
    assert values[0][~convolutions].equals(values[1][~convolutions])
    assert np.allclose(values[0], values[1], rtol=1e-5, atol=1e-5, equal_nan=True)  # pooling, too, adds up as threads come


@pytest.mark.parametrize("name", [n for n in contracts.NAMES if n != "auto"])
def test_estimators_say_on_the_gpu_what_they_say_on_the_processor(name):
    x, y = contracts.sample(name, dependent=True)
    there, here = contracts.value(name, x, y), contracts.value(name, x.to(DEVICE), y.to(DEVICE))
    assert here.value == pytest.approx(there.value, abs=0.08 if name in contracts.TRAINED else 1e-8)
    assert here.flags == there.flags
    if name not in contracts.TRAINED:
        both = [contracts.value(name, a, b, uncertainty="auto") for a, b in ((x, y), (x.to(DEVICE), y.to(DEVICE)))]
        assert both[0].flags == both[1].flags


@pytest.mark.parametrize("criterion", criteria.names())
@pytest.mark.parametrize(("kind", "granularity"), [("mlp", "weight"), ("mlp", "neuron"), ("cnn", "filter")])
def test_criteria_choose_on_the_gpu_what_they_choose_on_the_processor(criterion, kind, granularity):
    if words := axes.refusal(criterion, granularity, kind):
        pytest.skip(words)
    options = {"criterion": criterion, "granularity": granularity, "sparsity": 0.5, "allow_empty": True}
    more = axes.setting(kind, criterion)
    there = ps.prune(axes.network(kind), **options, **more)
    x, y = more["data"]
    moved = {**more, "data": (x.to(DEVICE), y.to(DEVICE)), "example_inputs": more["example_inputs"].to(DEVICE)}
    moved["initial"] = {n: p.detach().to(DEVICE) for n, p in more["initial"].items()}
    model = axes.network(kind).to(DEVICE)
    here = ps.prune(model, **options, **moved)
    assert all(p.is_cuda == (DEVICE == "cuda") for p in model.parameters())
    for name, mask in there.items():
        assert int(mask.sum()) == int(here[name].sum())
        if "generator" not in criteria.get(criterion).needs:  # a device draws numbers of its own
            assert (mask == here[name].cpu()).float().mean() >= 0.95, name  # scores that differ in the last bit may change places


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", COMPACTED)
def test_compacting_happens_where_the_network_is(name):
    if ZOO[name].missing:
        pytest.skip(f"{name} needs {ZOO[name].missing}")
    model, example = ZOO[name]()
    model, example = model.to(DEVICE), tuple(e.to(DEVICE) for e in example)
    masks = ps.prune(model, sparsity=0.5, granularity="channel", example_inputs=example, options={"least": 1})
    small, report = ps.compact(model, masks, example_inputs=example)
    assert {t.device.type for t in small.state_dict().values()} == {DEVICE}
    inputs = tuple(i.to(DEVICE) for i in ZOO[name].inputs(7, seed=1))
    with torch.backends.cudnn.flags(allow_tf32=False):  # TensorFloat32 is 1e-3 from single precision
        assert difference(small, model, inputs) <= 1e-5
    assert report.exact
    assert report.after < 0.8 * report.before


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 64))


def test_measures_tell_the_time_and_the_memory_of_the_gpu():
    model = network().to(DEVICE)
    x, y = torch.randn(256, 512, device=DEVICE), torch.zeros(256, dtype=torch.long, device=DEVICE)
    found = ps.measure(model, (x, y), ["accuracy", "latency", "memory", "flops", "size"], batch_size=256)
    assert found["latency_ms"].value > 0
    assert found["flops"].value == 2 * (512 * 1024 + 1024 * 1024 + 1024 * 64)
    assert found["peak_memory"].parameters["method"] == "torch.cuda.max_memory_allocated"
    assert found["peak_memory"].value >= 256 * 1024 * 4


def test_two_of_four_runs_where_the_kernels_are():
    if torch.cuda.get_device_capability()[0] < 8:
        pytest.skip("2:4 kernels need compute capability 8.0")
    model = network().to(DEVICE).half().eval()
    pruned = copy.deepcopy(model)
    ps.prune(pruned, granularity="2:4")
    x, models = torch.randn(256, 512, device=DEVICE).half(), {"dense": model, "2:4": pruned}
    found = ps.bench(models, x, backends=["eager", "2:4"], batch_sizes=[256], seconds=0.2)
    (row,) = [r for r in found.rows if (r.model, r.backend) == ("2:4", "2:4")]
    assert not row.reason
    assert row.latency_ms > 0
    assert row.error <= 1e-2


def test_export_from_the_gpu(tmp_path):
    pytest.importorskip("onnxruntime")
    model = network().to(DEVICE).eval()
    # raises where the file computes something else
    ps.export_model(model, tmp_path / "model.onnx", example_inputs=torch.randn(2, 512, device=DEVICE))
    assert (tmp_path / "model.onnx").stat().st_size > 4 * 512 * 1024
