"""A training that is put down between two epochs and taken up again ends where it would have ended."""

import copy

import pytest
import torch
from stacks import COUNT, SETTINGS, distance, problem, tanh_nets

from prunescope.pruning import prune
from prunescope.training import train
from prunescope.training.checkpoint import snapshot
from prunescope.training.replicas import train_stack
from prunescope.types import ConfigError


class Camera:
    """Takes a snapshot at the end of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch, self.taken = epoch, None

    def epoch_end(self, state):
        if state.epoch == self.epoch:
            self.taken = snapshot(state)


class Log:
    """Notes the epochs that end and the learning rates by then."""

    def __init__(self) -> None:
        self.seen: list[tuple] = []

    def epoch_end(self, state):
        self.seen.append((state.epoch, state.steps, [g["lr"] for g in state.optimizer.param_groups]))


def same(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize("name", [n for n in SETTINGS if n != "full batch"])
@pytest.mark.parametrize("masked", [False, True])
def test_a_network_alone(name, masked):
    whole, again = tanh_nets()[0], tanh_nets()[1]
    masks = prune(whole, sparsity=0.5) if masked else None
    others = copy.deepcopy(masks).bind(again) if masks is not None else None
    camera, log, rest = Camera(3), Log(), Log()
    train(whole, problem(), SETTINGS[name], seed=1, masks=masks, listeners=[camera, log])
    state = train(again, problem(), SETTINGS[name], seed=1, masks=others, listeners=[rest], resume=camera.taken)
    assert same(whole, again)
    assert rest.seen == [seen for seen in log.seen if seen[0] > 3]
    assert state.epoch == SETTINGS[name].epochs


@pytest.mark.parametrize("name", ["momentum", "nesterov, weight decay, milestones", "adam, weight decay, cosine"])
def test_a_stack_and_each_of_its_replicates(name):
    """As a stack the weights are equal to the last bit; taken out of it or put into it, within the bound of stacks."""
    whole, again, single = tanh_nets(), tanh_nets()[::-1], tanh_nets()[::-1]
    masks = [prune(m, sparsity=0.3 + 0.1 * i) for i, m in enumerate(whole)]
    cameras = [Camera(3) for _ in whole]
    train_stack(whole, problem(), SETTINGS[name], seeds=range(COUNT), masks=masks, listeners=[[c] for c in cameras])
    taken = [c.taken for c in cameras]
    logs = [Log() for _ in whole]
    states = train_stack(
        again, problem(), SETTINGS[name], seeds=range(COUNT), masks=masks, listeners=[[x] for x in logs], resume=taken
    )
    assert [e for e, *_ in logs[0].seen] == list(range(4, SETTINGS[name].epochs + 1))
    assert {s.steps for s in states} == {16 * SETTINGS[name].epochs}
    assert all(same(a, b) for a, b in zip(whole, again, strict=True))
    alone = Camera(5)
    train(single[0], problem(), SETTINGS[name], seed=0, masks=copy.deepcopy(masks[0]).bind(single[0]), listeners=[alone], resume=taken[0])
    assert distance(whole[0], single[0]) < 1e-5
    rest = tanh_nets()[:1]
    train_stack(rest, problem(), SETTINGS[name], seeds=[0], masks=masks[:1], stack="on", resume=[alone.taken])
    assert distance(whole[0], rest[0]) < 1e-5


def test_where_all_had_ended_nothing_is_done():
    whole, again = tanh_nets(), tanh_nets()
    cameras = [Camera(7) for _ in whole]
    train_stack(whole, problem(), SETTINGS["sgd"], seeds=range(COUNT), listeners=[[c] for c in cameras])
    log = Log()
    states = train_stack(
        again, problem(), SETTINGS["sgd"], seeds=range(COUNT), listeners=[[log]] * COUNT, resume=[c.taken for c in cameras]
    )
    assert all(same(a, b) for a, b in zip(whole, again, strict=True))
    assert not log.seen
    assert states[0].loss is None


def test_batch_statistics_are_kept():
    def make():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(12, 6), torch.nn.BatchNorm1d(6), torch.nn.Dropout(0.2), torch.nn.Linear(6, 2))

    whole, again, camera = make(), make(), Camera(2)
    train(whole, problem(), SETTINGS["adam"], seed=1, listeners=[camera])
    train(again, problem(), SETTINGS["adam"], seed=1, resume=camera.taken)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))


def test_replicates_that_have_come_differently_far_do_not_stack():
    camera = Camera(3)
    train(tanh_nets()[0], problem(), SETTINGS["sgd"], seed=0, listeners=[camera])
    with pytest.raises(ConfigError, match="come differently far"):
        train_stack(tanh_nets()[:2], problem(), SETTINGS["sgd"], seeds=[0, 1], resume=[camera.taken, None])
