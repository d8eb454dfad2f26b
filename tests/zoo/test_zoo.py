"""The zoo itself: small networks, nothing at zero, the same at every call; and the masks and their count by hand."""

import pytest
import torch

import prunescope as ps
from prunescope.pruning import couple
from zoo import ZOO, Member, results
from zoo.masking import EXTENTS, masks_for, removable

pytestmark = pytest.mark.filterwarnings("ignore")


def ready(name: str) -> Member:
    member = ZOO[name]
    if member.missing:
        pytest.skip(f"{name} needs {member.missing}: pip install 'prunescope[hf]'")
    return member


def test_there_are_enough():
    assert len(ZOO) >= 45
    assert sum(not m.packages for m in ZOO.values()) >= 60, "most need torch alone"
    assert sum(m.resizable for m in ZOO.values()) >= 45


@pytest.mark.parametrize("name", ZOO)
def test_each_is_small_random_and_takes_its_sizes(name):
    member = ready(name)
    model, inputs = member()
    parameters = dict(model.named_parameters())
    assert sum(p.numel() for p in parameters.values()) < 500_000
    assert not model.training
    flat = [n for n, p in parameters.items() if p.numel() > 1 and bool((p == 0).any()) and "embed" not in n]
    assert flat == [], "zeros hide mistakes"
    again, _ = member()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))
    sizes = [inputs, member.inputs(1), member.inputs(7), *([member.inputs(3, other=True)] if member.resizable else [])]
    assert all(bool(t.isfinite().all()) for size in sizes for t in results(model, size))


def test_extents_by_hand():
    """Two of four units: 3 + 1 of each unit's own and 2 of the next layer's for each, of 26 parameters."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Sigmoid(), torch.nn.Linear(4, 2))
    coupling = couple(model, torch.zeros(1, 3))
    found = {extent: masks_for(model, coupling, 0.5, "magnitude", extent) for extent in EXTENTS}
    assert {e: sum(int((~m).sum()) for m in masks.values()) for e, masks in found.items()} == {"whole": 12, "units": 8, "weights": 6}
    assert {e: removable(model, coupling, masks) for e, masks in found.items()} == {"whole": 12, "units": 8, "weights": 0}
    half = ps.Masks({"0.weight": torch.tensor([[False], [True], [False], [True]]).expand(4, 3)})
    assert removable(model, coupling, half) == 0, "a unit whose bias stays still says something"
