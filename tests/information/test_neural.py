"""Neural bounds: the formulas by hand, held-out parts that are disjoint, and what they find on known tasks."""

from __future__ import annotations

import math

import pytest
import torch

from prunescope.data.synthetic import tasks
from prunescope.information.critics import Critic, NormalStart, layers, network
from prunescope.information.neural import (
    Objective,
    bound_value,
    evaluate,
    infonce,
    mine,
    nwj,
    off_diagonal,
    prepared,
    smile,
    standard_error,
    thirds,
)
from prunescope.types import EstimateError

BOUNDS = {"mine": mine, "nwj": nwj, "infonce": infonce, "smile": smile}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_bounds_by_hand():
    pairs = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0], [0.0, -0.5, 6.0]], dtype=torch.float64)
    others = torch.tensor([0.0, -1.0, 0.5, 0.0, 0.0, -0.5], dtype=torch.float64)
    assert off_diagonal(pairs).flatten().tolist() == others.tolist()
    assert float(bound_value(pairs, "donsker-varadhan")) == pytest.approx(3 - math.log(float(others.exp().mean())))
    assert float(bound_value(pairs, "nwj")) == pytest.approx(4 - float(others.exp().mean()))
    by_row = sum(float(pairs[i, i]) - math.log(float(pairs[i].exp().mean())) for i in range(3)) / 3
    assert float(bound_value(pairs, "infonce")) == pytest.approx(by_row)
    large = off_diagonal(10 * pairs).clamp(-5, 5)
    assert float(bound_value(10 * pairs, "smile")) == pytest.approx(30 - math.log(float(large.exp().mean())))


def test_infonce_cannot_exceed_the_logarithm_of_its_group():
    assert float(bound_value(1e4 * torch.eye(7), "infonce")) == pytest.approx(math.log(7))


def test_the_gradient_of_mine_uses_the_moving_average():
    objective = Objective("donsker-varadhan", forget=0.5)
    pairs = torch.zeros(3, 3, requires_grad=True)
    objective(pairs).backward()
    assert objective.level == pytest.approx(1.0)
    first = pairs.grad.clone()
    assert float(first[0, 0]) == pytest.approx(-1 / 3)
    assert float(first[0, 1]) == pytest.approx(1 / 6)
    higher = torch.full((3, 3), math.log(3.0), requires_grad=True)
    objective(higher).backward()
    assert objective.level == pytest.approx(2.0)
    assert float(higher.grad[0, 1]) == pytest.approx(3 / 6 / 2)  # exp T' / count / average, not exp T' / sum of this batch


def test_evaluation_equals_the_bound_in_one_group_and_parts_are_disjoint():
    x, y = torch.randn(200, 2, generator=generator()), torch.randn(200, 2, generator=generator(1))
    critic = Critic(2, 2, shape="separable", hidden=(8,), start=None, generator=generator())
    for bound in ("donsker-varadhan", "nwj", "infonce", "smile"):
        value, terms = evaluate(critic, x, y, bound)
        with torch.no_grad():
            assert float(value) == pytest.approx(float(bound_value(critic.scores(x, y).double(), bound)), abs=1e-6)
        assert terms.shape == (200,)
    parts = thirds(101, generator())
    assert sorted(torch.cat(parts).tolist()) == list(range(101))
    assert float(standard_error(torch.tensor([1.0, 3.0]))) == pytest.approx(1.0)


def test_critics_start_where_they_should():
    x = torch.randn(60, 3, generator=generator())
    y = 0.8 * x[:, :2] + 0.6 * torch.randn(60, 2, generator=generator(1))
    for shape in ("separable", "joint"):
        zero = Critic(3, 2, shape=shape, hidden=(8, 4), start=None, generator=generator())
        assert float(zero.scores(x, y).detach().abs().max()) < 1e-6
        start = NormalStart(x, y)
        critic = Critic(3, 2, shape=shape, hidden=(8, 4), start=start, generator=generator())
        assert torch.allclose(critic.scores(x, y).detach(), start(x, y), atol=1e-5)


