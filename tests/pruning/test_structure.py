"""What stands where: the shortcut for chains agrees with the trace, and is taken only where it may be."""

import torch
import torch.fx
from torch import nn

import prunescope.pruning.structure as structures
from prunescope.pruning.structure import _traced, structure


def test_a_chain_is_read_as_its_trace():
    """Nested and repeated modules, a norm after a layer, a tail without weights: the shortcut says what torch.fx says."""
    shared = nn.Linear(4, 4)
    inner = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), shared)
    net = nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2), nn.Flatten(), inner, nn.Tanh(), shared, nn.LayerNorm(4), nn.Softmax(1))
    layers = [n for n, m in net.named_modules() if isinstance(m, nn.Linear | nn.Conv1d)]
    traced = _traced(net, torch.fx.Tracer().trace(net), set(layers))
    assert structure(net, layers) == traced
    assert traced.outputs == {"3.3"}
    assert traced.norms == {"0": "1", "3.0": "3.1", "3.3": "6"}


def test_a_sequential_with_hooks_or_modules_of_its_own_is_traced(monkeypatch):
    class Twice(nn.Module):
        def forward(self, x):
            return x + x

    monkeypatch.setattr(structures, "_chained", None)
    own = nn.Sequential(nn.Linear(2, 2), Twice())
    hooked = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    hooked[1].register_forward_hook(lambda *_: None)
    assert [structure(net, ["0"]).outputs for net in (own, hooked)] == [{"0"}, {"0"}]
