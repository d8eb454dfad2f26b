"""Allocations: exact totals, the published formulas by hand, budgets met and not exceeded by more than a piece."""

import math

import pytest
import torch
from torch import nn

import prunescope as ps
from prunescope.pruning.allocation import erdos_renyi, erk, flops, global_, lamp, lamp_scores, parameters, uniform
from prunescope.pruning.positions import positions
from prunescope.types import PruningError

SHAPES = {"conv": (8, 4, 3, 3), "wide": (64, 72), "narrow": (3, 64)}


def scores() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {n: torch.rand(math.prod(s), generator=generator) * (1 + i) for i, (n, s) in enumerate(SHAPES.items())}


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("rule", [erk, erdos_renyi])
def test_densities_in_proportion_and_exact_in_total(rule, sparsity):
    found = scores()
    counts = rule(found, sparsity, SHAPES)
    assert sum(counts.values()) == round(sparsity * sum(s.numel() for s in found.values()))
    density = {n: 1 - counts[n] / found[n].numel() for n in found}
    dims = {n: s if rule is erk else s[:2] for n, s in SHAPES.items()}
    factor = {n: density[n] / (sum(d) / math.prod(d)) for n, d in dims.items() if counts[n] > 0}
    if sparsity:
        sizes = [found[n].numel() for n in factor]
        ratio = max(factor.values()) / min(factor.values())
        assert ratio < 1 + 2.0 / min(size * (1 - sparsity) for size in sizes) + 0.2 * (sparsity == 0.99), "equal but for whole pieces"


def test_erk_by_hand():
    """Two layers 2x2 and 10x10 at half: raw densities 4/4 and 20/100; 52 kept = 4 (dense) + 48."""
    counts = erk({"a": torch.rand(4), "b": torch.rand(100)}, 0.5, {"a": (2, 2), "b": (10, 10)})
    assert counts == {"a": 0, "b": 52}


def test_lamp_by_the_definition():
    values = torch.tensor([3.0, 1.0, 2.0, 2.0])
    expected = [9 / 9, 1 / 18, 4 / (9 + 4), 4 / (9 + 4 + 4)]
    assert lamp_scores(values)[[0, 1]].tolist() == pytest.approx(expected[:2])
    assert sorted(lamp_scores(values)[2:].tolist()) == pytest.approx(sorted(expected[2:]))
    assert lamp(scores(), 0.999)["narrow"] < SHAPES["narrow"][0] * SHAPES["narrow"][1], "no layer loses its last weight"


def test_budgets_take_the_shortest_run_of_the_ranking():
    found = {"a": torch.tensor([0.1, 0.4, 0.9]), "b": torch.tensor([0.2, 0.3, 0.8])}
    assert parameters(found, 0.5, {"a": 10.0, "b": 1.0}) == {"a": 2, "b": 2}  # 10, 11, 12, 22 of 33
    assert flops(found, 0.3, {"a": 10.0, "b": 1.0}) == {"a": 1, "b": 0}
    assert parameters(found, 0.0, {"a": 1.0, "b": 1.0}) == {"a": 0, "b": 0}
    with pytest.raises(PruningError, match=r"99\.0% of the parameters cannot go where every layer keeps 1: at most 66\.7% can"):
        parameters(found, 0.99, {"a": 1.0, "b": 1.0})


def test_least_survivors():
    found = {"small": torch.rand(5) * 1e-3, "large": torch.rand(95)}
    assert global_(found, 0.5)["small"] == 5
    assert global_(found, 0.5, least=2) == {"small": 3, "large": 47}
    assert uniform(found, 0.9, least=3) == {"small": 2, "large": 86}
    with pytest.raises(PruningError, match="at most 80 can"):
        global_({"a": torch.rand(50), "b": torch.rand(50)}, 0.9, least=10)


def test_positions_are_counted_on_the_inputs():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(64, 2))
    used = positions(net, torch.zeros(2, 1, 8, 8))
    assert (used["0"], used["2"], used["4"]) == (36, 16, 1)


@pytest.mark.parametrize("granularity", ["weight", "neuron"])
def test_a_flops_budget_is_met_on_a_network(granularity):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 2))
    each = {"0.weight": 36, "2.weight": 16, "4.weight": 1}
    total = sum(each[n] * p.numel() for n, p in net.named_parameters() if n in each)
    masks = ps.prune(net, sparsity=0.6, granularity=granularity, allocation="flops", example_inputs=torch.zeros(1, 1, 8, 8))
    gone = sum(each[n] * int((~masks[n]).sum()) for n in each)
    largest = max(each[n] * (net.get_parameter(n)[0].numel() if granularity == "neuron" else 1) for n in each)
    assert 0.6 * total <= gone < 0.6 * total + largest
    with pytest.raises(PruningError, match="example_inputs"):
        ps.prune(net, sparsity=0.6, allocation="flops")


def test_options_are_checked_by_name():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    masks = ps.prune(net, sparsity=0.8, allocation="global", options={"least": 3})
    assert int(masks["0.weight"].sum()) >= 3
    with pytest.raises(ps.PrunescopeError, match="did you mean 'least'"):
        ps.prune(net, sparsity=0.5, options={"leats": 3})
    with pytest.raises(ps.PrunescopeError, match="expected int"):
        ps.prune(net, sparsity=0.5, options={"least": "three"})


def test_lamp_ranks_what_is_gone_and_negative_scores_lowest():
    found = lamp_scores(torch.tensor([2.0, -torch.inf, 1.0, -3.0]))
    assert found.tolist() == pytest.approx([1.0, -torch.inf, 0.2, -3.0])


@pytest.mark.parametrize("name", ["lamp", "sensitivity", "erk", "global"])
def test_a_second_pruning_reaches_its_count_whatever_the_first_took(name):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 8), nn.Linear(8, 3))
    data = (torch.randn(30, 12), torch.arange(30) % 3)
    first = ps.prune(net, sparsity=0.4, table={"0": 0.75, "2": 0.1})
    masks = ps.prune(net, sparsity=0.5, criterion="taylor", allocation=name, masks=first, data=data, example_inputs=data[0])
    assert sum(int((~m).sum()) for m in masks.values()) == 100
    assert not any((masks[n] & ~first[n]).any() for n in masks)
