"""Masks to and from PyTorch's own pruning: the same entries, the same outputs, the model's own names back."""

import copy

import pytest
import torch
import torch.nn.utils.prune as torch_prune
from torch import nn
from torch.ao.pruning import WeightNormSparsifier

import prunescope as ps
from prunescope.types import ConfigError, PruningError


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))


X = torch.linspace(-1, 1, 72).view(2, 1, 6, 6)


def test_from_nn_utils_prune_reads_what_it_does_and_gives_the_names_back():
    model = net()
    keys = list(model.state_dict())
    torch_prune.global_unstructured([(model[0], "weight"), (model[3], "weight")], torch_prune.L1Unstructured, amount=0.6)
    torch_prune.ln_structured(model[5], "weight", amount=1, n=2, dim=0)
    torch_prune.random_unstructured(model[5], "weight", amount=0.25)  # the second mask of one parameter
    wanted, output = {"0.weight": model[0].weight_mask, "3.weight": model[3].weight_mask, "5.weight": model[5].weight_mask}, model(X)
    masks = ps.from_torch_prune(model)
    assert {n: m.bool().tolist() for n, m in wanted.items()} == {n: m.tolist() for n, m in masks.items()}
    assert "0.weight_orig" in model.state_dict(), "reading changes nothing"
    with pytest.raises(PruningError, match=r"call masks\.bind"):
        masks.parameters()
    again = ps.from_torch_prune(model, restore=True)
    assert sorted(model.state_dict()) == sorted(keys)
    assert torch.equal(model(X), output)
    assert all((dict(model.named_parameters())[n][~m] == 0).all() for n, m in again.items())
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    again.attach(optimizer)
    model(X).square().sum().backward()
    optimizer.step()
    assert all((dict(model.named_parameters())[n][~m] == 0).all() for n, m in again.items())


def test_from_a_sparsifier_of_ao_pruning():
    model = net()
    keys = sorted(model.state_dict())
    sparsifier = WeightNormSparsifier(sparsity_level=0.5, sparse_block_shape=(1, 1), zeros_per_block=1)
    sparsifier.prepare(model, [{"tensor_fqn": "3.weight"}, {"tensor_fqn": "5.weight"}])
    sparsifier.step()
    output = model(X)
    masks = ps.from_torch_prune(model, restore=True)
    assert set(masks) == {"3.weight", "5.weight"}
    assert masks.sparsity() == pytest.approx(0.5)
    assert sorted(model.state_dict()) == keys
    assert torch.equal(model(X), output)


@pytest.mark.parametrize("kind", ["nn.utils.prune", "ao.pruning"])
@pytest.mark.parametrize("granularity", ["weight", "neuron"])
def test_there_and_back(kind, granularity):
    model = net()
    masks = ps.prune(model, sparsity=0.5, granularity=granularity)
    twin = copy.deepcopy(model)
    carried = ps.to_torch_prune(twin, masks, kind=kind)
    assert carried is twin
    assert torch.equal(twin(X), model(X))
    optimizer = torch.optim.SGD(twin.parameters(), 0.1, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad()
        twin(X).square().sum().backward()
        optimizer.step()
    assert (twin[3].weight[~masks["3.weight"]] == 0).all(), "theirs hold the masks"
    back = ps.from_torch_prune(twin, restore=True)
    assert set(back) == set(masks)
    assert all(torch.equal(back[n], masks[n]) for n in masks)
    assert sorted(twin.state_dict()) == sorted(model.state_dict())


def test_refusals():
    model = net()
    with pytest.raises(PruningError, match=r"Sequential carries no masks of torch\.nn\.utils\.prune"):
        ps.from_torch_prune(model)
    with pytest.raises(PruningError, match=r"unknown parameter of Sequential 'fc\.weight'"):
        ps.to_torch_prune(model, {"fc.weight": torch.ones(2, 2)})
    masks = ps.prune(model, sparsity=0.5)
    with pytest.raises(ConfigError, match=r"did you mean 'ao\.pruning'"):
        ps.to_torch_prune(model, masks, kind="ao.prunning")
    ps.to_torch_prune(model, masks)
    with pytest.raises(PruningError, match=r"0\.weight carries a mask of PyTorch's already"):
        ps.to_torch_prune(model, masks)
    tied = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    tied[2].weight = tied[0].weight
    with pytest.raises(PruningError, match=r"0\.weight is shared by 2 modules"):
        ps.to_torch_prune(tied, {"0.weight": torch.ones(4, 4)})
