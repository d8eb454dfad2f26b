"""The multi-layer perceptron: names, counts, and the same numbers as a formula written out."""

from typing import Any

import pytest
import torch

from prunescope.models import ACTIVATIONS, build
from prunescope.types import ConfigError

STUDY = {"widths": [10, 7, 5, 4, 3], "activation": "tanh", "output": "log-softmax", "initialisation": "uniform-fan-in"}


def mlp(shape: tuple[int, ...] = (12,), classes: int = 2, seed: int = 0, **options: Any) -> torch.nn.Module:
    return build("mlp", input_shape=shape, classes=classes, seed=seed, options=options)


def test_the_studys_network_has_its_layers_and_counts() -> None:
    model = mlp(**STUDY)
    assert [n for n, _ in model.named_children()] == [
        *(f"{kind}{i}" for i in range(1, 6) for kind in ("fc", "act")), "output", "log_softmax"
    ]  # fmt: skip
    shapes = {n: tuple(p.shape) for n, p in model.named_parameters() if n.endswith("weight")}
    assert shapes["fc2.weight"] == (7, 10)
    assert shapes["fc4.weight"] == (4, 5)
    assert shapes["fc5.weight"] == (3, 4)
    assert shapes["output.weight"] == (2, 3)
    assert sum(p.numel() for n, p in model.named_parameters() if n.endswith("weight")) == 263
    assert sum(p.numel() for n, p in model.named_parameters() if n.endswith("bias")) == 31


def test_forward_by_hand() -> None:
    model = mlp(widths=[3], activation="tanh")
    state = model.state_dict()
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    hidden = torch.tanh(x @ state["fc1.weight"].T + state["fc1.bias"])
    assert torch.allclose(model(x), hidden @ state["output.weight"].T + state["output.bias"], atol=1e-6)


def test_images_are_flattened_and_widths_may_be_empty() -> None:
    model = mlp((1, 4, 4), classes=3, widths=[])
    assert [n for n, _ in model.named_children()] == ["flatten", "output"]
    assert model(torch.zeros(2, 1, 4, 4)).shape == (2, 3)


def test_no_bias_means_none_anywhere() -> None:
    assert not any(n.endswith("bias") for n in mlp(bias=False).state_dict())


@pytest.mark.parametrize(
    ("output", "classes", "units"), [("logits", 2, 2), ("log-softmax", 3, 3), ("softmax", 3, 3), ("sigmoid", 2, 1), ("sigmoid", 3, 3)]
)
def test_outputs(output: str, classes: int, units: int) -> None:
    model = mlp(classes=classes, output=output)
    x = torch.randn(7, 12, generator=torch.Generator().manual_seed(0))
    out = model(x)
    logits = mlp(classes=classes, output=output)[: list(dict(model.named_children())).index("output") + 1](x)
    assert out.shape == (7, units)
    expected = {
        "logits": logits,
        "log-softmax": logits.log_softmax(1),
        "softmax": logits.softmax(1),
        "sigmoid": 1 / (1 + (-logits).exp()),
    }[output]
    assert torch.allclose(out, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "at_minus_one", "at_two"),
    [
        ("relu", 0.0, 2.0),
        ("tanh", -0.76159, 0.96403),
        ("sigmoid", 0.26894, 0.88080),
        ("softplus", 0.31326, 2.12693),
        ("softsign", -0.5, 0.66667),
        ("leaky-relu", -0.01, 2.0),
        ("relu6", 0.0, 2.0),
        ("gelu", -0.15866, 1.95450),
        ("silu", -0.26894, 1.76159),
        ("elu", -0.63212, 2.0),
        ("linear", -1.0, 2.0),
    ],
)
def test_activations_by_their_values(name: str, at_minus_one: float, at_two: float) -> None:
    act = dict(mlp(activation=name).named_children())["act1"]
    assert act(torch.tensor([-1.0, 2.0])).tolist() == pytest.approx([at_minus_one, at_two], abs=1e-5)
    assert name in ACTIVATIONS
    assert len(ACTIVATIONS) == 11


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "thanh"}, "unknown activation 'thanh': did you mean 'tanh'"),
        ({"initialisation": "glorot"}, "unknown initialisation 'glorot': did you mean 'glorot-"),
        ({"output": "softmx"}, "unknown output 'softmx': did you mean 'softmax'"),
        ({"width": [3]}, "unknown option of model 'mlp' 'width': did you mean 'widths'"),
        ({"widths": [3, 0]}, r"widths = \[3, 0\]: expected whole numbers of at least 1, got 0"),
        ({"widths": "64"}, r"option 'widths' of model 'mlp': expected Sequence\[int\], got '64'"),
        ({"widths": [1.5]}, "option 'widths' of model 'mlp'"),
        ({"bias": "no"}, "option 'bias' of model 'mlp': expected bool, got 'no'"),
        ({"activation": 3}, "option 'activation' of model 'mlp': expected str, got 3"),
        ({"generator": 3}, "unknown option of model 'mlp' 'generator'"),
    ],
)
def test_options_that_cannot_be_used(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mlp(**options)
