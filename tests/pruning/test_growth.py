"""Dynamic sparse training: counts stay exactly what they are, the smallest go, random or wanted ones grow with nothing remembered."""

import math

import pytest
import torch
from torch import nn

import prunescope as ps
from prunescope.pruning.growth import exchange, exchanged_share
from prunescope.types import PruningError

HIDDEN = ("0.weight", "2.weight")


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 16), nn.Tanh(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 3))


def step(model, optimizer) -> None:
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(torch.randn(32, 20)), torch.randint(0, 3, (32,))).backward()
    optimizer.step()


OPTIMIZERS = {
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, 0.01),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1, amsgrad=True),
}


@pytest.mark.parametrize("way", ["set", "rigl"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_counts_stay_and_what_grows_starts_from_nothing(way, optimizer):
    model = net()
    optimizer = OPTIMIZERS[optimizer](model.parameters())
    pruner = ps.Pruner(model, optimizer, sparsity=0.8, dynamic=way, end=40, every=5, seed=3, allocation="uniform")
    counts = {n: int(pruner.masks[n].sum()) for n in HIDDEN}
    assert counts == {"0.weight": 64, "2.weight": round(192 * 0.2)}
    for number in range(1, 45):
        before = pruner.masks
        step(model, optimizer)
        changed = {n: pruner.masks[n] & ~before[n] for n in HIDDEN}
        assert {n: int(pruner.masks[n].sum()) for n in HIDDEN} == counts
        for name, parameter in zip(HIDDEN, (model[0].weight, model[2].weight), strict=True):
            assert (parameter[~pruner.masks[name]] == 0).all()
            assert (parameter[changed[name]] == 0).all()
            for value in optimizer.state[parameter].values():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    assert (value[changed[name]] == 0).all()
        if number % 5 or number >= 40:
            assert pruner.masks is before
        elif number < 20:
            assert all(c.any() for c in changed.values())
    assert pruner.finish().sparsity() == pytest.approx(0.8, abs=2e-3)


def test_rigl_drops_the_smallest_and_grows_where_the_gradient_is_largest():
    """By hand for one layer: eq. of alg. 1 with share 0.3 / 2 (1 + cos(pi 2 / 10)) at step 2 of 10."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    pruner = ps.Pruner(model, optimizer, sparsity=0.5, dynamic="rigl", end=10, every=2, grow_fraction=0.3, allocation="uniform")
    step(model, optimizer)
    mask = pruner.masks["0.weight"]
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(torch.randn(32, 20)), torch.randint(0, 3, (32,))).backward()
    slope = model[0].weight.grad.clone()
    assert (slope[~mask] != 0).any(), "gradients of masked weights are there"
    after = (model[0].weight - 0.01 * slope).detach() * mask
    optimizer.step()
    count = round(0.15 * (1 + math.cos(math.pi * 0.2)) * 160)
    kept = [i for i in range(320) if mask.flatten()[i]]
    gone = sorted(kept, key=lambda i: abs(after.flatten()[i].item()))[:count]
    remaining = set(kept) - set(gone)
    grown = sorted((i for i in range(320) if i not in remaining), key=lambda i: -abs(slope.flatten()[i].item()))[:count]
    assert set(pruner.masks["0.weight"].flatten().nonzero().flatten().tolist()) == remaining | set(grown)


def test_set_is_seeded_and_random():
    def trained(seed):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        pruner = ps.Pruner(model, optimizer, sparsity=0.8, dynamic="set", every=1, seed=seed, masks=ps.prune(net(), sparsity=0.8))
        torch.manual_seed(1)
        step(model, optimizer)
        return pruner.masks["0.weight"]

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))


def test_exchange_counts_and_ties():
    generator = torch.Generator().manual_seed(0)
    weight, mask = torch.zeros(10, 10), torch.rand(10, 10, generator=generator) < 0.5
    for count in (0, 1, 7, int(mask.sum())):
        assert int(exchange(weight, mask, count, torch.zeros(10, 10)).sum()) == int(mask.sum())
    assert exchanged_share("rigl", 0.3, 1.0) == 0
    assert exchanged_share("set", 0.2, 1.0) == 0.2
    assert exchange(weight.bfloat16(), mask, 3, torch.rand(10, 10).bfloat16()).sum() == mask.sum()


def test_gradients_that_are_missing_or_no_numbers_are_named():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pruner = ps.Pruner(model, optimizer, sparsity=0.5, dynamic="rigl", end=9, every=1, automatic=False)
    step(model, optimizer)
    optimizer.zero_grad()
    with pytest.raises(PruningError, match=r"0\.weight has no gradient to grow by"):
        pruner.step()
    other = net()
    optimizer = torch.optim.SGD(other.parameters(), 0.1)
    ps.Pruner(other, optimizer, sparsity=0.5, dynamic="rigl", end=9, every=1)
    optimizer.zero_grad()
    other(torch.full((1, 20), float("nan"))).sum().backward()
    with pytest.raises(PruningError, match=r"320 of 320 gradients of 0\.weight are NaN"):
        optimizer.step()


def test_it_starts_from_masks_or_a_criterion_that_are_given():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    masks = ps.prune(net(), sparsity=0.5)
    assert torch.equal(ps.Pruner(model, optimizer, sparsity=0.5, dynamic="set", masks=masks).masks["0.weight"], masks["0.weight"])
    largest = ps.prune(net(), sparsity=0.5, criterion="magnitude")
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    chosen = ps.Pruner(model, optimizer, sparsity=0.5, dynamic="set", criterion="magnitude", allocation="uniform").masks
    assert torch.equal(chosen["0.weight"], largest["0.weight"])
    model = net()
    erk = ps.Pruner(model, torch.optim.SGD(model.parameters(), 0.1), sparsity=0.5, dynamic="set").masks
    expected = ps.prune(net(), sparsity=0.5, criterion="random", allocation="erk")
    assert erk.counts() == expected.counts()
