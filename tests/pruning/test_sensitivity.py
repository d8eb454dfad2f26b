"""The sensitivity scan: losses are those of pruning each layer alone, the network is left as it was, shares follow from the losses."""

import copy

import pytest
import torch
from torch import nn

import prunescope as ps
from prunescope.pruning.oneshot import groups_of
from prunescope.pruning.sensitivity import Scan, levels_for, scan
from prunescope.pruning.signals.calibration import Calibration
from prunescope.pruning.targets import targets
from prunescope.registry import granularities
from prunescope.types import PruningError


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3))


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(300, 6, generator=generator), torch.randint(0, 3, (300,), generator=generator)


@pytest.mark.parametrize("granularity", ["weight", "neuron"])
def test_losses_are_those_of_pruning_one_layer(net, data, granularity):
    chosen = targets(net)
    groups = groups_of(net, chosen, granularities.get(granularity), {})
    scores = {t.name: t.parameter.detach().abs().flatten() if granularity == "weight" else t.parameter.detach().norm(dim=1) for t in chosen}
    before = copy.deepcopy(net.state_dict())
    found = scan(groups, scores, Calibration(net, chosen, [data]), levels=(0.25, 0.75))
    assert all(torch.equal(v, before[n]) for n, v in net.state_dict().items())
    assert net.training
    for target in chosen:
        for level, loss in zip(found.levels, found.losses[target.name], strict=True):
            alone = copy.deepcopy(net).eval()
            ps.prune(alone, sparsity=level, granularity=granularity, layers=[target.name])
            assert loss == pytest.approx(nn.functional.cross_entropy(alone(data[0]), data[1]).item(), rel=1e-5)


def test_increases_never_fall():
    found = Scan(1.0, (0.1, 0.5, 0.9), {"a": (0.9, 1.2, 1.1)})
    assert found.increases("a") == pytest.approx((0.0, 0.2, 0.2))


def test_layers_raise_the_loss_alike():
    """Layer a costs 0.1 a tenth, layer b 0.2: at equal cost a gives twice what b does; 3/10 in all is 4/10 and 2/10."""
    levels = (0.2, 0.4, 0.6, 0.8)
    found = Scan(0.0, levels, {"a": tuple(levels), "b": tuple(2 * s for s in levels)})
    shares = levels_for(found, {"a": 100, "b": 100}, 0.3)
    assert shares == pytest.approx({"a": 0.4, "b": 0.2}, abs=1e-6)
    with pytest.raises(PruningError, match="cannot be met"):
        levels_for(found, {"a": 2, "b": 2}, 0.9)


def test_as_an_allocation(net, data):
    masks = ps.prune(net, sparsity=0.6, allocation="sensitivity", data=data, exclude=["5"])
    counts = masks.counts()
    assert sum(total - kept for kept, total in counts.values()) == round(0.6 * (6 * 12 + 12 * 8))
    with pytest.raises(PruningError, match="needs calibration data"):
        ps.prune(net, sparsity=0.6, allocation="sensitivity")
