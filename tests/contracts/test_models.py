"""What every registered model promises, whoever wrote it."""

import pytest
import torch

import prunescope.models
from prunescope.models import build
from prunescope.registry import models
from prunescope.types import ConfigError

SHAPE, CLASSES = (1, 8, 8), 10
NAMES = models.names()
assert NAMES, prunescope.models  # an empty registry would pass every test below


def weights(name: str, seed: int) -> torch.Tensor:
    model = build(name, input_shape=SHAPE, classes=CLASSES, seed=seed)
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("name", NAMES)
def test_says_what_it_is_and_where_from(name: str) -> None:
    entry = models.get(name)
    assert entry.summary.endswith((".", ")"))
    assert entry.source


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_the_weights(name: str) -> None:
    assert torch.equal(weights(name, 3), weights(name, 3))
    assert not torch.equal(weights(name, 3), weights(name, 4))


@pytest.mark.parametrize("name", NAMES)
def test_global_random_state_is_left_alone(name: str) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one = weights(name, 0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    assert torch.equal(weights(name, 0), one)


@pytest.mark.parametrize("name", NAMES)
def test_forward_shape_and_gradients(name: str) -> None:
    model = build(name, input_shape=SHAPE, classes=CLASSES, seed=0)
    x = torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(0))
    out = model(x)
    assert out.shape == (6, CLASSES)
    assert torch.isfinite(out).all()
    torch.nn.functional.cross_entropy(out, torch.arange(6)).backward()
    for label, parameter in model.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.grad.abs().sum() > 0, label


@pytest.mark.parametrize("name", NAMES)
def test_unknown_options_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown option of model .*'no_such'"):
        build(name, input_shape=SHAPE, classes=CLASSES, seed=0, options={"no_such": 1})
