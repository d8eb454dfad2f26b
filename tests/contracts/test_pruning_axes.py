"""Every criterion x granularity x allocation, each registered entry at once: exact counts, seeded, scoring changes nothing."""

import copy
import itertools
import re

import pytest
import torch
from torch import nn
from torch.nn import functional

import prunescope as ps
from prunescope.pruning import rounds, signals, targets
from prunescope.pruning.oneshot import groups_of
from prunescope.pruning.scoring import raw_scores
from prunescope.registry import REGISTRIES, allocations, criteria, granularities, schedules

BUDGETS = ("parameters", "flops", "latency")
PLAIN = ("weight", "neuron", "filter")  # test_pruning_granularities.py holds the others to their groups


NETWORKS = {
    "mlp": lambda: nn.Sequential(nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3)),
    "cnn": lambda: nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, groups=2), nn.Flatten(), nn.Linear(96, 3)
    ),
    "lstm": lambda: nn.LSTM(5, 7, batch_first=True),
    "transformer": lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
}
INPUTS = {"mlp": (12,), "cnn": (1, 8, 8), "lstm": (6, 5), "transformer": (4, 8)}


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[kind]()


def last_step(outputs, labels):
    """Cross-entropy of the last step of an LSTM's outputs, or of the mean over the tokens of a transformer's."""
    logits = outputs[0][:, -1] if isinstance(outputs, tuple) else outputs.mean(1) if outputs.ndim == 3 else outputs
    return functional.cross_entropy(logits, labels)


def setting(kind: str, criterion: str) -> dict:
    """What criteria may ask for: 24 calibration samples of 3 classes, a loss, an input, weights from the start."""
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(24, *INPUTS[kind], generator=g), torch.arange(24) % 3
    start = {n: p + 0.1 * torch.randn(p.shape, generator=g) for n, p in network(kind).named_parameters()}
    fast = {"synflow": {"rounds": 2}, "obd": {"probes": 2}}.get(criterion, {})
    return {"data": (x, y), "loss_fn": last_step, "example_inputs": x[:2], "initial": start, "options": fast}


def refusal(criterion: str, granularity: str, kind: str) -> str | None:
    """The reason for which a criterion does not fit pieces or layers, None where it does."""
    entry, model = criteria.get(criterion), network(kind)
    try:
        groups = groups_of(model, targets.targets(model), granularities.get(granularity), {}, setting(kind, criterion)["example_inputs"])
    except ps.PrunescopeError as error:
        return re.escape(str(error))
    if entry.traits.get("level") != "unit":
        return None
    if not all(g.unit for g in groups):
        return "scores whole units"
    if "norm_scales" in entry.needs:
        return "no normalisation"
    if criterion == "apoz" and kind in ("cnn", "transformer"):
        return "no activation function follows"
    return None


@pytest.fixture(scope="module")
def computed():
    """Signals by criterion, network and targets: computed once, as nothing that follows them changes them."""
    return {}


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("granularity", PLAIN)
@pytest.mark.parametrize("criterion", criteria.names())
def test_exact_counts_and_masks_that_fit_under_every_allocation(criterion, granularity, kind, monkeypatch, computed):
    def once(names, calibration, options):
        key = (criterion, kind, tuple(t.name for t in calibration.targets))
        if key not in computed or "rounds" in criteria.get(criterion).traits or "generator" in names:
            computed[key] = signals.compute(names, calibration, options)
        return computed[key]

    monkeypatch.setattr(rounds, "compute", once)
    entry, more, words = granularities.get(granularity), setting(kind, criterion), refusal(criterion, granularity, kind)
    for allocation in allocations.names():
        model = network(kind)
        options = {"criterion": criterion, "granularity": granularity, "allow_empty": True, **more}
        options |= {"table": {"*": 0.5}} if allocation == "table" and "fixed" not in entry.traits else {"sparsity": 0.5}
        options |= {"allocation": allocation} if "table" not in options else {}
        if words:
            with pytest.raises(ps.PrunescopeError, match=words):
                ps.prune(model, **options)
            continue
        if allocation == "latency":
            options["options"] = {**options["options"], "times": times_of(model)}
            if granularity == "weight":
                with pytest.raises(ps.PrunescopeError, match="zeros inside a dense tensor save no time"):
                    ps.prune(model, **options)
                continue
        masks = ps.prune(model, **options)
        groups = groups_of(model, targets.targets(model), entry, {}, more["example_inputs"])
        check_counts(allocation if "fixed" not in entry.traits else "uniform", removed_of(groups, masks, model))
        parameters = dict(model.named_parameters())
        for name, mask in masks.items():
            assert mask.shape == parameters[name].shape
            assert (parameters[name][~mask] == 0).all()


def times_of(model) -> dict[str, dict[str, float]]:
    """A latency table in which every weight takes a thousandth of a millisecond."""
    sizes = {n: p for n, p in model.named_parameters() if p.ndim > 1}
    return {n: {"all": p.numel() / 1e3, "output": p[0].numel() / 1e3, "input": p[:, 0].numel() / 1e3} for n, p in sizes.items()}


def removed_of(groups, masks, model) -> list[tuple[int, int]]:
    """(removed, pieces) of each group; every piece is kept or removed as a whole."""
    found = []
    for group in groups:
        slot = group.scored[0]
        kept = slot.layout.fold(masks[slot.parameter])[:, 0]
        assert torch.equal(masks[slot.parameter], slot.layout.expand(kept, model.get_parameter(slot.parameter).shape))
        if group.pattern is not None:
            assert (kept.view(-1, group.pattern[1]).sum(1) == group.pattern[0]).all()
        found.append((int((~kept).sum()), group.pieces))
    return found


def check_counts(allocation: str, counts: list[tuple[int, int]]) -> None:
    removed, pieces = (sum(column) for column in zip(*counts, strict=True))
    if allocation in ("uniform", "table"):
        assert [r for r, _ in counts] == [round(0.5 * n) for _, n in counts]
    elif allocation not in BUDGETS:
        assert removed == round(0.5 * pieces)
    else:
        assert 0 < removed < pieces  # tests/pruning/test_allocation.py holds it to its budget


@pytest.mark.parametrize("criterion", criteria.names())
@pytest.mark.parametrize("kind", NETWORKS)
def test_scoring_is_seeded_and_touches_only_what_it_prunes(criterion, kind):
    model = network(kind)
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
    original = network(kind).state_dict()
    for name, value in model.state_dict().items():
        mask = masks[name] if name in masks else torch.ones_like(value, dtype=torch.bool)
        assert torch.equal(value[mask], original[name][mask]), "what is kept is bitwise what it was"


@pytest.mark.parametrize("criterion", criteria.names())
def test_scores_have_the_shape_that_they_promise(criterion):
    entry, model, more = criteria.get(criterion), network("cnn"), setting("cnn", criterion)
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
