"""Int8 layers: what their numbers have to be, which layers stay, and training that computes as they will."""

import sys

import pytest
import torch
from torch import nn

import prunescope as ps
from prunescope.quantization import quantize, simulated, stored, stored_bytes
from prunescope.types import ConfigError, MissingExtraError

pytest.importorskip("torchao")


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 5))


def rows(n: int = 33) -> torch.Tensor:
    return torch.randn(n, 20, generator=torch.Generator().manual_seed(1))


def test_weights_are_symmetric_by_row_and_zeros_stay():
    model = net()
    masks = ps.prune(model, sparsity=0.6)
    small, report = quantize(model, activations="float")
    tensors = stored(small)
    scale = model[0].weight.abs().amax(1, keepdim=True) / 127.5
    assert torch.allclose(tensors["0.weight.scale"], scale)
    assert torch.equal(tensors["0.weight"].double(), (model[0].weight / scale).round().clamp(-128, 127).double())
    assert not tensors["0.weight"][~masks["0.weight"]].any()
    assert report.bytes_before == 4 * (20 * 16 + 16 + 16 * 5 + 5)
    assert report.bytes_after == stored_bytes(small) == 20 * 16 + 16 * 5 + 4 * 2 * (16 + 5)
    x = rows()
    exact = x.double() @ (tensors["0.weight"].double() * tensors["0.weight.scale"].double()).T + model[0].bias.double()
    assert torch.allclose(small[0](x).double(), exact, atol=1e-5)


@pytest.mark.parametrize("rows_at_once", [1, 33])
def test_dynamic_rows_are_rounded_by_their_own_range(rows_at_once):
    model, x = net(), rows(rows_at_once)
    small, _ = quantize(model)
    w = stored(small)["0.weight"].double() * stored(small)["0.weight.scale"].double()
    low, high = x.amin(1, keepdim=True).clamp_max(0), x.amax(1, keepdim=True).clamp_min(0)
    scale = (high - low) / 255
    zero = (-128 - (low / scale).round()).clamp(-128, 127)
    rounded = (((x / scale).round() + zero).clamp(-128, 127) - zero).double() * scale.double()
    off = (small[0](x).double() - (rounded @ w.T + model[0].bias.double())).abs().max()
    assert off < 1e-5


def test_static_ranges_come_from_the_calibration_samples():
    model, x = net(), rows()
    small, report = quantize(model, activations="static", calibration=[(x[:20], None), (x[20:], None)])
    scale = stored(small)["0.weight.input_scale"]
    assert scale.shape == (1, 1)
    assert float(scale) == pytest.approx(float(x.max() - x.min()) / 255, rel=1e-6)
    assert (small(x) - model(x)).abs().max() < 0.02 * model(x).abs().max()
    clipped = small(100 * x)
    assert (clipped - model(100 * x)).abs().max() > 1, "what lies outside of the range is clipped"
    assert report.kept == {}


def test_what_stays_as_it_is_says_why():
    tied = nn.Linear(6, 9, bias=False)
    layers = {"conv": nn.Conv1d(1, 2, 3), "words": nn.Embedding(9, 6), "tied": tied, "out": nn.Linear(6, 2), "in": nn.Linear(6, 6)}
    model = nn.ModuleDict(layers)
    model["words"].weight = tied.weight
    small, report = quantize(model, exclude=["i*"])
    assert report.layers == ("out",)
    assert "no int8 convolution" in report.kept["conv"]
    assert "shared" in report.kept["tied"]
    assert report.kept["in"] == "excluded"
    assert type(small["out"]) is nn.Linear
    assert type(model["out"].weight) is nn.Parameter
    with pytest.raises(ConfigError, match="no layer can have int8 weights"):
        quantize(nn.Sequential(nn.Conv2d(1, 1, 1)))
    with pytest.raises(ConfigError, match="calibration"):
        quantize(net(), activations="static")


def test_simulated_layers_compute_what_int8_will_and_pass_slopes():
    model, x = net(), rows()
    masks = ps.prune(model, sparsity=0.5)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    masks.attach(optimizer)
    own = model[0]
    with simulated(model):
        assert model[0] is not own
        assert model[0].weight is own.weight
        before = own.weight.detach().clone()
        model(x).square().sum().backward()
        optimizer.step()
        inside = model(x)
    assert model[0] is own
    assert not torch.equal(own.weight, before)
    assert not own.weight[~masks["0.weight"]].any()
    small, _ = quantize(model)
    assert torch.allclose(small(x), inside, atol=1e-5)
    with pytest.raises(ConfigError, match="cannot be trained with"), simulated(model, activations="static"):
        pass


def test_without_torchao_the_extra_is_named(monkeypatch):
    from prunescope.quantization import int8

    int8.torchao.cache_clear()
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(MissingExtraError, match=r"prunescope\[quant\]"):
        quantize(net())
