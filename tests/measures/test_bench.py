"""The bench: what it says of networks whose times are made up, its files, and its command."""

import json

import pytest
import torch
from torch import nn

import prunescope as ps
from commands import prunescope
from prunescope.experiments.opening import opened
from prunescope.measures import breakeven, comparison
from prunescope.measures.backends.sparse import CsrLinear
from prunescope.measures.breakeven import WHOLE, sparsified
from prunescope.measures.comparison import bench
from prunescope.measures.timing import Timing
from prunescope.types import ConfigError


def made_up(kept: int, size: int, *, csr: bool) -> Timing:
    """Dense takes a millisecond a thousand weights; CSR four times as long a weight that is kept: break-even at 75 %."""
    milliseconds = (4 * kept if csr else size) / 1000
    return Timing(tuple(milliseconds * (1 + 0.001 * i) for i in range(-4, 5)), 1)


def pretended(calls, **_):
    """A time for each call from what its network is made of."""
    found = {}
    for name, call in calls.items():
        layers = [m for m in call.ready.run.modules() if isinstance(m, CsrLinear | nn.Linear)]
        kept = sum(m.values.numel() if isinstance(m, CsrLinear) else int(m.weight.count_nonzero()) for m in layers)
        size = sum(m.shape[0] * m.shape[1] if isinstance(m, CsrLinear) else m.weight.numel() for m in layers)
        found[name] = made_up(kept, size, csr=call.ready.backend == "csr")
    return found


@pytest.fixture
def pretend(monkeypatch):
    """All clocks that the bench looks at are made up, and CSR is chosen for every layer."""
    from prunescope.measures.backends import sparse

    monkeypatch.setattr(comparison, "compared", pretended)
    monkeypatch.setattr(breakeven, "compared", pretended)
    monkeypatch.setattr(sparse, "_faster", lambda *_: True)


def nets():
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 5)).train()
    return {"dense": dense, "sparse": sparsified(dense, 0.9)}


def test_networks_side_by_side(pretend, tmp_path):
    given = nets()
    found = bench(given, torch.randn(3, 20), backends=["eager", "csr", "2:4"], batch_sizes=[8], break_even=True)
    assert given["dense"].training, "the user's networks are left as they were"
    assert found.sizes["dense"]["macs_nonzero"] == 20 * 40 + 1600 + 200
    assert found.sizes["sparse"]["macs_nonzero"] == 260
    assert found.sizes["sparse"]["macs"] == found.sizes["dense"]["macs"] == 2600
    assert found.reference == {8: "dense on eager"}
    table = found.to_frame().set_index(["model", "backend", "batch_size"])
    assert table.loc[("dense", "eager", 8), "speedup"] == 1
    assert table.loc[("sparse", "eager", 8), "speedup"] == 1, "zeros in dense tensors buy nothing"
    assert table.loc[("sparse", "csr", 8), "speedup"] == pytest.approx(2.5)
    assert table.loc[("dense", "csr", 8), "speedup"] == pytest.approx(0.25)
    assert "compute capability" in table.loc[("dense", "2:4", 8), "reason"]
    whole = [b for b in found.break_evens if b.what == WHOLE and b.backend == "csr"]
    assert [b.sparsity for b in whole] == [pytest.approx(0.75, abs=0.005)]
    layers = {(b.what, b.rows) for b in found.break_evens if b.what != WHOLE}
    assert layers == {(f"Linear {a}", 8) for a in ("20 x 40", "40 x 40", "40 x 5")}
    assert all(b.sparsity == pytest.approx(0.75, abs=0.01) for b in found.break_evens if b.backend == "csr")
    assert all("compute capability" in b.reason for b in found.break_evens if b.backend == "2:4")
    written = found.save(tmp_path / "out", kinds=["svg"])
    assert {p.name for p in written} == {"bench.json", "bench.csv", "latency.svg", "break-even.svg"}
    stored = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert stored["reference"] == {"8": "dense on eager"}
    assert stored["break_evens"][0]["points"][0]["sparsity"] == 0.5
    titles = [axis.get_title("left").split("\n")[0] for axis in found.plot_break_even().axes if axis.get_visible()]
    assert titles == ["Linear 20 x 40, 8 rows", "Linear 40 x 40, 8 rows", "Linear 40 x 5, 8 rows", "whole network, batch 8"]
    assert found.plot().axes[0].get_xlabel() == "milliseconds"


