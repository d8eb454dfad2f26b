"""Masks stay exact zeros through any training, and the model stays the user's own."""

import copy
import gc
import io
import pickle

import pytest
import torch
from torch import nn

import prunescope as ps
from prunescope.types import PruningError, StoreError

OPTIMIZERS = {
    "momentum and weight decay": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, fused=True),
    "adam": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9),
}


@pytest.fixture
def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3))


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(torch.randn(32, 6)), torch.randint(0, 3, (32,))).backward()
    optimizer.step()


def masked_values(model: nn.Module, masks: ps.Masks) -> torch.Tensor:
    parameters = dict(model.named_parameters())
    return torch.cat([parameters[n].detach()[~m] for n, m in masks.items()])


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("granularity", ["weight", "neuron"])
def test_masked_weights_stay_exactly_zero(net, name, granularity):
    optimizer = OPTIMIZERS[name](net.parameters())
    for _ in range(5):
        step(net, optimizer)  # momentum is there before anything is pruned
    masks = ps.prune(net, sparsity=0.5, granularity=granularity)
    handle = masks.attach(optimizer)
    for _ in range(20):
        step(net, optimizer)
        assert (masked_values(net, masks) == 0).all()
    kept = torch.cat([p.detach()[masks[n]] for n, p in net.named_parameters() if n in masks])
    assert (kept != 0).float().mean() > 0.9, "what is kept goes on learning"
    handle.remove()
    step(net, optimizer)
    assert (masked_values(net, masks) != 0).any(), "without the hook the momentum moves them again"


def test_the_model_stays_as_it_was(net):
    keys, kind, hooks = list(net.state_dict()), type(net), len(net._forward_hooks) + len(net._forward_pre_hooks)
    ps.prune(net, sparsity=0.5)
    net(torch.randn(2, 6)).sum().backward()
    assert list(net.state_dict()) == keys
    assert type(net) is kind
    assert len(net._forward_hooks) + len(net._forward_pre_hooks) == hooks
    twin = copy.deepcopy(net)
    assert torch.equal(twin[0].weight, net[0].weight)
    again = pickle.loads(pickle.dumps(net))
    assert torch.equal(again[0].weight, net[0].weight)
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    buffer.seek(0)
    fresh = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3))
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(fresh[2].weight, net[2].weight)


def test_compiled_model_trains_with_masks(net):
    masks = ps.prune(net, sparsity=0.5)
    compiled = torch.compile(net, backend="eager")  # no compiler is ever required
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    masks.attach(optimizer)
    for _ in range(3):
        step(compiled, optimizer)
    assert (masked_values(net, masks) == 0).all()


def test_masks_follow_a_model_whose_tensors_are_replaced(net):
    masks = ps.prune(net, sparsity=0.5)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    masks.attach(optimizer)
    step(net, optimizer)
    net[0].weight.data = torch.randn(16, 6)
    step(net, optimizer)
    assert (masked_values(net, masks) == 0).all()


def test_masks_copy_pickle_and_round_trip(net, tmp_path):
    masks = ps.prune(net, sparsity=0.5)
    masks.save(tmp_path / "m.safetensors")
    for other in (copy.deepcopy(masks), pickle.loads(pickle.dumps(masks)), ps.Masks.load(tmp_path / "m.safetensors")):
        assert set(other) == set(masks)
        assert all(torch.equal(other[n], masks[n]) for n in masks)
        with pytest.raises(PruningError, match=r"call masks\.bind"):
            other.parameters()
        other.bind(net).apply()
    assert masks.sparsity() == pytest.approx(0.5)


def test_masks_do_not_keep_the_model_alive():
    net = nn.Sequential(nn.Linear(6, 16), nn.Linear(16, 3))
    masks = ps.prune(net, sparsity=0.5)
    other = nn.Linear(2, 2)
    del net
    gc.collect()
    with pytest.raises(PruningError, match="not bound to a live model"):
        masks.apply()
    with pytest.raises(PruningError, match="unknown parameter of Linear"):
        masks.bind(other)


def test_refusals(net, tmp_path):
    masks = ps.prune(net, sparsity=0.5)
    with pytest.raises(PruningError, match="holds none of the masked parameters"):
        masks.attach(torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1))
    with pytest.raises(PruningError, match="has shape"):
        ps.Masks({"0.weight": torch.ones(2, 2)}, net)
    (tmp_path / "bad").write_bytes(b"nothing of the kind")
    with pytest.raises(StoreError, match="cannot be read as masks"):
        ps.Masks.load(tmp_path / "bad")


def test_from_zeros_and_intersection(net):
    masks = ps.prune(net, sparsity=0.5)
    assert torch.equal(ps.Masks.from_zeros(net)["0.weight"], masks["0.weight"])
    other = ps.Masks({"0.weight": torch.zeros(16, 6)}, net)
    assert not (masks & other)["0.weight"].any()
    assert torch.equal((masks & other)["2.weight"], masks["2.weight"])
