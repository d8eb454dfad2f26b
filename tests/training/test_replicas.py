"""Replicates trained together against the same replicates trained alone."""

import copy

import pytest
import torch
from stacks import BOUND, COUNT, SETTINGS, assert_same, both_ways, distance, nets, problem, tanh_nets
from torch import nn

from prunescope import models
from prunescope.config import TrainingConfig
from prunescope.models import ACTIVATIONS
from prunescope.pruning import Masks, prune
from prunescope.pruning.schedules import geometric
from prunescope.training import train
from prunescope.training.arrangement import Way, arrange
from prunescope.training.replicas import train_stack
from prunescope.types import Split


@pytest.mark.parametrize("name", SETTINGS)
def test_weights_equal_those_of_one_by_one(name):
    alone, together, states = both_ways(tanh_nets, problem(), SETTINGS[name])
    assert_same(alone, together)
    assert {s.epoch for s in states} == {SETTINGS[name].epochs}
    assert {s.steps for s in states} == {7 * 17 if name == "last batch dropped" else states[0].steps}
    assert distance(together[0], together[1]) > 0.1  # replicates stay themselves


@pytest.mark.parametrize("name", ["momentum", "adamw, last batch smaller"])
def test_one_network_alone_and_in_a_stack_of_fifty(name):
    fifty = [
        models.build("mlp", input_shape=(12,), classes=2, seed=s, options={"widths": [10, 7, 5, 4, 3], "activation": "tanh"})
        for s in range(50)
    ]
    alone = [copy.deepcopy(fifty[i]) for i in (0, 23, 49)]
    assert arrange(fifty, [problem()] * 50, SETTINGS[name]).size == 50
    train_stack(fifty, problem(), SETTINGS[name], seeds=range(50))
    for model, i in zip(alone, (0, 23, 49), strict=True):
        train(model, problem(), SETTINGS[name], seed=i)
        assert distance(model, fifty[i]) < BOUND


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_trained_by_hand_as_autograd_would(activation):
    def make():
        return nets(widths=[8, 6], activation=activation, classes=3)

    data = problem(classes=3)
    assert arrange(make(), [data] * COUNT, SETTINGS["sgd"]).way is Way.STACKED
    assert_same(*both_ways(make, data, SETTINGS["momentum"])[:2])


@pytest.mark.parametrize(
    ("output", "loss"),
    [("logits", "cross-entropy"), ("log-softmax", "nll"), ("log-softmax", "cross-entropy"), ("softmax", "cross-entropy"),
     ("sigmoid", "binary-cross-entropy")],
)
@pytest.mark.parametrize("bias", [True, False])
def test_every_head_is_trained_by_hand_as_autograd_would(output, loss, bias):
    def make():
        return nets(widths=[8, 6], activation="relu", output=output, bias=bias)

    settings = SETTINGS["momentum"].model_copy(update={"loss": loss})
    assert arrange(make(), [problem()] * COUNT, settings).way is Way.STACKED
    alone, together, states = both_ways(make, problem(), settings)
    assert_same(alone, together)
    single = make()[0]
    expected = train(single, problem(), settings, seed=10).loss
    assert states[0].loss == pytest.approx(float(expected.detach()), rel=1e-4)


def test_a_probability_of_exactly_one_gets_torchs_own_slope():
    """Where the sigmoid is saturated, binary cross-entropy gives zero: p - y would not."""

    def make():
        made = nets(widths=[4], output="sigmoid")
        for model in made:
            nn.init.constant_(model.output.bias, 200.0)
        return made

    settings = TrainingConfig(epochs=1, batch_size="full", lr=1.0, loss="binary-cross-entropy")
    assert_same(*both_ways(make, problem(), settings)[:2], bound=1e-7)


@pytest.mark.parametrize("stack", [2, "on", "auto", 1, "off"])
def test_the_number_at_once_changes_nothing(stack):
    assert_same(*both_ways(tanh_nets, problem(), SETTINGS["adam"], stack=stack)[:2])


@pytest.mark.parametrize("batch_size", [16, "full"])
def test_each_replicate_may_have_its_own_samples(batch_size):
    data = [problem(seed=i) for i in range(COUNT)]
    settings = TrainingConfig(epochs=4, batch_size=batch_size, lr=0.1)
    assert_same(*both_ways(tanh_nets, data, settings)[:2])


def test_images_are_flattened_and_float64_is_trained_as_such():
    def make():
        return [m.double() for m in nets(shape=(1, 4, 3), widths=[8], activation="tanh")]

    data = problem(shape=(1, 4, 3))
    alone, together, _ = both_ways(make, Split(data.x.double(), data.y), SETTINGS["adam"])
    assert_same(alone, together, bound=1e-13)


def different_masks(made: list[nn.Module]) -> list[Masks | None]:
    kinds = [{"sparsity": 0.5}, {"sparsity": 0.9, "criterion": "random"}, {"sparsity": 0.4, "granularity": "neuron"}]
    return [None, *(prune(m, seed=i, **k) for i, (m, k) in enumerate(zip(made[1:4], kinds, strict=True))), None]


@pytest.mark.parametrize("name", ["momentum", "adam, weight decay, cosine"])
def test_masks_of_each_replicate_hold(name):
    alone, together, _ = both_ways(tanh_nets, problem(), SETTINGS[name], masks=different_masks)
    assert_same(alone, together)
    masks = different_masks(tanh_nets())
    for one, two, mask in zip(alone[1:4], together[1:4], masks[1:4], strict=True):
        for key, kept in mask.items():
            values = dict(two.named_parameters())[key].detach()
            assert torch.equal(values != 0, dict(one.named_parameters())[key].detach() != 0)
            assert not values[~kept].any()
            assert values[kept].any()


def test_pruning_after_training_and_iteratively_with_fine_tuning():
    """Train, then three rounds of pruning a little more and fine-tuning: the masks are the same, the weights within the bound."""
    alone, together, _ = both_ways(tanh_nets, problem(), SETTINGS["sgd"])
    tuning = TrainingConfig(epochs=2, batch_size=16, optimizer="adam", lr=1e-3)
    held = [[None] * COUNT, [None] * COUNT]
    for turn in range(3):
        for made, masks in zip((alone, together), held, strict=True):
            masks[:] = [prune(m, sparsity=geometric((turn + 1) / 3, 0.7), masks=k) for m, k in zip(made, masks, strict=True)]
        for i, model in enumerate(alone):
            train(model, problem(), tuning, seed=i, phase=f"finetune {turn}", masks=held[0][i])
        train_stack(together, problem(), tuning, seeds=range(COUNT), phase=f"finetune {turn}", masks=held[1])
        assert all(torch.equal(a[n], b[n]) for a, b in zip(*held, strict=True) for n in a)
    assert_same(alone, together)
