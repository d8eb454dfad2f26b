"""`prunescope prune module:function`: one's own trained network becomes a smaller one, a report and a file that is read again."""

import sys

import pytest
import torch
from torch import nn

import prunescope as ps
from commands import prunescope
from prunescope.config import PruneConfig, TrainingConfig
from prunescope.experiments.own import Network, network, shrink
from prunescope.types import ConfigError, DataError, PruningError

CODE = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def data():
    x = torch.randn(400, 12, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] + x[:, 1] > 0).long()


def network(width=24, loss=None):
    torch.manual_seed(0)
    x, y = data()
    model = nn.Sequential(nn.Linear(12, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[:300]), y[:300]).backward()
        optimizer.step()
    train = DataLoader(TensorDataset(x[:300], y[:300]), batch_size=50, shuffle=True)
    test = DataLoader(TensorDataset(x[300:], y[300:]), batch_size=50)
    return {"model": model, "train": train, "test": test, "loss": loss or "cross-entropy"}


def bare():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 16))


def pair():
    return bare(), 3


def raises():
    raise RuntimeError("no weights here")


def keys():
    return {"model": bare(), "trian": 1}


def number():
    return 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "ownnet", raising=False)
    (tmp_path / "ownnet.py").write_text(CODE)
    yield tmp_path
    sys.modules.pop("ownnet", None)


def test_from_a_network_to_a_smaller_one_a_report_and_a_file(here, monkeypatch, capsys):
    words = ("--sparsity", "0.5", "--granularity", "neuron", "--criterion", "taylor", "-s", "finetune.epochs=2", "-s", "width=32")
    code = prunescope(monkeypatch, "prune", "ownnet:network", *words, "--out", "small.safetensors", "--report", "run")
    printed = capsys.readouterr().out
    assert code == 0, printed
    for stage in ("as given", "pruned", "fine-tuned", "compacted", "read again: the same outputs"):
        assert stage in printed
    import ownnet

    fresh = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))
    small = ps.load_compact(fresh, "small.safetensors")
    assert small[0].weight.shape == (16, 12)
    assert small[2].weight.shape == (16, 16)
    x, y = ownnet.data()
    accuracy = ps.measure(small, (x[300:], y[300:]), ["accuracy"])["accuracy"].value
    assert accuracy > 0.9
    run = ps.load("run")
    assert run.trials[["variant", "sparsity", "status"]].values.tolist() == [["as given", 0.0, "finished"], ["pruned", 0.5, "finished"]]
    compacted = run.records[(run.records["phase"] == "compacted") & (run.records["split"] == "test")].set_index("metric")["value"]
    assert compacted["accuracy"] == pytest.approx(accuracy)
    curve = run.records[(run.records["phase"] == "finetune") & (run.records["metric"] == "loss")]
    assert set(curve["epoch"]) == {0.0, 1.0, 2.0}
    page = (here / "run" / "report.html").read_text()
    assert "prunescope prune ownnet:network" in page


def test_the_formats_of_a_network_that_is_only_masked(here, monkeypatch, capsys):
    assert prunescope(monkeypatch, "prune", "ownnet:bare", "--nm", "2:4", "--exclude", "0", "-s", "prune.output=true", "--input", "6") == 0
    assert "zeros alone make nothing smaller" in capsys.readouterr().out
    words = ("--input", "6", "--sparsity", "0.5", "-s", "prune.output=true", "--no-compact", "--out")
    assert prunescope(monkeypatch, "prune", "ownnet:bare", *words, "masked.safetensors") == 0
    assert ps.Masks.load("masked.safetensors.masks").sparsity() == 0.5
    assert prunescope(monkeypatch, "prune", "ownnet:bare", *words, "masked.pt2") == 0
    assert (here / "masked.pt2.md").is_file()
    assert "batches of 2 and 7" in capsys.readouterr().out


def test_a_loss_of_ones_own_and_data_in_tensors(here):
    torch.manual_seed(0)
    x = torch.randn(100, 12)
    net = Network(nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 1)), (x, x[:, :1]), loss=nn.functional.mse_loss)
    found = shrink(net, PruneConfig(granularity="neuron"), sparsity=0.5, finetune=TrainingConfig(epochs=3, optimizer="adam", lr=0.01))
    assert list(found.stages) == ["as given", "pruned", "fine-tuned", "compacted"]
    assert "accuracy" not in found.stages["pruned"]
    assert found.stages["fine-tuned"]["loss"].value < found.stages["pruned"]["loss"].value
    assert found.stages["compacted"]["loss"].value == pytest.approx(found.stages["fine-tuned"]["loss"].value, rel=1e-5)
    with pytest.raises(DataError, match="train is a list_iterator, which can be gone through only once"):
        Network(net.model, iter([(x, x)]))
    with pytest.raises(PruningError, match=r"gave a int: expected \(inputs, labels\)"):
        shrink(Network(net.model, [3]), PruneConfig(), sparsity=0.5, finetune=TrainingConfig(epochs=0))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ownnet:bare", "--sparsity", "0.5", "--out", "x.zip"), "ends in .safetensors, .onnx, .pt2"),
        (("ownnet:bare",), "expected --sparsity FRACTION"),
        (("ownnet:bare", "--sparsity", "0.5", "--out", "x.pt2"), "give data or --input SHAPE"),
        (("ownnet:bare", "--sparsity", "0.5", "--input", "6", "--report", "r"), "a report needs training data"),
        (("ownnet:bare", "--sparsity", "0.5", "-s", "finetune.epochs=1"), "let the function return (model, train loader)"),
        (("ownnet:bare", "--sparsity", "0.5", "--calibration", "x.npz"), "of hf:PATH alone"),
        (("ownnet:bare", "--sparsity", "0.5", "--input", "six"), "whole numbers separated by commas"),
        (("ownnet:bare", "--sparsity", "0.5", "-s", "width=3"), "unexpected keyword argument 'width'"),
        (("ownnet:bare", "--sparsity", "0.5", "--granularity", "chanel"), "did you mean 'channel'"),
        (("ownnet:pair", "--sparsity", "0.5"), "train is a int"),
        (("ownnet:raises", "--sparsity", "0.5"), "raised RuntimeError: no weights here"),
        (("ownnet:keys", "--sparsity", "0.5"), "the keys trian: known are model"),
        (("ownnet:number", "--sparsity", "0.5"), "returned a int: expected a torch.nn.Module"),
        (("ownnet:nobody", "--sparsity", "0.5"), "unknown function"),
        (("hf:ownnet", "--sparsity", "0.5", "--report", "r"), "--report: of module:function alone"),
        (("hf:ownnet", "--sparsity", "0.5"), "expected --out FOLDER"),
    ],
)
def test_mistakes_are_one_sentence(here, monkeypatch, capsys, words, said):
    assert prunescope(monkeypatch, "prune", *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_what_a_function_may_return(here):
    assert network("ownnet:network", {"width": 8}).loss == "cross-entropy"
    assert network("ownnet:bare", {}).train is None
    with pytest.raises(ConfigError, match="unknown loss 'mse'"):
        network("ownnet:network", {"loss": "mse"})
