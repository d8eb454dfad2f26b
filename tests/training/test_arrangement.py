"""Which networks train together, how many at once, and what is said of those that do not."""

import re

import pytest
import torch
from stacks import COUNT, SETTINGS, assert_same, batch_normalised, both_ways, convolutions, distance, nets, problem, tanh_nets
from torch import nn

from prunescope.config import TrainingConfig
from prunescope.pruning import prune
from prunescope.training.arrangement import LARGE, Way, arrange
from prunescope.training.replicas import train_stack
from prunescope.types import ConfigError, Split


def normalised() -> list[nn.Module]:
    return [nn.Sequential(model.fc1, nn.LayerNorm(8), model.act1, model.output) for model in nets(widths=[8])]


@pytest.mark.parametrize(("make", "shape"), [(normalised, (12,)), (convolutions, (1, 8, 8))])
def test_other_modules_go_by_torch_func(make, shape):
    data = problem(64, shape)
    plan = arrange(make(), [data] * COUNT, SETTINGS["sgd"], stack="on")
    assert plan.way is Way.VECTORISED
    settings = TrainingConfig(epochs=4, batch_size=15, optimizer="adam", lr=3e-3)
    alone, together, states = both_ways(make, data, settings, masks=lambda made: [prune(m, sparsity=0.5) for m in made])
    assert_same(alone, together)
    assert states[0].loss.ndim == 0


def dropping() -> list[nn.Module]:
    return [nn.Sequential(m.fc1, nn.Dropout(0.5), m.act1, m.output) for m in nets(widths=[8])]


def frozen() -> list[nn.Module]:
    made = nets(widths=[8])
    for model in made:
        model.fc1.requires_grad_(False)
    return made


def hooked() -> list[nn.Module]:
    made = nets(widths=[8])
    made[2].fc1.register_forward_hook(lambda *_: None)
    return made


@pytest.mark.parametrize(
    ("make", "reason"),
    [(dropping, "1 \\(Dropout\\) draws noise"), (batch_normalised, "buffers"), (frozen, "frozen"), (hooked, "fc1 has hooks")],
)
def test_what_cannot_be_stacked_goes_one_by_one_and_says_why(make, reason):
    plan = arrange(make(), [problem()] * COUNT, SETTINGS["sgd"], stack="on")
    assert plan.way is Way.ALONE
    assert re.search(reason, plan.text)
    alone, together, _ = both_ways(make, problem(), TrainingConfig(epochs=2, batch_size=32))
    assert all(distance(a, b) == 0 for a, b in zip(alone, together, strict=True))


def test_the_rule_of_auto():
    small, settings = tanh_nets() * 20, TrainingConfig(batch_size=512)
    data = [problem(10_240)] * len(small)
    whole = arrange(small, data, settings.model_copy(update={"batch_size": "full"}))
    assert arrange(small, data, settings).size > 3 * whole.size > 0
    assert arrange(small, data, settings.model_copy(update={"batch_size": 64})).size == 100
    large = nets(shape=(784,), widths=[600, 200])
    assert sum(p.numel() for p in large[0].parameters()) > LARGE
    plan = arrange(large, [problem(shape=(784,))] * COUNT, settings)
    assert plan.way is Way.ALONE
    assert "stacking saves nothing" in plan.text
    assert arrange(large, [problem(shape=(784,))] * COUNT, settings, stack=3).size == 3


def test_refusals():
    with pytest.raises(ConfigError, match="replicate 1 differs"):
        train_stack([*nets(widths=[8])[:1], *nets(widths=[9])[:1]], problem(), SETTINGS["sgd"], seeds=[0, 1])
    with pytest.raises(ConfigError, match="5 models, 5 splits, 2 seeds"):
        train_stack(nets(), problem(), SETTINGS["sgd"], seeds=[0, 1])
    for wrong in ("maybe", 0, True, -1):
        with pytest.raises(ConfigError, match="expected auto, on, off or a number"):
            train_stack(nets(), problem(), SETTINGS["sgd"], seeds=range(COUNT), stack=wrong)
    with pytest.raises(ConfigError, match="no training samples"):
        train_stack(nets(), Split(torch.zeros(0, 12), torch.zeros(0).long()), SETTINGS["sgd"], seeds=range(COUNT))
