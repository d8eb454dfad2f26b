"""Budgets of latency: the selection by a table of milliseconds, what it refuses, and that tables are measured for the layers there are."""

import math

import pytest
import torch
from torch import nn

import prunescope as ps
from prunescope.config import PruneConfig
from prunescope.pruning import layer_times
from prunescope.types import PrunescopeError


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 2))


TIMES = {
    "0.weight": {"all": 3.0, "output": 0.25, "input": 0.1},  # 1 ms stays whatever goes
    "2.weight": {"all": 6.0, "output": 0.5, "input": 0.25},
    "4.weight": {"all": 1.0, "output": 0.0, "input": 0.05},
}


def prune(net, sparsity, **more):
    return ps.prune(net, **{"sparsity": sparsity, "allocation": "latency", "options": {"times": TIMES}, "granularity": "neuron", **more})


@pytest.mark.parametrize("share", [0.1, 0.35, 0.6])
def test_the_shortest_run_of_the_ranking_that_saves_the_share(share):
    net = network()
    norms = {n: net.get_parameter(n).detach().norm(dim=1) for n in ("0.weight", "2.weight")}
    masks = prune(net, share)
    gone = {n: ~masks[n].any(1) for n in norms}
    saved = sum(TIMES[n]["output"] * int(g.sum()) for n, g in gone.items())
    last = max((norms[n][g].max().item(), TIMES[n]["output"]) for n, g in gone.items() if g.any())
    assert saved >= share * 9 - 1e-9 > saved - last[1], "the last piece was needed; the layers that have pieces take 9 ms"
    assert all((norms[n][~g] > last[0]).all() for n, g in gone.items())


def test_coupled_channels_save_rows_and_the_columns_that_they_feed():
    masks = prune(network(), 0.2, granularity="channel", example_inputs=torch.zeros(2, 6))
    rows = {n: int((~masks[n].any(1)).sum()) for n in ("0.weight", "2.weight")}
    pieces = {"0.weight": 0.25 + 0.25, "2.weight": 0.5 + 0.05}
    saved = sum(rows[n] * pieces[n] for n in rows)
    assert 2 - 1e-9 <= saved < 2 + 0.55  # 0.2 of 3 + 6 + 1


def test_refusals():
    with pytest.raises(PrunescopeError, match="zeros inside a dense tensor save no time: choose a granularity of whole units"):
        prune(network(), 0.2, granularity="weight")
    with pytest.raises(PrunescopeError, match="zeros inside a dense tensor save no time"):
        prune(network(), 0.5, granularity="1:2")
    with pytest.raises(PrunescopeError, match=r"80\.0% of the latency cannot go where every layer keeps 1: at most 69\.4% can"):
        prune(network(), 0.8)  # 7 x 0.25 + 9 x 0.5 of 9 ms
    with pytest.raises(PrunescopeError, match=r"times: unknown weight '2\.weight'"):
        prune(network(), 0.2, options={"times": {"0.weight": TIMES["0.weight"]}})
    with pytest.raises(PrunescopeError, match=r"times\['0\.weight'\]\['output'\] is None: expected milliseconds"):
        prune(network(), 0.2, options={"times": {**TIMES, "0.weight": {"all": 1.0}}})
    with pytest.raises(PrunescopeError, match="needs inputs to time the layers on"):
        prune(network(), 0.2, options={})
    with pytest.raises(PrunescopeError, match=r"latency of weight_ih_l0 cannot be measured"):
        prune(nn.LSTM(4, 5), 0.2, granularity="row", options={}, example_inputs=torch.zeros(3, 2, 4))
    with pytest.raises(ValueError, match=r"needs options\.times"):
        PruneConfig(allocation="latency", granularity="neuron")


def test_layers_of_every_kind_are_timed_at_their_own_inputs():
    """A smoke test with the clock: entries for all layers, finite, and the network as it was."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(4, 8, 3, bias=False), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 12, 3, groups=2), nn.ConvTranspose2d(12, 4, 2),
        nn.Flatten(2), nn.Linear(9, 16), nn.TransformerEncoderLayer(16, 2, 32, batch_first=True),
    )  # fmt: skip
    before = {n: v.clone() for n, v in net.state_dict().items()}
    times = layer_times(net, torch.randn(2, 4, 8, 8), seconds=1e-4)
    assert list(times) == [n for n, p in net.named_parameters() if p.ndim > 1]
    assert all(t["all"] > 0 and t["output"] >= 0 and t["input"] >= 0 and math.isfinite(sum(t.values())) for t in times.values())
    assert net.training
    assert all(torch.equal(v, before[n]) for n, v in net.state_dict().items())
