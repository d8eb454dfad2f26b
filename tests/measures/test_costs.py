"""Bytes, multiply-adds, memory and energy against values worked out by hand."""

import math
import zlib

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

import prunescope as ps
from prunescope.measures.formats import FORMATS, ZLIB_LEVEL
from prunescope.measures.operations import Macs, macs_by_layer
from prunescope.types import ConfigError


class First(nn.Module):
    """The first output of a recurrent or attention layer."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return (self.inner(x, x, x, need_weights=False) if isinstance(self.inner, nn.MultiheadAttention) else self.inner(x))[0]


def test_bytes_of_each_format_by_hand():
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4))  # a matrix of 4 x 18, vectors of 4 + 4 + 4
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].weight.view(4, 18)[:, :5] = 1.5  # 20 values stay
    found = {name: m.value for name, m in ps.measure(net, names=["size"]).items()}
    vectors = 3 * 4 * 4
    assert found["bytes"] == 72 * 4 + vectors
    assert found["bytes_bitmask"] == 20 * 4 + 9 + vectors
    assert found["bytes_csr"] == 20 * 8 + 5 * 4 + vectors
    assert found["bytes_coo"] == 20 * 12 + vectors
    assert found["bytes_int8"] == 72 + 4 * 4 + vectors
    assert found["bytes_int8_bitmask"] == 20 + 9 + 4 * 4 + vectors
    content = safetensors.torch.save({n: t.clone() for n, t in net.state_dict().items()})
    assert found["bytes_safetensors"] == len(content)
    assert found["bytes_zlib"] == pytest.approx(len(zlib.compress(content, ZLIB_LEVEL)), abs=40)  # the header's order may differ
    only = ps.measure(net, names=["size"], formats=["csr"])
    assert set(only) == {"parameters", "nonzero", "bytes", "bytes_csr"}
    assert only["bytes_csr"].parameters["format"] == "csr"
    with pytest.raises(ConfigError, match="unknown format 'crs': did you mean 'csr'"):
        ps.measure(net, names=["size"], formats=["crs"])
    assert len(FORMATS) == 7


def test_tied_weights_take_bytes_once():
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    net[1].weight = net[0].weight
    assert ps.measure(net, names=["size"], formats=["csr"])["bytes_csr"].value == 16 * 8 + 5 * 4


def test_multiply_adds_of_linear_and_grouped_strided_convolution():
    net = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, groups=2, bias=False), nn.Flatten(), nn.Linear(128, 3))
    with torch.no_grad():
        net[0].weight[:2] = 0.0  # a quarter of the filters
        net[2].weight[:, :32] = 0.0
    convolution, linear = 8 * 2 * 9 * 16, 128 * 3  # 9 x 9 inputs give 4 x 4 positions
    assert macs_by_layer(net, torch.randn(1, 4, 9, 9)) == {
        "0": Macs(convolution, convolution * 3 // 4),
        "2": Macs(linear, linear * 3 // 4),
    }
    found = ps.measure(net, (torch.randn(5, 4, 9, 9), torch.zeros(5).long()), ["macs", "flops"])
    assert found["macs"].value * 2 == found["flops"].value
    assert found["macs_nonzero"].value == (convolution + linear) * 3 // 4
    assert found["macs_nonzero"].parameters["layers"] == {"0": convolution * 3 // 4, "2": linear * 3 // 4}


def test_multiply_adds_of_lstm_and_attention():
    lstm = nn.LSTM(4, 6, 2, batch_first=True, bidirectional=True)
    with torch.no_grad():
        lstm.weight_hh_l0.zero_()  # 24 x 6, five steps
    dense = 5 * 2 * (24 * (4 + 6) + 24 * (12 + 6))
    assert macs_by_layer(First(lstm), torch.randn(1, 5, 4)) == {"inner": Macs(dense, dense - 5 * 24 * 6)}
    attention = nn.MultiheadAttention(4, 2, batch_first=True)
    with torch.no_grad():
        attention.in_proj_weight[:4] = 0.0  # the queries' part: a view of the packed weight
    products = 2 * 5 * 5 * 4  # of queries with keys, of their softmax with values: no weight in them
    assert macs_by_layer(First(attention), torch.randn(1, 5, 4)) == {"inner": Macs(4 * 80 + products, 3 * 80 + products)}
    assert torch.backends.mha.get_fastpath_enabled()


def test_weights_that_are_computed_are_weights():
    """torch's own pruning multiplies by a mask in front of every pass; a parametrisation computes the weight anew."""
    masked = nn.Sequential(nn.Linear(10, 4))
    prune.random_unstructured(masked[0], "weight", 0.5)

    class Half(nn.Module):
        def forward(self, w):
            return torch.cat([w[:2], torch.zeros_like(w[2:])])

    computed = nn.Sequential(nn.Linear(10, 4))
    parametrize.register_parametrization(computed[0], "weight", Half())
    for net in (masked, computed):
        assert macs_by_layer(net, torch.randn(3, 10)) == {"0": Macs(120, 60)}
        assert not any(m._forward_hooks for m in net.modules())


def test_peak_memory_is_what_is_held_at_once():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).train()
    found = ps.measure(net, (torch.randn(5, 4), torch.zeros(5).long()), ["memory"], batch_size=16)["peak_memory"]
    assert found.value == 2 * 16 * 8 * 4, "the first layer's output and its ReLU; the second's is smaller"
    assert found.parameters == {"batch_size": 16, "weights_bytes": 58 * 4, "input_bytes": 256, "method": "torch.profiler"}
    assert net.training


def test_energy_is_read_or_absent_with_a_reason(tmp_path):
    data = (torch.randn(5, 4), torch.zeros(5).long())
    absent = ps.measure(nn.Linear(4, 2), data, ["energy"], root=str(tmp_path / "none"))["energy"]
    assert math.isnan(absent.value)
    assert "no energy meter" in absent.parameters["absent"]
    zones = [tmp_path / f"intel-rapl:{i}" for i in range(2)]
    for zone in zones:
        zone.mkdir()
        (zone / "max_energy_range_uj").write_text("1000000")
    (zones[0] / "energy_uj").write_text("997000")
    (zones[1] / "energy_uj").write_text("5")
    (tmp_path / "intel-rapl:0:0").mkdir()  # a part of package 0, not to be counted again

    class Draws(nn.Linear):
        """Each pass costs 2,000 microjoules of the first package, whose counter starts again at a million."""

        def forward(self, x):
            place = zones[0] / "energy_uj"
            place.write_text(str((int(place.read_text()) + 2000) % 1_000_000))
            return super().forward(x)

    options = {"root": str(tmp_path), "seconds": 0.0}  # one pass to warm up, and one that counts: over the counter's range
    found = ps.measure(Draws(4, 2), data, ["energy"], **options)["energy"]
    assert found.value == pytest.approx(2e-3)
    for zone in zones:
        (zone / "energy_uj").unlink()
    assert "cannot be read" in ps.measure(nn.Linear(4, 2), data, ["energy"], **options)["energy"].parameters["absent"]


def test_latency_at_several_batch_sizes():
    data = (torch.randn(3, 4), torch.zeros(3).long())
    found = ps.measure(nn.Linear(4, 4), data, ["latency"], batch_size=[1, 8], seconds=0.001)
    assert set(found) == {"latency_ms_1", "latency_ms_8"}
    assert found["latency_ms_8"].parameters["batch_size"] == 8, "rows are repeated"
    low, high = found["latency_ms_8"].parameters["interval_ms"]
    assert low <= round(found["latency_ms_8"].value, 6) <= high
