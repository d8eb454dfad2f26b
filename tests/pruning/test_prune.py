"""What `prune` promises: exact counts, ties by index, explicit biases, an exempt output layer, and plain refusals."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import prunescope as ps
from prunescope.pruning import prunable, select
from prunescope.pruning.allocation import fits
from prunescope.types import ConfigError, PruningError


def mlp(*widths: int, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [m for a, b in itertools.pairwise(widths) for m in (nn.Linear(a, b, bias=bias), nn.Tanh())]
    return nn.Sequential(*layers[:-1])


@pytest.fixture
def net() -> nn.Sequential:
    return mlp(12, 10, 7, 5, 4, 3, 2)


def zeros(model: nn.Module) -> dict[str, int]:
    return {n: int((p == 0).sum()) for n, p in model.named_parameters()}


def test_uniform_counts_are_those_of_the_study(net):
    """65 % of 12-10-7-5-4-3-2: 78/120, 46/70, 23/35, 13/20, 8/12 and, when the output layer is included, 4/6."""
    ps.prune(net, sparsity=0.65, output=True)
    assert [v for n, v in zeros(net).items() if n.endswith("weight")] == [78, 46, 23, 13, 8, 4]


def test_output_layer_is_exempt_by_default(net):
    masks = ps.prune(net, sparsity=0.65)
    assert zeros(net)["10.weight"] == 0
    assert "10.weight" not in masks


def test_output_layer_is_found_behind_a_softmax_and_when_registered_first():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.body = nn.Linear(8, 3), nn.Linear(5, 8)

        def forward(self, x):
            return torch.log_softmax(self.head(torch.relu(self.body(x))), -1)

    assert set(ps.prune(Odd(), sparsity=0.5)) == {"body.weight"}


def test_smallest_go_first(net):
    before = {n: p.detach().clone() for n, p in prunable(net).items()}
    masks = ps.prune(net, sparsity=0.5)
    for name, mask in masks.items():
        assert before[name].abs()[mask].min() >= before[name].abs()[~mask].max()


def test_global_is_one_ranking_over_all_layers(net):
    scores = torch.cat([p.detach().abs().flatten() for n, p in prunable(net).items() if n != "10.weight"])
    with torch.no_grad():
        net[0].weight.mul_(2)
    masks = ps.prune(net, sparsity=0.5, allocation="global")
    removed = {n: total - kept for n, (kept, total) in masks.counts().items()}
    assert sum(removed.values()) == round(0.5 * scores.numel())
    assert removed["0.weight"] / 120 < 0.4 < 0.5 < removed["2.weight"] / 70


@pytest.mark.parametrize("allocation", ["uniform", "global"])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.333, 0.5, 0.9])
def test_counts_are_exact_when_everything_ties(allocation, sparsity):
    net = mlp(20, 30, 10, 4)
    for p in net.parameters():
        nn.init.constant_(p, 1.0)
    masks = ps.prune(net, sparsity=sparsity, allocation=allocation, output=True, allow_empty=True)
    removed = sum(total - kept for kept, total in masks.counts().values())
    sizes = [m.numel() for m in masks.values()]
    assert removed == (round(sparsity * sum(sizes)) if allocation == "global" else sum(round(sparsity * n) for n in sizes))


def test_ties_are_broken_by_index():
    assert select.smallest(torch.tensor([1.0, 1.0, 0.0, 1.0]), 2).tolist() == [True, False, True, False]


def test_smallest_equals_a_stable_sort():
    generator = np.random.default_rng(3)
    for _ in range(50):
        scores = generator.integers(0, 6, 40).astype(np.float32)
        count = int(generator.integers(0, 41))
        expected = np.zeros(40, bool)
        expected[np.argsort(scores, kind="stable")[:count]] = True
        assert select.smallest(torch.from_numpy(scores), count).numpy().tolist() == expected.tolist()


@pytest.mark.parametrize(("norm", "order"), [("l1", 1), ("l2", 2)])
def test_neurons_go_by_the_norm_of_their_incoming_weights(net, norm, order):
    norms = net[2].weight.detach().norm(p=order, dim=1)
    masks = ps.prune(net, sparsity=0.4, granularity="neuron", norm=norm, layers=["2"])
    gone = ~masks["2.weight"].any(1)
    assert int(gone.sum()) == round(0.4 * 7)
    assert norms[gone].max() <= norms[~gone].min()
    assert torch.equal(masks["2.bias"], ~gone), "a removed unit takes its bias with it"
    assert (net[2].bias[gone] == 0).all()


def test_bias_rules(net):
    assert not any(n.endswith("bias") for n in ps.prune(mlp(4, 6, 2), sparsity=0.5, granularity="neuron", biases="keep"))
    masks = ps.prune(net, sparsity=0.2, biases="drop")
    assert all((p == 0).all() for n, p in net.named_parameters() if n.endswith("bias"))
    assert not masks["10.bias"].any(), "the study drops the output's bias too"


def test_a_filter_takes_its_normalisation_with_it():
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
    nn.init.uniform_(net[1].bias, 1, 2)
    masks = ps.prune(net, sparsity=0.5, granularity="filter")
    gone = ~masks["0.weight"].flatten(1).any(1)
    assert set(masks) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    net.eval()
    assert (net[:3](torch.randn(2, 1, 8, 8))[:, gone] == 0).all()


def test_random_is_seeded_and_ignores_the_weights(net):
    first = ps.prune(mlp(30, 20, 2), sparsity=0.5, criterion="random", seed=1)
    again = mlp(30, 20, 2)
    nn.init.normal_(again[0].weight)
    assert torch.equal(first["0.weight"], ps.prune(again, sparsity=0.5, criterion="random", seed=1)["0.weight"])
    other = ps.prune(mlp(30, 20, 2), sparsity=0.5, criterion="random", seed=2)
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_random_units_are_drawn_uniformly_across_layers_of_any_width():
    """Globally random neurons must not prefer layers with few inputs."""
    wide, narrow = [], []
    for seed in range(40):
        masks = ps.prune(mlp(400, 50, 50, 2), sparsity=0.5, criterion="random", granularity="neuron", allocation="global", seed=seed)
        wide.append(masks.counts()["0.bias"][0])
        narrow.append(masks.counts()["2.bias"][0])
    assert abs(np.mean(wide) - np.mean(narrow)) < 3


def test_threshold_removes_what_is_at_most_that(net):
    weight = net[0].weight.detach().clone()
    masks = ps.prune(net, threshold=0.1)
    assert torch.equal(masks["0.weight"], weight.abs() > 0.1)


def test_table_by_name_pattern(net):
    masks = ps.prune(net, table={"2": 0.5, "4.weight": 0.2})
    assert {n: t - k for n, (k, t) in masks.counts().items() if t > k} == {"2.weight": 35, "4.weight": 7}
    assert zeros(net)["0.weight"] == 0


def test_layers_and_exclusions(net):
    assert set(ps.prune(net, sparsity=0.5, layers=["2", "4"])) == {"2.weight", "4.weight"}
    assert "2.weight" not in ps.prune(mlp(9, 8, 7, 6), sparsity=0.5, exclude=["2"])
    assert fits("block.1.fc.weight", "block.*")


def test_earlier_masks_stay_in_force_and_count(net):
    first = ps.prune(net, sparsity=0.5)
    second = ps.prune(net, sparsity=0.75, masks=first)
    for name in first:
        assert not (second[name] & ~first[name]).any()
        assert int((~second[name]).sum()) == round(0.75 * second[name].numel())


def test_bare_parameters_and_packed_attention_weights_are_found():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.randn(4, 4))
            self.attention = nn.MultiheadAttention(8, 2)
            self.out = nn.Linear(8, 2)

        def forward(self, x):
            return self.out(self.attention(x, x, x)[0])

    assert {"table", "attention.in_proj_weight", "attention.out_proj.weight"} <= set(ps.prune(Own(), sparsity=0.5))


def test_tied_weights_are_pruned_once():
    net = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
    net[2].weight = net[0].weight
    ps.prune(net, sparsity=0.5)
    assert int((net[2].weight == 0).sum()) == 18


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sparsity": 90}, "for 90 % write 0.9"),
        ({"sparsity": -0.1}, "from 0 to 1"),
        ({}, "one of sparsity, threshold or table"),
        ({"sparsity": 0.5, "threshold": 0.1}, "one of sparsity, threshold or table"),
        ({"sparsity": 0.5, "criterion": "magnitud"}, "did you mean 'magnitude'"),
        ({"sparsity": 0.5, "granularity": "neurons"}, "did you mean 'neuron'"),
        ({"sparsity": 0.5, "allocation": "layerwise"}, "unknown allocation"),
        ({"sparsity": 0.5, "biases": "yes"}, "with-unit, keep or drop"),
        ({"sparsity": 0.5, "layers": ["fc9"]}, "unknown layer 'fc9'"),
        ({"sparsity": 0.5, "norm": "l3", "granularity": "neuron"}, "l1, l2, linf"),
    ],
)
def test_wrong_requests_are_named_and_change_nothing(net, arguments, words):
    before = {n: p.clone() for n, p in net.named_parameters()}
    with pytest.raises(ConfigError, match=words):
        ps.prune(net, **arguments)
    assert all(torch.equal(before[n], p) for n, p in net.named_parameters())


def test_refusals_name_the_layer(net):
    with pytest.raises(PruningError, match=r"nothing would be left of 8\.weight \(12\)"):
        ps.prune(net, sparsity=1.0, layers=["8"])
    ps.prune(net, sparsity=1.0, layers=["8"], allow_empty=True)
    with pytest.raises(PruningError, match="nothing to prune"):
        ps.prune(nn.ReLU(), sparsity=0.5)
    with pytest.raises(PruningError, match=r"filter.*convolution"):
        ps.prune(mlp(3, 3, 3), sparsity=0.5, granularity="filter")
    broken = mlp(3, 3, 3)
    nn.init.constant_(broken[0].weight, float("nan"))
    with pytest.raises(PruningError, match=r"9 of 9 scores of 0\.weight are NaN"):
        ps.prune(broken, sparsity=0.5)
    with torch.device("meta"):
        empty = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    with pytest.raises(PruningError, match="meta device"):
        ps.prune(empty, sparsity=0.5)


def own_criterion(weight):
    return -weight.abs()


def test_own_criterion_by_name(net, monkeypatch):
    before = net[0].weight.detach().abs()
    masks = ps.prune(net, sparsity=0.5, criterion=f"{__name__}:own_criterion")
    assert before[masks["0.weight"]].max() <= before[~masks["0.weight"]].min()
