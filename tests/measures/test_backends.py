"""Execution back-ends: each computes what eager torch does, or says why not."""

import copy
import importlib.util
import shutil
import sys

import pytest
import torch
from torch import nn

import prunescope as ps
from prunescope.measures.backends import BackendError, Job, absence, agreement, eager, exact, prepare, sparse
from prunescope.measures.backends.sparse import is_two_of_four, linear_inputs
from prunescope.measures.breakeven import sparsified
from prunescope.measures.timing import Timing
from prunescope.registry import backends
from prunescope.types import ConfigError, DataError, MissingExtraError

NAMES = [pytest.param(n, marks=[pytest.mark.slow] if backends.get(n).traits.get("slow") else []) for n in backends.names()]


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return sparsified(nn.Sequential(nn.Linear(40, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 8)).eval(), 0.9)


@pytest.fixture(scope="module")
def job():
    """Shared by all back-ends, so that the network is converted to ONNX once."""
    return Job(net(), torch.randn(16, 40, generator=torch.Generator().manual_seed(0)), threshold=0.0)


@pytest.mark.parametrize("name", NAMES)
def test_every_back_end_computes_what_eager_torch_does(name, job):
    before = copy.deepcopy(job.model.state_dict())
    reason = absence(backends.get(name))
    if reason is not None:
        with pytest.raises(type(reason)):
            prepare(name, job)
        if not isinstance(reason, MissingExtraError):
            assert "GPU" in str(reason) or "compiler" in str(reason)
        return
    ready = prepare(name, job)
    other = torch.randn(16, 40)
    with torch.no_grad():
        difference = agreement(ready.run(other), job.model(other))
    assert difference <= (1e-5 if exact(name) else 0.1)
    assert (difference > 1e-4) != exact(name), "what claims to be another function is one"
    assert all(torch.equal(before[n], v) for n, v in job.model.state_dict().items()), "the network is left as it was"


def test_csr_takes_sequences_single_rows_and_layers_without_bias():
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(12, 5, bias=False))
    for x in (torch.randn(3, 4, 12), torch.randn(1, 12), torch.randn(1, 1, 12)):
        assert prepare("csr", Job(layer, x, threshold=0.0)).error < 1e-6
    alone = prepare("csr", Job(nn.Linear(12, 5), torch.randn(3, 12), threshold=0.0))
    assert alone.notes == {"converted": [""], "sparsity": {"": 0.0}}


def test_csr_reaches_the_layers_of_torchs_own_encoder():
    """In evaluation mode nn.TransformerEncoderLayer reads its layers' weights and never calls them."""
    block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    x = torch.randn(2, 5, 16)
    assert set(linear_inputs(block, x)) == {"linear1", "linear2"}
    ready = prepare("csr", Job(block, x, threshold=0.0))
    assert ready.notes["converted"] == ["linear1", "linear2"]
    assert ready.error < 1e-5
    assert block.activation_relu_or_gelu, "the user's own block is as it was"


def test_csr_converts_the_layers_in_which_it_is_faster(monkeypatch):
    model = sparsified(nn.Sequential(nn.Linear(40, 64), nn.Linear(64, 8)), 0.8)

    def times(calls, **_):
        wide = calls["dense"]().shape[1] == 64
        return {"made": Timing((1.0,) * 7, 1), "dense": Timing((2.0 if wide else 0.9,) * 7, 1)}

    monkeypatch.setattr(sparse, "compared", times)
    ready = prepare("csr", Job(model, torch.randn(4, 40)))
    assert ready.notes["converted"] == ["0"]
    assert ready.notes["sparsity"] == {"0": 0.8, "1": pytest.approx(0.8, abs=2e-3)}
    with pytest.raises(BackendError, match=r"none of 1 linear layers .*80 to 80 % zeros.* nothing is converted"):
        prepare("csr", Job(model[1], torch.randn(4, 64)))
    with pytest.raises(BackendError, match=r"calls no torch\.nn\.Linear"):
        prepare("csr", Job(nn.Conv2d(1, 2, 3), torch.randn(1, 1, 5, 5)))


def test_a_back_end_of_ones_own_is_checked_too(tmp_path, monkeypatch):
    (tmp_path / "myback.py").write_text(
        "def right(job):\n    return lambda x: job.model(x) * (1 + 1e-6)\n"
        "def wrong(job):\n    return lambda x: job.model(x) * 1.01\n"
        "def broken(job):\n    raise KeyError('no such kernel')\n"
    )
    monkeypatch.chdir(tmp_path)
    job = Job(net(), torch.randn(4, 40))
    assert prepare("myback:right", job).error == pytest.approx(1e-6, rel=0.1)
    with pytest.raises(BackendError, match=r"differ from eager torch's by 0\.01 of their size, more than 0\.0001"):
        prepare("myback:wrong", job)
    with pytest.raises(BackendError, match="KeyError: 'no such kernel'"):
        prepare("myback:broken", job)
    sys.modules.pop("myback")


def test_refusals_say_what_is_missing(monkeypatch):
    job = Job(net(), torch.randn(2, 40))
    with pytest.raises(ConfigError, match=r"compute capability 8\.0 or more, and the model is on cpu"):
        prepare("2:4", job)
    with pytest.raises(ConfigError, match="did you mean 'onnxruntime'"):
        prepare("onnxruntim", job)
    with pytest.raises(BackendError, match="no linear or recurrent layer"):
        prepare("torch-int8", Job(nn.Conv2d(1, 2, 3), torch.randn(1, 1, 5, 5)))
    with pytest.raises(DataError, match="returns a tuple"):
        prepare("eager", Job(nn.LSTM(3, 4), torch.randn(2, 2, 3)))
    with pytest.raises(ConfigError, match="threads 0"):
        Job(net(), torch.randn(2, 40), 0)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name, extra in (("onnxruntime", "export"), ("openvino", "openvino"), ("torchao-int8", "quant")):
        with pytest.raises(MissingExtraError, match=rf"pip install 'prunescope\[{extra}\]'"):
            prepare(name, job)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    assert "C++ compiler" in str(eager._no_compiler(torch.device("cpu")))


def test_a_model_in_training_mode_is_run_as_it_would_be_deployed():
    model = nn.Sequential(nn.Linear(40, 8), nn.Dropout(0.9)).train()
    x = torch.randn(3, 40)
    with torch.no_grad():
        assert torch.equal(prepare("eager", Job(model, x)).run(x), model[0](x))
    assert model.training


def test_two_of_four():
    made = sparsified(nn.Linear(16, 6), 0.5, pattern="2:4")
    assert is_two_of_four(made.weight)
    assert int((made.weight == 0).sum()) == 48
    assert not is_two_of_four(torch.ones(4, 6)), "six inputs are no fours"
    masked = nn.Sequential(nn.Linear(16, 6))
    ps.prune(masked, granularity="2:4", output=True)
    assert is_two_of_four(masked[0].weight)


def test_an_onnx_file_is_used_again_with_other_weights(job):
    pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'prunescope[export]'")
    from prunescope.measures.backends.conversion import with_weights

    other = Job(net(seed=1), job.example, like=job)
    assert prepare("onnxruntime", other).error < 1e-5
    assert with_weights(job.onnx, nn.Linear(40, 64)) is None, "another network's names"
