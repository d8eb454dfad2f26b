"""Replicates trained together against the same replicates trained alone."""

import itertools
import re

import pytest
import safetensors.torch
import torch
from torch import nn

import prunescope.models as models
from prunescope.config import TrainingConfig
from prunescope.measures.capture import capture
from prunescope.models import ACTIVATIONS
from prunescope.pruning import Masks, prune
from prunescope.pruning.schedules import geometric
from prunescope.training import save_weights, stacked_capture, train
from prunescope.training.arrangement import LARGE, Way, arrange
from prunescope.training.replicas import train_stack
from prunescope.training.stacked_capture import capture_stack
from prunescope.types import ConfigError, Split

BOUND = 1e-5  # relative distance of the weights after 100 steps; measured: 3e-8 with SGD, 3e-7 with Adam
COUNT = 5


def problem(n: int = 256, shape: tuple[int, ...] = (12,), classes: int = 2, seed: int = 0) -> Split:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *shape, generator=generator)
    return Split(x, (x.flatten(1)[:, 0] * 1.5).round().long().clamp(0, classes - 1))


def nets(name: str = "mlp", shape: tuple[int, ...] = (12,), classes: int = 2, **options) -> list[nn.Module]:
    return [models.build(name, input_shape=shape, classes=classes, seed=s, options=options) for s in range(COUNT)]


def tanh_nets() -> list[nn.Module]:
    return nets(widths=[10, 7, 5, 4, 3], activation="tanh", initialisation="uniform-fan-in")


def distance(one: nn.Module, two: nn.Module) -> float:
    a, b = (torch.cat([p.detach().flatten() for p in m.parameters()]).double() for m in (one, two))
    return float((a - b).norm() / a.norm())


def assert_same(alone: list[nn.Module], together: list[nn.Module], bound: float = BOUND) -> None:
    for one, two in zip(alone, together, strict=True):
        assert distance(one, two) < bound
        assert all(p.is_contiguous() and p.untyped_storage().nbytes() == p.nbytes for p in two.parameters())


def both_ways(make, data, settings, *, masks=None, stack="on", phase="train"):
    """The networks trained alone and together; `masks` makes the masks of a list of networks."""
    alone, together = make(), make()
    splits = data if isinstance(data, list) else [data] * COUNT
    held = [masks(alone), masks(together)] if masks else [[None] * COUNT] * 2
    for i, model in enumerate(alone):
        train(model, splits[i], settings, seed=10 + i, phase=phase, masks=held[0][i])
    states = train_stack(together, data, settings, seeds=range(10, 10 + COUNT), phase=phase, masks=held[1], stack=stack)
    return alone, together, states


