"""Every criterion x granularity x allocation, each registered entry at once: exact counts, seeded, scoring changes nothing."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

import prunescope as ps
from prunescope.pruning import signals, targets
from prunescope.pruning.scoring import raw_scores
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


INPUTS = {"mlp": (12,), "cnn": (1, 8, 8), "lstm": (6, 5), "transformer": (4, 8)}


def last_step(outputs, labels):
    """Cross-entropy of the last step of an LSTM's outputs, or of the mean over the tokens of a transformer's."""
    logits = outputs[0][:, -1] if isinstance(outputs, tuple) else outputs.mean(1) if outputs.ndim == 3 else outputs
    return functional.cross_entropy(logits, labels)


def setting(kind: str, criterion: str) -> dict:
    """What criteria may ask for: 24 calibration samples of 3 classes, a loss, an input, weights from the start."""
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(24, *INPUTS[kind], generator=g), torch.arange(24) % 3
    start = {n: p + 0.1 * torch.randn(p.shape, generator=g) for n, p in networks()[kind].named_parameters()}
    fast = {"synflow": {"rounds": 3}, "obd": {"probes": 2}}.get(criterion, {})
    return {"data": (x, y), "loss_fn": last_step, "example_inputs": x[:2], "initial": start, "options": fast}


def refusal(criterion: str, granularity: str, kind: str) -> str | None:
    """The reason for which a criterion does not fit pieces or layers, None where it does."""
    entry = criteria.get(criterion)
    if entry.traits.get("level") != "unit":
        return None
    if granularity == "weight":
        return "scores whole units"
    if "norm_scales" in entry.needs and granularity in ("neuron", "filter"):
        return "no normalisation"
    if criterion == "apoz" and kind in ("cnn", "transformer"):
        return "no activation function follows"
    return None


CASES = list(itertools.product(criteria.names(), granularities.names(), allocations.names(), networks()))


def fitting(model: nn.Module, granularity: str) -> list[targets.Target]:
    kinds = granularities.get(granularity).traits["kinds"]
    return [t for t in targets.targets(model) if t.kind in kinds]


@pytest.mark.parametrize(("criterion", "granularity", "allocation", "kind"), CASES)
def test_exact_counts_and_masks_that_fit(criterion, granularity, allocation, kind):
    model = networks()[kind]
    chosen = fitting(model, granularity)
    options = {"criterion": criterion, "granularity": granularity, "allow_empty": True}
    options |= setting(kind, criterion)
    options |= {"table": {"*": 0.5}} if allocation == "table" else {"sparsity": 0.5, "allocation": allocation}
    if not chosen:
        with pytest.raises(ps.PrunescopeError, match="fits"):
            ps.prune(model, **options)
        return
    if words := refusal(criterion, granularity, kind):
        with pytest.raises(ps.PrunescopeError, match=words):
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
    more = setting(kind, criterion)
    more["options"] |= {"update": False} if "solver" in criteria.get(criterion).traits else {}
    unit = criteria.get(criterion).traits.get("level") == "unit"
    if unit and refusal(criterion, "neuron", kind):
        more["layers"] = {"cnn": ["0"], "transformer": ["linear1"]}.get(kind)
    more |= {"granularity": "neuron"} if unit else {}
    if unit and (kind == "lstm" or (criterion == "batchnorm-scale" and kind != "cnn")):
        with pytest.raises(ps.PrunescopeError, match=r"fits|normalisation"):
            ps.prune(model, sparsity=0.3, criterion=criterion, seed=4, **more)
        return
    masks, again = (ps.prune(m, sparsity=0.3, criterion=criterion, seed=4, **more) for m in (model, twin))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(masks[n], again[n]) for n in masks)
    original = networks()[kind].state_dict()
    for name, value in model.state_dict().items():
        mask = masks[name] if name in masks else torch.ones_like(value, dtype=torch.bool)
        assert torch.equal(value[mask], original[name][mask]), "what is kept is bitwise what it was"


@pytest.mark.parametrize("criterion", criteria.names())
def test_scores_have_the_shape_that_they_promise(criterion):
    entry, model, more = criteria.get(criterion), networks()["cnn"], setting("cnn", criterion)
    chosen = [t for t in targets.targets(model) if t.name == "0.weight"]
    extra = {"initial": more["initial"], "example_inputs": more["example_inputs"]}
    generator = torch.Generator().manual_seed(0)
    calibration = signals.Calibration(model, chosen, [more["data"]], last_step, generator, extra)
    scores = raw_scores(chosen[0], entry, signals.compute(entry.needs, calibration, more["options"]), more["options"])
    assert scores.shape == (chosen[0].parameter.shape if entry.traits.get("level") != "unit" else (8,))
    assert scores.isfinite().all()
    if entry.traits.get("units", "norm") in ("norm", "draw") and not criterion.startswith("information"):
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
