"""Recalibrated batch normalisation: statistics over the data, everything else as it was."""

import copy

import torch
from torch import nn

from prunescope.pruning.normalisation import recalibrate
from prunescope.types import Split


def data(n: int = 70) -> Split:
    generator = torch.Generator().manual_seed(0)
    return Split(3 + 2 * torch.randn(n, 5, generator=generator), torch.randint(0, 3, (n,), generator=generator))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.ReLU(), nn.Linear(4, 3), nn.BatchNorm1d(3, momentum=0.3))


def test_statistics_are_those_of_the_data_in_one_batch_and_in_several():
    model, split = net(), data()
    assert recalibrate(model, split.x, 70) == 2
    with torch.no_grad():
        z = model[0](split.x)
        torch.testing.assert_close(model[1].running_mean, z.mean(0))
        torch.testing.assert_close(model[1].running_var, z.var(0))
        second = model[4](nn.functional.relu(nn.functional.batch_norm(z, None, None, model[1].weight, model[1].bias, training=True)))
        torch.testing.assert_close(model[5].running_mean, second.mean(0))  # no dropout meanwhile
    parts = net()
    recalibrate(parts, split.x, 32)  # 32, 32 and 6 rows
    torch.testing.assert_close(parts[1].running_mean, z.mean(0))
    expected = sum(len(p) * p.var(0) for p in z.split(32)) / 70
    torch.testing.assert_close(parts[1].running_var, expected)


def test_weights_modes_and_momenta_stay():
    model = net().train()
    model[5].eval()
    before = copy.deepcopy(dict(model.named_parameters()))
    recalibrate(model, data().x, 32)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert [m.training for m in model] == [True, True, True, True, True, False]
    assert (model[1].momentum, model[5].momentum) == (0.1, 0.3)
    assert recalibrate(nn.Linear(5, 3), data().x, 32) == 0