SETTINGS = {  # 100 steps or a little more, of 16 batches an epoch
    "sgd": TrainingConfig(epochs=7, batch_size=16, lr=0.07),
    "momentum": TrainingConfig(epochs=7, batch_size=16, lr=0.01, momentum=0.9),
    "nesterov, weight decay, milestones": TrainingConfig(
        epochs=7, batch_size=16, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01, schedule="milestones",
        milestones=[2, 4], gamma=0.5
    ),
    "adam": TrainingConfig(epochs=7, batch_size=16, optimizer="adam", lr=3e-3),
    "adam, weight decay, cosine": TrainingConfig(
        epochs=7, batch_size=16, optimizer="adam", lr=3e-3, weight_decay=0.01, schedule="cosine"
    ),
    "from epoch 2, cosine": TrainingConfig(epochs=9, from_epoch=2, batch_size=16, lr=0.05, schedule="cosine"),
    "adamw, last batch smaller": TrainingConfig(epochs=6, batch_size=15, optimizer="adamw", lr=3e-3, weight_decay=0.1),
    "last batch dropped": TrainingConfig(epochs=7, batch_size=15, lr=0.07, drop_last=True),
    "full batch": TrainingConfig(epochs=100, batch_size="full", lr=0.1),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_weights_equal_those_of_one_by_one(name):
    alone, together, states = both_ways(tanh_nets, problem(), SETTINGS[name])
    assert_same(alone, together)
    assert {s.epoch for s in states} == {SETTINGS[name].epochs}
    assert {s.steps for s in states} == {7 * 17 if name == "last batch dropped" else states[0].steps}
    assert distance(together[0], together[1]) > 0.1  # replicates stay themselves


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


class Diary:
    """Writes down what it sees at every event; a listener of one replicate."""

    def __init__(self) -> None:
        self.seen: list[tuple] = []

    def _note(self, event, state):
        weight = next(state.model.parameters())
        slope = float(weight.grad.sum()) if event == "gradients" else 0.0
        loss = -1.0 if state.loss is None else float(state.loss.detach())
        self.seen.append((event, state.epoch, state.steps, float(weight.detach().sum()), slope, loss))

    def start(self, state):
        self._note("start", state)

    def epoch_start(self, state):
        self._note("epoch_start", state)

    def gradients(self, state):
        self._note("gradients", state)

    def step(self, state):
        self._note("step", state)

    def epoch_end(self, state):
        self._note("epoch_end", state)

    def end(self, state):
        self._note("end", state)


def test_listeners_see_what_they_see_alone():
    alone, together = tanh_nets(), tanh_nets()
    diaries = [Diary() for _ in alone], [Diary() for _ in together]
    settings = TrainingConfig(epochs=2, batch_size=64, lr=0.1)
    for i, model in enumerate(alone):
        train(model, problem(), settings, seed=i, listeners=[diaries[0][i]])
    train_stack(together, problem(), settings, seeds=range(COUNT), listeners=[[d] for d in diaries[1]], stack=2)
    for one, two in zip(*diaries, strict=True):
        assert [e[:3] for e in one.seen] == [e[:3] for e in two.seen]
        for a, b in zip(one.seen, two.seen, strict=True):
            assert a[3:] == pytest.approx(b[3:], abs=1e-5, rel=1e-4)


class Stopper:
    def __init__(self, after):
        self.after = after

    def epoch_end(self, state):
        state.stop = state.epoch >= self.after


def test_a_replicate_that_stops_keeps_the_weights_of_then():
    alone, together = tanh_nets(), tanh_nets()
    for i, model in enumerate(alone):
        train(model, problem(), SETTINGS["sgd"], seed=i, listeners=[Stopper(i + 1)])
    states = train_stack(together, problem(), SETTINGS["sgd"], seeds=range(COUNT), listeners=[[Stopper(i + 1)] for i in range(COUNT)])
    assert [s.epoch for s in states] == [1, 2, 3, 4, 5]
    assert [s.steps for s in states] == [16, 32, 48, 64, 80]
    assert_same(alone, together)


class Actor:
    """Halves the weights after the second epoch: what a listener changes is what is trained on."""

    def epoch_end(self, state):
        if state.epoch == 2:
            with torch.no_grad():
                for p in state.model.parameters():
                    p.mul_(0.5)


def test_what_a_listener_changes_takes_effect():
    alone, together = tanh_nets(), tanh_nets()
    for i, model in enumerate(alone):
        train(model, problem(), SETTINGS["sgd"], seed=i, listeners=[Actor()])
    train_stack(together, problem(), SETTINGS["sgd"], seeds=range(COUNT), listeners=[[Actor()]] * COUNT)
    assert_same(alone, together)


class Watch:
    def __init__(self):
        self.seen = []

    def start(self, states):
        self.seen.append(("start", len(states)))

    def step(self, states):
        self.seen.append(("step", len(states)))

    def epoch_end(self, states):
        self.seen.append(("epoch_end", len(states)))


def test_watchers_see_all_replicates_at_an_epochs_end_and_a_stack_at_a_step():
    watch = Watch()
    train_stack(tanh_nets(), problem(), TrainingConfig(epochs=1, batch_size="full"), seeds=range(COUNT), watchers=[watch], stack=2)
    assert watch.seen == [("start", 5), ("step", 2), ("step", 2), ("step", 1), ("epoch_end", 5)]
    alone = Watch()
    train_stack(tanh_nets(), problem(), TrainingConfig(epochs=1, batch_size="full"), seeds=range(COUNT), watchers=[alone], stack="off")
    assert alone.seen == [("start", 1), ("step", 1), ("epoch_end", 1)] * COUNT


class Saver:
    def __init__(self, path):
        self.path = path

    def epoch_end(self, state):
        save_weights(state.model, self.path)


def test_weights_can_be_saved_while_they_are_lent(tmp_path):
    made = tanh_nets()
    train_stack(made, problem(), TrainingConfig(epochs=1), seeds=range(COUNT), listeners=[[Saver(tmp_path / f"{i}")] for i in range(COUNT)])
    for i, model in enumerate(made):
        stored = safetensors.torch.load_file(tmp_path / f"{i}")
        assert all(torch.equal(stored[n], p) for n, p in model.named_parameters())


def test_an_error_in_a_listener_leaves_the_networks_their_own_weights():
    class Broken:
        def epoch_end(self, state):
            raise RuntimeError("broken")

    made = tanh_nets()
    with pytest.raises(RuntimeError, match="broken"):
        train_stack(made, problem(), SETTINGS["sgd"], seeds=range(COUNT), listeners=[[Broken()]] * COUNT)
    assert all(p.untyped_storage().nbytes() == p.nbytes and p.grad is None for m in made for p in m.parameters())


def normalised() -> list[nn.Module]:
    return [nn.Sequential(model.fc1, nn.LayerNorm(8), model.act1, model.output) for model in nets(widths=[8])]


def convolutions() -> list[nn.Module]:
    return nets("cnn", shape=(1, 8, 8), channels=[3, 4], dense=6)


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


def batch_normalised() -> list[nn.Module]:
    return [nn.Sequential(m.fc1, nn.BatchNorm1d(8), m.act1, m.output) for m in nets(widths=[8])]


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
