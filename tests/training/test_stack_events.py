"""What listeners and watchers see of a stack, and what they may change in it."""

import pytest
import safetensors.torch
import torch
from stacks import COUNT, SETTINGS, assert_same, problem, tanh_nets

from prunescope.config import TrainingConfig
from prunescope.training import save_weights, train
from prunescope.training.replicas import train_stack


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
