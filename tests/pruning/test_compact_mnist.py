"""Masked and compacted networks on the whole of MNIST's test split: the same class for every sample, so the same accuracy."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

import prunescope as ps
from prunescope.data import load
from prunescope.measures.quality import batched
from prunescope.models import build

FOLDER = Path(os.environ.get("PRUNESCOPE_DATA", "nowhere"))
pytestmark = pytest.mark.skipif(not (FOLDER / "mnist").is_dir(), reason="needs MNIST: set PRUNESCOPE_DATA to a folder that holds mnist/")
LARGE = {"widths": [1000, 1000, 500, 200], "activation": "relu"}


@pytest.fixture(scope="module")
def mnist():
    return load("mnist", seed=0)


def trained(name, options, data, steps=40):
    """So many steps that accuracy is well above chance and classes are not all one."""
    flat = name == "mlp"
    shape = (784,) if flat else (1, 28, 28)
    model = build(name, input_shape=shape, classes=10, seed=0, options=options)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(steps):
        rows = slice(64 * step, 64 * step + 64)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.train.x[rows].reshape(-1, *shape)), data.train.y[rows]).backward()
        optimizer.step()
    return model.eval(), data.test.x.reshape(-1, *shape)


@pytest.mark.parametrize(
    ("name", "options", "granularity", "sparsity"),
    [("mlp", LARGE, "neuron", 0.5), ("mlp", LARGE, "weight", 0.97), ("cnn", {}, "channel", 0.5)],
)
def test_every_sample_of_the_test_split_gets_the_same_class(name, options, granularity, sparsity, mnist):
    model, x = trained(name, options, mnist)
    masks = ps.prune(model, sparsity=sparsity, granularity=granularity, allocation="uniform", example_inputs=x[:2])
    small, report = ps.compact(model, masks, x[:2])
    before, after = (batched(m, x).argmax(1) for m in (model, small))
    assert report.after < (1.0 if granularity == "weight" else 0.5) * report.before
    assert float((before == mnist.test.y).float().mean()) > 0.2, "a network that knows something"
    assert len(x) == 10_000
    assert torch.equal(before, after)
