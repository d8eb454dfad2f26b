"""Initial weights: variance and range of each scheme against its formula, on a layer large enough to tell them apart."""

import math

import pytest
import torch
from torch import nn

from prunescope.models import INITIALISATIONS, build, initialise
from prunescope.types import ConfigError

FAN_IN, FAN_OUT = 400, 100
TRUNCATION = 0.87962  # sd of a standard normal cut at +-2: sqrt(1 - 2 * 2 * phi(2) / (2 * Phi(2) - 1))

FORMULAS = {  # scheme: (standard deviation, largest absolute value)
    "uniform-fan-in": (math.sqrt(1 / (3 * FAN_IN)), math.sqrt(1 / FAN_IN)),
    "glorot-uniform": (math.sqrt(2 / (FAN_IN + FAN_OUT)), math.sqrt(6 / (FAN_IN + FAN_OUT))),
    "glorot-normal": (math.sqrt(2 / (FAN_IN + FAN_OUT)), math.inf),
    "he-normal": (math.sqrt(2 / FAN_IN), math.inf),
    "he-uniform": (math.sqrt(2 / FAN_IN), math.sqrt(6 / FAN_IN)),
    "truncated-normal-fan-in": (TRUNCATION * math.sqrt(1 / FAN_IN), 2 * math.sqrt(1 / FAN_IN)),
    "truncated-normal-fan-out": (TRUNCATION * math.sqrt(1 / FAN_OUT), 2 * math.sqrt(1 / FAN_OUT)),
    "orthogonal": (math.sqrt(1 / FAN_IN), math.inf),
}


def layer(scheme: str, seed: int = 0) -> nn.Linear:
    linear = nn.Linear(FAN_IN, FAN_OUT)
    initialise(linear, scheme, torch.Generator().manual_seed(seed))
    return linear


@pytest.mark.parametrize("scheme", list(INITIALISATIONS))
def test_deviation_and_range_follow_the_formula(scheme: str) -> None:
    deviation, largest = FORMULAS[scheme]
    weight = layer(scheme).weight.detach().double()
    assert weight.mean().item() == pytest.approx(0, abs=4 * deviation / math.sqrt(weight.numel()))
    assert weight.std().item() == pytest.approx(deviation, rel=0.02)
    assert weight.abs().max() <= largest * (1 + 1e-6)
    if largest < math.inf:
        assert weight.abs().max() > 0.99 * largest
    else:
        assert weight.abs().max() > 3 * deviation


@pytest.mark.parametrize("scheme", list(INITIALISATIONS))
def test_biases_are_zero_but_for_torchs_own_scheme(scheme: str) -> None:
    bias = layer(scheme).bias.detach()
    if scheme == "uniform-fan-in":
        assert 0 < bias.abs().max() <= 1 / math.sqrt(FAN_IN)
        assert bias.std().item() == pytest.approx(FORMULAS[scheme][0], rel=0.2)
    else:
        assert bool((bias == 0).all())


def test_orthogonal_rows_are_orthonormal() -> None:
    weight = layer("orthogonal").weight.detach()
    assert torch.allclose(weight @ weight.T, torch.eye(FAN_OUT), atol=1e-5)


def test_convolutions_count_their_field() -> None:
    convolution = nn.Conv2d(16, 32, 5)
    initialise(convolution, "he-uniform", torch.Generator().manual_seed(0))
    bound = math.sqrt(6 / (16 * 25))
    assert 0.99 * bound < convolution.weight.abs().max().item() <= bound
    initialise(convolution, "truncated-normal-fan-out", torch.Generator().manual_seed(0))
    assert convolution.weight.std().item() == pytest.approx(TRUNCATION / math.sqrt(32 * 25), rel=0.03)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
@pytest.mark.parametrize("scheme", list(INITIALISATIONS))
def test_every_scheme_draws_from_the_generator_alone(name: str, scheme: str) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    options = {"initialisation": scheme}
    one, same, other = (build(name, input_shape=(1, 8, 8), classes=3, seed=s, options=options).state_dict() for s in (1, 1, 2))
    for key in one:
        assert torch.equal(one[key], same[key])
        if key.endswith("weight"):
            assert not torch.equal(one[key], other[key])
    assert torch.equal(torch.get_rng_state(), before)


def test_unknown_scheme() -> None:
    with pytest.raises(ConfigError, match="did you mean 'he-normal'"):
        initialise(nn.Linear(2, 2), "he-norml", torch.Generator())