def test_the_joint_critic_is_the_network_on_each_pair():
    critic = Critic(2, 1, shape="joint", hidden=(5,), start=None, generator=generator())
    critic.parts[0] = layers([3, 5, 1], generator(3))
    x, y = torch.randn(4, 2, generator=generator(1)), torch.randn(6, 1, generator=generator(2))
    direct = network(torch.cat([x[2], y[4]])[None], critic.parts[0])
    assert float(critic.scores(x, y)[2, 4].detach()) == pytest.approx(float(direct.detach()), abs=1e-5)


def test_the_normal_start_is_the_normal_ratio():
    g = generator(5)
    x = torch.randn(40_000, 1, generator=g)
    y = 0.7 * x + math.sqrt(0.51) * torch.randn(40_000, 1, generator=g)
    ratio = NormalStart(x, y)(torch.tensor([[1.0]]), torch.tensor([[0.5]]))
    exact = -0.5 * math.log(0.51) + (2 * 0.7 * 0.5 - 0.49 * 1.25) / (2 * 0.51)
    assert float(ratio) == pytest.approx(exact, abs=0.02)


@pytest.mark.parametrize("name", BOUNDS)
def test_pairs_of_correlation_07_and_the_same_shuffled(name):
    x, y = tasks()["five-pairs-5x5"].sample(3000)
    found = BOUNDS[name](x, y, steps=150, generator=generator())
    assert float(found.value) == pytest.approx(1.683, abs=0.25)
    assert 0.02 < float(found.stderr) < 0.12
    shuffled = BOUNDS[name](x, y[torch.randperm(3000, generator=generator())], steps=150, generator=generator())
    assert abs(float(shuffled.value)) < 0.03


def test_from_zero_the_network_learns_what_no_correlation_shows():
    g = generator(2)
    x = torch.randn(3000, 1, generator=g)
    y = x.abs() + 0.3 * torch.randn(3000, 1, generator=g)
    found = mine(x, y, start="zero", margins="standard", steps=400, generator=generator())
    assert float(found.value) > 0.4
    assert found.detail["before_training"] == pytest.approx(0, abs=1e-6)


def test_labels_are_taken_and_bounded():
    x, y = tasks()["two-normals-1.0"].sample(2000)
    found = infonce(x, y, steps=200, generator=generator())
    assert float(found.value) == pytest.approx(0.337, abs=0.1)
    assert found.ceiling == pytest.approx(math.log(400))
    assert prepared(torch.tensor([3, 9, 3]), "rank").tolist() == [[1, 0], [0, 1], [1, 0]]


def test_seeded_and_batched():
    x, y = tasks()["normal-1x1"].sample(300)
    one, same, other = (float(mine(x, y, steps=60, start="zero", generator=generator(s)).value) for s in (1, 1, 2))
    assert one == same != other
    both = mine(torch.stack([x, x]), torch.stack([y, y]), steps=50, generator=generator())
    assert both.value.shape == both.stderr.shape == (2,)


def test_the_joint_critic_runs_and_reports():
    x, y = tasks()["normal-1x1"].sample(400)
    found = nwj(x, y, critic="joint", steps=50, generator=generator())
    assert float(found.value) == pytest.approx(0.413, abs=0.3)
    assert found.detail["checks"] == 2


def test_refusals():
    x, y = tasks()["normal-1x1"].sample(100)
    with pytest.raises(EstimateError, match="40 samples are too few"):
        mine(x[:40], y[:40])
    with pytest.raises(EstimateError, match="critic is one of separable, joint"):
        mine(x, y, critic="deep")
    with pytest.raises(EstimateError, match="start is one of"):
        nwj(x, y, start="one")
    with pytest.raises(EstimateError, match="margins is one of"):
        smile(x, y, margins="none")
    with pytest.raises(EstimateError, match="NaN or infinite"):
        mine(torch.full_like(x, math.nan), y, margins="standard")


@pytest.mark.slow
def test_five_percent_at_ten_thousand_samples():
    task = tasks()["five-pairs-5x5"]
    for seed in range(3):
        found = mine(*task.sample(10_000, seed=seed), generator=generator(seed))
        assert abs(float(found.value) - task.mi) < max(0.05 * task.mi, 2.5 * float(found.stderr))
