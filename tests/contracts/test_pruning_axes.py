"""Every criterion x granularity x allocation, each registered entry at once: exact counts, seeded, scoring changes nothing."""

import copy
import itertools

import pytest
import torch
from torch import nn

import prunescope as ps
from prunescope.pruning import targets
from prunescope.registry import REGISTRIES, allocations, criteria, granularities, schedules


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "mlp": nn.Sequential(nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3)),
        "cnn": nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, groups=2), nn.Flatten(), nn.Linear(96, 3)
        ),
        "lstm": nn.LSTM(5, 7, batch_first=True),
        "transformer": nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
    }


PLAIN = ("weight", "neuron", "filter")  # test_pruning_granularities.py holds the others to their groups
CASES = list(itertools.product(criteria.names(), PLAIN, allocations.names(), networks()))


def fitting(model: nn.Module, granularity: str) -> list[targets.Target]:
    kinds = granularities.get(granularity).traits["kinds"]
    return [t for t in targets.targets(model) if t.kind in kinds]


@pytest.mark.parametrize(("criterion", "granularity", "allocation", "kind"), CASES)
def test_exact_counts_and_masks_that_fit(criterion, granularity, allocation, kind):
    model = networks()[kind]
    chosen = fitting(model, granularity)
    options = {"criterion": criterion, "granularity": granularity, "allow_empty": True}
    options |= {"table": {"*": 0.5}} if allocation == "table" else {"sparsity": 0.5, "allocation": allocation}
    if not chosen:
        with pytest.raises(ps.PrunescopeError, match="fits"):
            ps.prune(model, **options)
        return
    masks = ps.prune(model, **options)
    parameters = dict(model.named_parameters())
    pieces, removed = [], []
    for target in chosen:
        layout = granularities.get(granularity).function(target).slots[0].layout
        kept = layout.fold(masks[target.name])[:, 0]
        expected = layout.expand(kept, target.parameter.shape)
        assert torch.equal(masks[target.name], expected), "a piece is kept or removed as a whole"
        pieces.append(kept.numel())
        removed.append(int((kept == 0).sum()))
    if allocation == "global":
        assert sum(removed) == round(0.5 * sum(pieces))
    else:
        assert removed == [round(0.5 * n) for n in pieces]
    for name, mask in masks.items():
        assert mask.shape == parameters[name].shape
        assert (parameters[name][~mask] == 0).all()


@pytest.mark.parametrize("criterion", criteria.names())
@pytest.mark.parametrize("kind", networks())
def test_scoring_is_seeded_and_touches_only_what_it_prunes(criterion, kind):
    model = networks()[kind]
    twin = copy.deepcopy(model)
    before = torch.get_rng_state()
    masks, again = (ps.prune(m, sparsity=0.3, criterion=criterion, seed=4) for m in (model, twin))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(masks[n], again[n]) for n in masks)
    original = networks()[kind].state_dict()
    for name, value in model.state_dict().items():
        mask = masks[name] if name in masks else torch.ones_like(value, dtype=torch.bool)
        assert torch.equal(value[mask], original[name][mask]), "what is kept is bitwise what it was"


@pytest.mark.parametrize("criterion", criteria.names())
def test_scores_have_the_weights_shape(criterion):
    entry = criteria.get(criterion)
    weight = torch.randn(4, 3)
    scores = entry.function(weight, **{n: torch.Generator().manual_seed(0) for n in entry.needs if n == "generator"})
    assert scores.shape == weight.shape
    assert (scores >= 0).all()


@pytest.mark.parametrize("name", schedules.names())
def test_schedules_rise_to_their_target(name):
    schedule = schedules.get(name).function
    for target in (0.0, 0.3, 0.9, 1.0):
        values = [schedule(i / 10, target) for i in range(11)]
        assert all(a <= b for a, b in itertools.pairwise(values))
        assert values[-1] == target


@pytest.mark.parametrize("registry", REGISTRIES.values(), ids=REGISTRIES)
def test_every_entry_says_what_it_is_and_where_it_comes_from(registry):
    import prunescope.catalogue  # noqa: F401 (fills every registry)

    assert registry.names()
    for entry in registry:
        assert len(entry.summary) > 10, f"{entry.name} has no docstring"
        assert entry.source, f"{entry.kind} {entry.name} names no source"