def test_wrong_requests_are_named():
    net = nn.Linear(3, 2)
    with pytest.raises(ConfigError, match="expected fractions removed"):
        bench(net, torch.randn(2, 3), levels=[0.9, 0.5])
    with pytest.raises(ConfigError, match=r"expected a torch\.nn\.Module"):
        bench({"a": 3}, torch.randn(2, 3))
    with pytest.raises(ConfigError, match="no network"):
        bench({}, torch.randn(2, 3))
    with pytest.raises(ConfigError, match="a batch of 0"):
        bench(net, torch.randn(2, 3), batch_sizes=[0])


QUICK = ("--backends", "eager", "--batch-sizes", "2", "--seconds", "0.001")


def test_command_for_models_by_name_and_files(pretend, monkeypatch, capsys, tmp_path):
    from prunescope.models import build
    from prunescope.training import save_weights

    model = build("mlp", input_shape=(6,), classes=3, seed=0, options={"widths": [8]})
    ps.prune(model, sparsity=0.5, output=True)
    save_weights(model, tmp_path / "pruned.safetensors")
    named = ("bench", "mlp", f"mlp@{tmp_path / 'pruned.safetensors'}", "--input", "6", "--classes", "3", "-s", "widths=[8]")
    assert prunescope(monkeypatch, *named, "--backends", "eager,csr", "--break-even", "--levels", "0.5,0.9", "--batch-sizes", "2") == 0
    printed = capsys.readouterr().out
    assert "speed-up over mlp on eager" in printed
    assert "bitmask" in printed
    assert "75 %" in printed


def test_command_for_a_run(monkeypatch, capsys, tmp_path):
    settings = {
        "name": "tiny", "baseline": "dense", "seeds": 2, "sparsity": [0.5],
        "data": {"name": "digits", "flatten": True, "classes": [0, 1]}, "model": {"name": "mlp", "widths": [6]},
        "training": {"epochs": 1, "batch_size": 64}, "measure": {"epochs": "none"},
        "variant": [{"name": "dense", "prune": {"when": "never"}}, {"name": "trained"}],
    }  # fmt: skip
    run = ps.run(settings, out=tmp_path / "tiny", engine="serial")
    found = opened(str(run.folder))
    assert [one.name for one in found] == ["dense, 0 %, seed 0", "trained, 50 %, seed 0"], "one trial of each variant and sparsity"
    weights = dict(found[1].model.named_parameters())
    assert sum(int((weights[n] == 0).sum()) for n in weights) >= 64 * 6 // 2, "as it ended"
    assert found[0].x.shape[1:] == (64,), "on samples of its own data"
    last = run.trials["hash"].iloc[-1]
    for what in (f"{run.folder}:{last[:10]}", str(run.folder / "trials" / last)):
        assert [one.name for one in opened(what)] == ["trained, 50 %, seed 1"]
    assert prunescope(monkeypatch, "bench", f"{run.folder}:{last}", *QUICK) == 0
    assert "multiply-adds" in capsys.readouterr().out
    assert prunescope(monkeypatch, "bench", f"{run.folder}:zzz", *QUICK) == 1
    assert "no finished trial begins with zzz" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("mlp",), "no shape of a sample is known"),
        (("mlp", "--input", "six"), "the shape of a sample, e.g. 1,28,28"),
        (("mlp", "--input", "6", "--backends", "eagr"), "did you mean 'eager'"),
        (("mlp", "--input", "6", "--levels", "a"), "fractions removed"),
        (("file.bin",), "expected a run folder, a trial, or a model's name"),
        (("file.safetensors",), "say what network it belongs to: NAME@file.safetensors"),
    ],
)
def test_mistakes_are_one_sentence(monkeypatch, capsys, tmp_path, words, said):
    monkeypatch.chdir(tmp_path)
    for name in ("file.bin", "file.safetensors"):
        (tmp_path / name).write_text("x")
    assert prunescope(monkeypatch, "bench", *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
