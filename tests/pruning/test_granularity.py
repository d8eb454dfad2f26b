"""Pieces within one layer: which weights stand together, counts by hand, and refusals that name the layer."""

import itertools

import pytest
import torch
from torch import nn

import prunescope as ps
from prunescope.config import experiment_config
from prunescope.experiments.sweep import trials
from prunescope.pruning.select import best_of_each
from prunescope.registry import granularities
from prunescope.types import ConfigError, PruningError


def net() -> nn.Sequential:
    torch.manual_seed(0)
    convolutions = (nn.Conv2d(4, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 6, 1))
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(24, 8), nn.Tanh(), nn.Linear(8, 4))


class Conv1D(nn.Module):
    """The layer of GPT-2 that stores its weight as (inputs, outputs)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(inputs, outputs)), nn.Parameter(torch.randn(outputs))

    def forward(self, x):
        return x @ self.weight + self.bias


def rows_along_inputs(weight: torch.Tensor, out_dim: int = 0) -> torch.Tensor:
    """All weights of one output (and kernel position) in a row, one row each: (rows, inputs)."""
    return weight.movedim(1 - out_dim, -1).reshape(-1, weight.shape[1 - out_dim])


@pytest.mark.parametrize(("name", "kept", "of"), [("2:4", 2, 4), ("1:4", 1, 4), ("3:8", 3, 8), ("n:m", 2, 4)])
def test_patterns_keep_the_largest_of_every_few_along_the_inputs(name, kept, of):
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(16, 8), Conv1D(8, 4), nn.Linear(4, 4))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    masks = ps.prune(model, granularity=name)
    assert set(masks) == {"0.weight", "2.weight", "3.weight"}
    for parameter, mask in masks.items():
        out_dim = int(parameter == "3.weight")
        sets = rows_along_inputs(mask, out_dim).reshape(-1, of)
        sizes = rows_along_inputs(before[parameter], out_dim).reshape(-1, of).abs()
        assert (sets.sum(1) == kept).all()
        for row, size in zip(sets, sizes, strict=True):
            assert size[row].min() >= size[~row].max()
    assert masks.sparsity() == pytest.approx(1 - kept / of)


def test_ties_within_a_pattern_go_by_index_and_match_a_stable_sort():
    generator = torch.Generator().manual_seed(1)
    for best, of in ((1, 2), (2, 4), (3, 8), (5, 200)):
        scores = torch.randint(0, 3, (of * 30,), generator=generator).float()
        removed = torch.argsort(scores.view(-1, of), dim=1, stable=True)[:, : of - best]
        expected = torch.ones(30, of, dtype=torch.bool).scatter(1, removed, False)
        assert torch.equal(best_of_each(scores, best, of), expected.flatten())
    layer = nn.Sequential(nn.Linear(8, 2), nn.Linear(2, 2))
    nn.init.ones_(layer[0].weight)
    assert ps.prune(layer, granularity="2:4", layers=["0"])["0.weight"].tolist() == [[False, False, True, True] * 2] * 2


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"granularity": "2:4", "sparsity": 0.75}, ConfigError, "removes exactly 0.5: leave sparsity out"),
        ({"granularity": "1:4", "threshold": 0.1}, ConfigError, "removes exactly 0.75: leave threshold out"),
        ({"granularity": "2:4", "table": {"*": 0.5}}, ConfigError, "leave table out"),
        ({"granularity": "4:4"}, ConfigError, "4:4 is no pattern"),
        ({"granularity": "0:4"}, ConfigError, "0:4 is no pattern"),
        ({"granularity": "2:5"}, PruningError, r"2:5 does not divide the 2 inputs of 0\.weight.*exclude=\['0\.weight'\]"),
        ({"granularity": "block", "sparsity": 0.5, "options": {"shape": [3, 3]}}, PruningError, r"3 x 3 does not divide 0\.weight.*8 x 18"),
        ({"granularity": "block", "sparsity": 0.5, "options": {"shape": [4]}}, ConfigError, "expected .rows, columns."),
        ({"granularity": "block", "sparsity": 0.5, "options": {"shape": 4}}, ConfigError, "option 'shape'"),
        ({"granularity": "2-4"}, ConfigError, "unknown granularity"),
    ],
)
def test_refusals(arguments, error, words):
    with pytest.raises(error, match=words):
        ps.prune(net(), **arguments)


def test_a_pattern_may_be_asked_for_with_its_own_sparsity():
    assert ps.prune(net(), granularity="2:4", sparsity=0.5, exclude=["0"], layers=["4"]).sparsity() == 0.5


def test_rows_and_columns_of_any_weight_matrix():
    lstm = nn.LSTM(6, 4)
    masks = ps.prune(lstm, sparsity=0.5, granularity="column")
    assert [int((~m.any(0)).sum()) for m in masks.values()] == [3, 2]
    assert all(torch.equal(m, m.any(0, keepdim=True).expand_as(m)) for m in masks.values())
    model = net()
    norms = model[4].weight.detach().norm(dim=1)
    masks = ps.prune(model, sparsity=0.25, granularity="row")
    gone = ~masks["4.weight"].any(1)
    assert set(masks) == {"4.weight", "4.bias"}
    assert int(gone.sum()) == 2
    assert norms[gone].max() < norms[~gone].min()
    assert torch.equal(masks["4.bias"], ~gone)


def test_blocks_stand_where_the_matrix_view_says():
    model = net()
    weight = model[4].weight.detach().clone()
    mask = ps.prune(model, sparsity=0.5, granularity="block", options={"shape": [2, 3]}, layers=["4"])["4.weight"]
    norms = {(r, c): float(weight[r : r + 2, c : c + 3].norm()) for r, c in itertools.product(range(0, 8, 2), range(0, 24, 3))}
    kept = {(r, c): bool(mask[r, c]) for r, c in norms}
    assert all(bool((mask[r : r + 2, c : c + 3] == k).all()) for (r, c), k in kept.items())
    assert sum(kept.values()) == 16
    assert min(norms[p] for p, k in kept.items() if k) > max(norms[p] for p, k in kept.items() if not k)
    stored_across = Conv1D(6, 4)
    mask = ps.prune(nn.Sequential(stored_across, nn.Linear(4, 2)), sparsity=0.5, granularity="block", options={"shape": [4, 1]})["0.weight"]
    assert torch.equal(mask, mask.any(1, keepdim=True).expand_as(mask)), "4 rows are 4 outputs, which this layer stores as columns"


def test_an_input_channel_of_a_grouped_convolution_is_that_of_its_group():
    model = net()
    weight = model[0].weight.detach().clone()
    mask = ps.prune(model, sparsity=0.25, granularity="input-channel", layers=["0"])["0.weight"]
    norms = torch.stack([weight[4 * g : 4 * g + 4, j].norm() for g in range(2) for j in range(2)])
    lost = int(norms.argmin())
    expected = torch.ones_like(mask)
    expected[4 * (lost // 2) : 4 * (lost // 2) + 4, lost % 2] = False
    assert torch.equal(mask, expected)


def levels(**tables) -> list[float]:
    return [t.sparsity for t in trials(experiment_config(tables), tables)]


def test_experiments_know_the_only_sparsity_of_a_pattern():
    assert levels(seeds=1, prune={"granularity": "1:4"}) == [0.75]
    variants = [{"name": "free"}, {"name": "pattern", "prune": {"granularity": "2:4"}}]
    assert levels(seeds=1, sparsity=[0.3, 0.6], variant=variants) == [0.3, 0.6, 0.5]
    with pytest.raises(ConfigError, match=r"2:4 always removes 0\.5"):
        levels(seeds=1, sparsity=[0.9], prune={"granularity": "2:4"})
    with pytest.raises(ConfigError, match="all or nothing"):
        levels(seeds=1, prune={"granularity": "2:4", "when": "iterative"})
    with pytest.raises(ConfigError, match="2:1 is no pattern"):
        levels(seeds=1, prune={"granularity": "2:1"})


def test_the_name_states_the_options():
    entry = granularities.get("2:4")
    assert (entry.name, entry.traits["stated"]) == ("2:4", {"n": 2, "m": 4})
    assert "n:m" in granularities.names()
