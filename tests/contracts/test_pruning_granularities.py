"""Every granularity with every criterion and every allocation on four networks: whole pieces, exact counts, or a refusal that says why."""

import functools
import inspect
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

import prunescope as ps
from prunescope.pruning import coupled, targets
from prunescope.pruning.groups import Group
from prunescope.pruning.oneshot import groups_of
from prunescope.registry import allocations, criteria, granularities

TRACED = coupled.couple


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Linear(8, 8), nn.Linear(8, 3)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x):
        return self.out(self.layer(self.embed(x)).mean(1))


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(4, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])


@functools.cache
def state(kind: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return made(kind).state_dict()


def made(kind: str) -> nn.Module:
    if kind == "mlp":
        return nn.Sequential(nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
    if kind == "cnn":
        body = (nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.ReLU(), nn.Flatten())
        return nn.Sequential(*body, nn.Linear(128, 3))
    return Lstm() if kind == "lstm" else Transformer()


def network(kind: str) -> nn.Module:
    model = made(kind)
    model.load_state_dict(state(kind))
    return model


INPUTS = {"mlp": (12,), "cnn": (4, 8, 8), "lstm": (5, 4), "transformer": (4, 8)}
LEFT = [g for g in granularities.names() if g not in ("weight", "neuron", "filter")]
NO_UNITS = ("is no layer with units of its own", "no normalisation with a factor for each unit", "no activation function follows")
BUDGETS = ("parameters", "flops", "latency")


@functools.cache
def coupling(kind: str):
    return TRACED(network(kind), torch.randn(2, *INPUTS[kind], generator=torch.Generator().manual_seed(0)))


@functools.cache
def groups(granularity: str, kind: str) -> list[Group] | str:
    """The groups of a granularity, or the words of its refusal."""
    model = network(kind)
    try:
        return groups_of(model, targets.targets(model), granularities.get(granularity), {}, coupling(kind))
    except ps.PrunescopeError as error:
        return str(error)


def setting(kind: str, criterion: str) -> dict:
    """What criteria may ask for: calibration data of 3 classes, a loss, weights from the start of training."""
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(24, *INPUTS[kind], generator=g), torch.arange(24) % 3
    start = {n: p + 0.1 * torch.randn(p.shape, generator=g) for n, p in network(kind).named_parameters()}
    fast = {"synflow": {"rounds": 3}, "obd": {"probes": 2}}.get(criterion, {})
    known = inspect.signature(ps.prune).parameters
    given = {"data": (x, y), "loss_fn": functional.cross_entropy, "example_inputs": x[:2], "initial": start, "options": fast}
    return {n: v for n, v in given.items() if n in known}


def prune_and_check(kind: str, granularity: str, criterion: str, allocation: str) -> None:
    found = groups(granularity, kind)
    model = network(kind)
    options = {"criterion": criterion, "granularity": granularity, "allow_empty": True, **setting(kind, criterion)}
    options |= {"table": {"*": 0.5}} if allocation == "table" else {"sparsity": 0.5, "allocation": allocation}
    if allocation == "latency":
        options["options"] = {**options["options"], "times": times_of(model)}
    if isinstance(found, str) or (refused := refusal(found, granularity, criterion, allocation, kind)):
        words = found if isinstance(found, str) else refused
        with pytest.raises(ps.PrunescopeError) as caught:
            ps.prune(model, **options)
        assert words.split(":")[0] in str(caught.value)
        return
    try:
        masks = ps.prune(model, **options)
    except ps.PrunescopeError as error:
        if criteria.get(criterion).traits.get("level") == "unit" and any(words in str(error) for words in NO_UNITS):
            return
        raise
    parameters = dict(model.named_parameters())
    removed = [gone(g, masks) for g in found]
    check_pieces(found, removed, masks, parameters)
    if allocation in ("uniform", "table"):
        assert [int(r.sum()) for r in removed] == [round(0.5 * g.pieces) for g in found]
    elif allocation in BUDGETS:
        assert 0 < sum(int(r.sum()) for r in removed) < sum(g.pieces for g in found)
    else:
        assert sum(int(r.sum()) for r in removed) == round(0.5 * sum(g.pieces for g in found))


def refusal(found: list[Group], granularity: str, criterion: str, allocation: str, kind: str) -> str:
    """Why a combination makes no sense; empty where it does."""
    entry = criteria.get(criterion)
    if granularity == "n:m" and allocation == "table":
        return "removes exactly 0.5"
    if allocation == "latency" and (granularity in ("n:m", "block") or (granularity == "input-channel" and kind == "cnn")):
        return "allocation 'latency'"
    if entry.traits.get("level") != "unit":
        return ""
    if not all(g.unit for g in found):
        return "scores whole units"
    kinds = {t.name: t.kind for t in targets.targets(network(kind))}
    inside = any(kinds[s.parameter] == "other" for g in found for s in g.scored)  # gates of an LSTM, packed projections of attention
    needed = {"norm_scales"} | ({"unit_statistics", "unit_samples"} if inside else set())  # no network has a norm after all its layers
    return "".join(f"signal {n!r}" for n in entry.needs if n in needed)


def times_of(model: nn.Module) -> dict[str, dict[str, float]]:
    """A latency table in which every weight takes a thousandth of a millisecond."""
    sizes = {n: p for n, p in model.named_parameters() if p.ndim > 1}
    return {n: {"all": p.numel() / 1e3, "output": p[0].numel() / 1e3, "input": p[:, 0].numel() / 1e3} for n, p in sizes.items()}


def gone(group: Group, masks: ps.Masks) -> torch.Tensor:
    """The pieces (pieces,) of which nothing is left in any scored slot."""
    if group.members:
        return torch.cat([gone(m, masks) for m in group.members])
    return torch.stack([~s.layout.fold(masks[s.parameter]).any(1) for s in group.scored]).all(0)


def check_pieces(found: list[Group], removed: list[torch.Tensor], masks: ps.Masks, parameters: dict[str, nn.Parameter]) -> None:
    """The masks are what these removals mean, in every slot of every piece, and no more; what is masked is zero."""
    expected: dict[str, torch.Tensor] = {}
    for group, r in zip(found, removed, strict=True):
        for slot in group.slots:
            mask = slot.layout.expand(~r, parameters[slot.parameter].shape)
            expected[slot.parameter] = expected.get(slot.parameter, torch.ones_like(mask)) & mask
    for name, parameter in parameters.items():
        mask = masks[name] if name in masks else torch.ones_like(parameter, dtype=torch.bool)
        assert torch.equal(mask, expected.get(name, torch.ones_like(mask))), name
        assert (parameter[~mask] == 0).all()


@pytest.fixture(autouse=True)
def traced_once(monkeypatch, request):
    """The graph of a network is the same in every test."""
    kind = request.node.callspec.params.get("kind") if hasattr(request.node, "callspec") else None
    if kind is not None:
        monkeypatch.setattr(coupled, "couple", lambda model, inputs: coupling(kind))


@pytest.mark.parametrize(("granularity", "criterion", "kind"), list(itertools.product(LEFT, criteria.names(), INPUTS)))
def test_with_every_criterion(granularity, criterion, kind):
    prune_and_check(kind, granularity, criterion, "uniform")
    assert groups(granularity, kind)


@pytest.mark.parametrize(("granularity", "allocation", "kind"), list(itertools.product(LEFT, allocations.names(), INPUTS)))
def test_with_every_allocation(granularity, allocation, kind):
    prune_and_check(kind, granularity, "magnitude", allocation)
    assert groups(granularity, kind)


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("granularity", LEFT)
def test_ties_go_by_index(granularity, kind):
    found = groups(granularity, kind)
    if isinstance(found, str) or granularity == "layer":
        return
    model = network(kind)
    for p in model.parameters():
        nn.init.constant_(p, 0.5)
    masks = ps.prune(model, sparsity=0.5, granularity=granularity, example_inputs=coupling(kind))
    for group in found:
        r = gone(group, masks)
        if group.pattern:
            assert r.view(-1, 4).tolist() == [[True, True, False, False]] * (len(r) // 4)
        else:
            assert r.tolist() == [True] * round(0.5 * len(r)) + [False] * (len(r) - round(0.5 * len(r)))


def test_every_granularity_fits_one_of_the_networks():
    for granularity in LEFT:
        assert any(not isinstance(groups(granularity, kind), str) for kind in INPUTS), granularity
