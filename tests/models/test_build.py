"""Models of the user's own, by "module:function"."""

import sys
import types
from typing import Any

import pytest
import torch
from torch import nn

from prunescope.models import build
from prunescope.types import ConfigError


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("own_models")
    monkeypatch.setitem(sys.modules, "own_models", module)
    return module


def made(seed: int = 0, name: str = "own_models:make", **options: Any) -> nn.Module:
    return build(name, input_shape=(1, 4, 4), classes=3, seed=seed, options=options)


def test_global_generator_is_seeded_for_it_and_put_back(own: types.ModuleType) -> None:
    own.make = lambda: nn.Linear(16, 3)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = made(1).weight
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(made(1).weight, first)
    assert not torch.equal(made(2).weight, first)


def test_it_gets_what_its_signature_names(own: types.ModuleType) -> None:
    seen: dict[str, Any] = {}

    def make(input_shape: Any, *, hidden: int = 3, generator: torch.Generator) -> nn.Module:
        seen.update(shape=input_shape, hidden=hidden, generator=generator)
        return nn.Identity()

    own.make = make
    made(hidden=9)
    assert seen["shape"] == (1, 4, 4)
    assert seen["hidden"] == 9
    assert isinstance(seen["generator"], torch.Generator)
    with pytest.raises(ConfigError, match="'hiden': did you mean 'hidden'"):
        made(hiden=9)


def test_classes_and_open_keywords_work(own: types.ModuleType) -> None:
    class Net(nn.Module):
        def __init__(self, classes: int, **more: Any) -> None:
            super().__init__()
            self.fc = nn.Linear(more["inputs"], classes)
            self.more = more

    own.Net = Net
    model = made(name="own_models:Net", inputs=16)
    assert model.fc.weight.shape == (3, 16)
    assert model.more == {"inputs": 16}
    layer = made(name="torch.nn:Linear", in_features=16, out_features=3)
    assert isinstance(layer, nn.Linear)
    with pytest.raises(ConfigError, match="needs the option 'out_features'"):
        made(name="torch.nn:Linear", in_features=16)


def test_what_is_no_module_is_refused(own: types.ModuleType) -> None:
    own.make = lambda: torch.zeros(3)
    with pytest.raises(ConfigError, match=r"returned a Tensor: expected a torch\.nn\.Module"):
        made()
    own.make = lambda: nn.Linear
    with pytest.raises(ConfigError, match="returned a type"):
        made()


def test_what_raises_is_one_sentence(own: types.ModuleType) -> None:
    def make() -> nn.Module:
        raise RuntimeError("no such luck")

    own.make = make
    before = torch.get_rng_state()
    with pytest.raises(ConfigError, match="raised RuntimeError: no such luck"):
        made()
    assert torch.equal(torch.get_rng_state(), before)


def test_unknown_names_and_sizes() -> None:
    with pytest.raises(ConfigError, match="unknown model 'mpl': did you mean 'mlp'"):
        made(name="mpl")
    with pytest.raises(ConfigError, match="sizes of at least 1"):
        build("mlp", input_shape=(), classes=3, seed=0)
    with pytest.raises(ConfigError, match="sizes of at least 1"):
        build("mlp", input_shape=(4,), classes=0, seed=0)
