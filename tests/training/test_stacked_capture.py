"""Layers of many networks in one forward pass."""

import itertools

import pytest
import torch
from stacks import batch_normalised, convolutions, nets, problem

from prunescope.measures.capture import capture
from prunescope.training import stacked_capture
from prunescope.training.stacked_capture import capture_stack
from prunescope.types import ConfigError


@pytest.mark.parametrize("activation", ["tanh", "softsign", "linear"])
@pytest.mark.parametrize("output", ["logits", "log-softmax", "softmax", "sigmoid"])
def test_captured_layers_equal_those_of_each_network(activation, output, monkeypatch):
    monkeypatch.setattr(stacked_capture, "BLOCK_BYTES", 20_000)  # several blocks
    made, x = nets(shape=(3, 4), widths=[6, 5], activation=activation, output=output), problem(50, (3, 4)).x
    for layers in (None, ["fc1", "act2", "fc2", "output"]):
        found = capture_stack(made, x, layers)
        for i, model in enumerate(made):
            alone = capture(model, x, layers)
            assert list(alone) == list(found)
            for name, values in alone.items():
                torch.testing.assert_close(found[name][i], values, rtol=1e-5, atol=1e-6)


def test_layers_of_other_modules_are_captured_too():
    for make, shape in ((convolutions, (1, 8, 8)), (batch_normalised, (12,))):
        made, x = make(), problem(20, shape).x
        found = capture_stack(made, x)
        for (i, model), name in itertools.product(enumerate(made), found):
            assert torch.equal(found[name][i], capture(model, x)[name])
    with pytest.raises(ConfigError, match="layer"):
        capture_stack(nets(widths=[4]), problem().x, ["fc9"])
