"""Pruner's named errors: settings that do not fit, optimisers without the weights, weights that are no numbers."""

import pytest
import torch
from looped import net, sgd, step, steps

import prunescope as ps
from prunescope.types import ConfigError, PruningError


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"begin": 5, "end": 5}, "begin 5 and end 5: expected begin before end"),
        ({"begin": -1}, "begin -1: expected a whole number of at least 0"),
        ({"every": 0}, "every 0: expected a whole number of at least 1"),
        ({"every": 0.5}, r"every 0\.5"),
        ({"sparsity": 90}, "sparsity 90: expected a fraction"),
        ({"start": 0.9}, r"start 0\.9 is above sparsity 0\.5"),
        ({"schedule": "cubical"}, "did you mean 'cubic'"),
        ({"dynamic": "rigle", "end": 9}, "did you mean 'rigl'"),
        ({"dynamic": "rigl"}, "give end"),
        ({"dynamic": "set", "soft": True}, "choose one"),
        ({"dynamic": "set", "grow_fraction": 0}, "grow_fraction 0"),
        ({"critrion": "magnitude"}, "did you mean 'criterion'"),
        ({"threshold": 0.1}, "unknown setting of Pruner 'threshold'"),
        ({"layers": ["fc9"]}, "unknown layer 'fc9'"),
        ({"samples": 0}, "samples 0"),
        ({"granularity": "2:4"}, 'all or nothing and cannot go by a schedule: use schedule="one-shot"'),
        ({"granularity": "neuron", "dynamic": "set"}, "exchanges single weights"),
    ],
)
def test_settings_that_do_not_fit_are_named(options, words):
    model = net()
    with pytest.raises(ConfigError, match=words):
        ps.Pruner(model, sgd(model), **{"sparsity": 0.5, **options})


def test_an_optimiser_without_the_weights_is_refused():
    model = net()
    with pytest.raises(PruningError, match=r"lacks 2 of 2 weights to prune \(0\.weight, 2\.weight"):
        ps.Pruner(model, sgd(net()), sparsity=0.5)
    half = torch.optim.SGD(model[0].parameters(), 0.1)
    with pytest.raises(PruningError, match="lacks 1 of 2"):
        ps.Pruner(model, half, sparsity=0.5)
    ps.Pruner(model, half, sparsity=0.5, layers=["0"])
    model[2].weight.requires_grad_(False)
    frozen = ps.Pruner(model, half, sparsity=0.5, schedule="one-shot")
    assert frozen.masks.sparsity() == pytest.approx(0.5), "what is frozen needs no optimiser"
    with pytest.raises(ConfigError, match="nothing counts the steps"):
        ps.Pruner(model, sparsity=0.5)


def test_weights_that_are_not_numbers_are_named_when_an_update_is_due():
    model = net()
    optimizer = sgd(model)
    ps.Pruner(model, optimizer, sparsity=0.5, end=2, every=1)
    model[0].weight.data[0, 0] = float("nan")
    with pytest.raises(PruningError, match=r"0\.weight are NaN"):
        step(model, optimizer)


def rising(position, target):
    return 2.0 * position * target


def test_a_schedule_of_ones_own_is_checked(monkeypatch):
    model = net()
    optimizer = sgd(model)
    monkeypatch.syspath_prepend(str(__import__("pathlib").Path(__file__).parent))
    ps.Pruner(model, optimizer, sparsity=0.6, schedule="test_pruner_refusals:rising", end=10, every=9)
    with pytest.raises(ConfigError, match=r"'test_pruner_refusals:rising' gave 1\.08 at position 0\.9"):
        steps(model, optimizer, 9)
