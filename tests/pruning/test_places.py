"""compact works on the processor and gives the network back where it was. The meta device stands for a GPU, which no test may need."""

import copy

import pytest
import torch
from torch import nn

import prunescope as ps
from prunescope.pruning.compact.places import Places
from zoo import ZOO

META = torch.device("meta")


class Loose(nn.Module):
    """A tensor that is no buffer, and two names for one weight."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.first.weight
        self.scale = torch.full((4,), 2.0)
        self.register_buffer("count", torch.ones(()))

    def forward(self, x):
        return self.tied(self.first(x)) * self.scale


def test_tensors_go_back_to_where_those_of_their_name_came_from():
    model = Loose()
    model.first.requires_grad_(False)
    places = Places(model)
    assert set(places.of.values()) == {torch.device("cpu")}
    places.of = {n: META if n.startswith("tied") or n == "scale" else d for n, d in places.of.items()}
    model = Loose()
    back = places.back(copy.deepcopy(model))
    assert (back.tied.bias.device, back.scale.device, back.first.bias.device) == (META, META, torch.device("cpu"))
    assert back.first.weight is back.tied.weight, "tied weights stay one"
    assert isinstance(back.tied.bias, nn.Parameter)
    assert torch.equal(back.first.bias, model.first.bias)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["gpt", "swin", "encoderdecoder"])
def test_a_network_given_back_to_another_device_works_there(name):
    """Own classes, and a graph whose code makes positions and masks on the device that it names."""
    model, example = ZOO[name]()
    masks = ps.prune(model, sparsity=0.5, granularity="channel", example_inputs=example, options={"least": 1})
    small, report = ps.compact(model, masks, example_inputs=example)
    expected = small(*example)
    places = Places(model)
    places.of, places.most = dict.fromkeys(places.of, META), META
    there = places.back(copy.deepcopy(small))
    assert {t.device for t in there.state_dict().values()} == {META}
    found = there(*(e.to(META) for e in example))
    tensors = [t for t in torch.utils._pytree.tree_leaves(found) if isinstance(t, torch.Tensor)]
    assert {t.device for t in tensors} == {META}
    assert [t.shape for t in tensors] == [t.shape for t in torch.utils._pytree.tree_leaves(expected) if isinstance(t, torch.Tensor)]
    assert report.how == ("own classes" if name == "gpt" else "graph module")
    if report.how == "graph module":
        named = {a for n in there.graph.nodes for a in (*n.args, *n.kwargs.values()) if isinstance(a, torch.device)}
        assert named == ({META} if name == "encoderdecoder" else set())
        views = [sum(n.target == torch.ops.aten.view.default for n in m.graph.nodes) for m in (small, there)]
        assert views[0] > views[1] == 0, "how a device lays out what it computes is its own affair"
    assert {t.device.type for t in small.state_dict().values()} == {"cpu"}
