"""How compact looks for a network that passes: traces made once, minutes not spent in vain, few tries for what has to stay."""

import pytest
import torch
from torch import nn

import prunescope as ps
from prunescope.pruning.compact import regraph, shrinking
from prunescope.pruning.compact.tracing import CourseError, fixed_module

pytestmark = pytest.mark.filterwarnings("ignore")


def deep(width: int = 4, layers: int = 9) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(part for _ in range(layers) for part in (nn.Linear(width, width), nn.Tanh())), nn.Linear(width, 2)).double()


def half(net: nn.Module) -> ps.Masks:
    rows = torch.tensor([True, False] * 2)[:, None]
    return ps.Masks({n: rows.expand(p.shape) for n, p in net.named_parameters() if n.endswith("weight") and len(p) == 4})


@pytest.mark.parametrize("wrong", [(2,), (0, 5), (7, 8), (0, 1, 2, 3)])
def test_what_has_to_stay_is_found_in_few_tries(monkeypatch, wrong):
    net, tries = deep(), []
    bad = {f"{2 * i}.weight" for i in wrong}

    def passes(self, made):
        tries.append(1)
        return not bad & {n for (n, dim), kept in made.kept.items() if dim == 0 and len(kept) < 4}

    def out_of(self, made, said, *, flexible=True):
        if passes(self, made):
            yield from real(self, made, said, flexible=flexible)

    real = shrinking.Build._of
    monkeypatch.setattr(shrinking.Build, "_passes", passes)
    monkeypatch.setattr(shrinking.Build, "_of", out_of)
    small, report = ps.compact(net, half(net), torch.randn(2, 4).double())
    assert {n for n, p in small.named_parameters() if n.endswith("weight") and len(p) == 4} == bad
    stays = "could not be removed in a way that passed the check"
    assert sum(stays in str(row) for row in report.rows) >= len(wrong)
    assert len(tries) <= 2 + len(wrong) * 5, "halving, not one after the other"


class Turning(nn.Module):
    """Its course depends on how many samples or places come; and it takes no other width than its own."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        n = x.shape[1]
        x = torch.tanh(self.first(x)).reshape(x.shape[0], n, 6)
        if n > 4:
            x = x + x.flip(1)
        return self.second(x.reshape(x.shape[0], n, 6))


def test_open_sizes_are_not_tried_where_another_size_means_another_graph(monkeypatch):
    torch.manual_seed(0)
    net = Turning().double()
    tried = []
    for name in ("freed_module", "open_module", "batch_module", "fixed_module"):
        real = getattr(regraph, name)
        monkeypatch.setattr(regraph, name, lambda model, inputs, real=real, name=name: tried.append(name) or real(model, inputs))
    masks = {"first.weight": torch.tensor([True, False, True, False, True, True])[:, None].expand(6, 6)}
    monkeypatch.setattr(shrinking, "own_classes", lambda *_: (_ for _ in ()).throw(shrinking.UnfitError("not here")))
    small, report = ps.compact(net, masks, torch.randn(2, 3, 6).double())
    assert report.how == "graph module"
    assert tried == ["freed_module", "batch_module"], "and none after one that takes any batch"
    assert small(torch.randn(5, 3, 6).double()).shape == (5, 3, 3)


def test_a_trace_is_made_once_and_each_taker_has_a_graph_of_its_own():
    net, made = deep(layers=2), []

    def build(model, inputs):
        made.append(1)
        return fixed_module(model, inputs)

    def refused(model, inputs):
        made.append(2)
        raise CourseError("no")

    traces = regraph.Traces(net, ((torch.randn(2, 4).double(),), {}))
    one, two = traces(build), traces(build)
    assert made == [1]
    assert one is not two
    next(n for n in one.graph.nodes if n.op == "call_function").target = torch.ops.aten.relu.default
    assert next(n for n in two.graph.nodes if n.op == "call_function").target != torch.ops.aten.relu.default
    assert {t.data_ptr() for t in one.parameters()} == {t.data_ptr() for t in net.parameters()}
    for _ in range(2):
        with pytest.raises(CourseError):
            traces(refused)
    assert made == [1, 2]
