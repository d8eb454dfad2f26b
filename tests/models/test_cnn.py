"""The convolutional network: names, sizes and images that are too small."""

from typing import Any

import pytest
import torch

from prunescope.models import build
from prunescope.types import ConfigError


def cnn(shape: tuple[int, ...] = (1, 28, 28), **options: Any) -> torch.nn.Module:
    return build("cnn", input_shape=shape, classes=10, seed=0, options=options)


def test_the_studys_network() -> None:
    model = cnn()
    assert [n for n, _ in model.named_children()] == [
        "conv1", "act1", "pool1", "conv2", "act2", "pool2", "flatten", "fc1", "act3", "output"
    ]  # fmt: skip
    shapes = {n: tuple(p.shape) for n, p in model.named_parameters() if n.endswith("weight")}
    assert shapes == {
        "conv1.weight": (32, 1, 3, 3),
        "conv2.weight": (64, 32, 3, 3),
        "fc1.weight": (128, 64 * 7 * 7),
        "output.weight": (10, 128),
    }


def test_options_reach_the_layers() -> None:
    model = cnn((3, 32, 32), channels=[4, 5, 6], dense=7, kernel=5, padding=2, activation="tanh", bias=False, output="softmax")
    assert model.conv3.weight.shape == (6, 5, 5, 5)
    assert model.fc1.weight.shape == (7, 6 * 4 * 4)
    assert not any(n.endswith("bias") for n in model.state_dict())
    assert torch.allclose(model(torch.rand(2, 3, 32, 32)).sum(1), torch.ones(2), atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((784,), {}, r"samples have shape \(784,\): expected \(channels, height, width\), so leave out pca and flatten"),
        ((1, 4, 4), {"channels": [8, 8, 8]}, "leave nothing of an image of 4 x 4 pixels"),
        ((1, 8, 8), {"padding": 0, "kernel": 9}, "leave nothing of an image"),
        ((1, 8, 8), {"padding": -1}, "padding = -1"),
        ((1, 8, 8), {"channels": [0]}, "channels = "),
        ((1, 8, 8), {"dense": 0}, "dense = "),
        ((1, 8, 8), {"kernel": 0}, "kernel = "),
        ((1, 8, 8), {"dense": [128]}, "option 'dense' of model 'cnn': expected int"),
    ],
)
def test_what_cannot_be_built(shape: tuple[int, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cnn(shape, **options)
