"""What every registered model promises, whoever wrote it."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

import prunescope as ps
import prunescope.models
from prunescope.config import TrainingConfig
from prunescope.measures.capture import capture
from prunescope.models import build
from prunescope.pruning.targets import targets
from prunescope.registry import granularities, models
from prunescope.training import train
from prunescope.types import ConfigError, MissingExtraError, Split

CLASSES = 10
NAMES = [models.get(n).traits.get("example", n) for n in models.names()]
assert NAMES, prunescope.models  # an empty registry would pass every test below


def shape(name: str) -> tuple[int, ...]:
    """Samples that the model is made for: small images, unless it says otherwise."""
    return tuple(models.get(name).traits.get("sample", (1, 8, 8)))


def made(name: str, seed: int = 0, **more: Any) -> nn.Module:
    entry = models.get(name)
    options = {**dict(entry.traits.get("example_options", {})), **more}
    try:
        return build(name, input_shape=shape(name), classes=CLASSES, seed=seed, options=options)
    except MissingExtraError as error:
        pytest.skip(str(error))


def samples(name: str, n: int = 6) -> torch.Tensor:
    return torch.randn(n, *shape(name), generator=torch.Generator().manual_seed(0))


def weights(name: str, seed: int) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in made(name, seed).parameters()])


@pytest.mark.parametrize("name", models.names())
def test_says_what_it_is_and_where_from(name: str) -> None:
    entry = models.get(name)
    assert entry.summary.endswith((".", ")", ","))
    assert entry.source


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_the_weights(name: str) -> None:
    one = weights(name, 3)
    assert torch.isfinite(one).all(), "every value is drawn"
    assert torch.equal(one, weights(name, 3))
    assert not torch.equal(one, weights(name, 4))


@pytest.mark.parametrize("name", NAMES)
def test_global_random_state_is_left_alone(name: str) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one = weights(name, 0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    assert torch.equal(weights(name, 0), one)


@pytest.mark.parametrize("name", NAMES)
def test_forward_shape_and_gradients(name: str) -> None:
    model = made(name)
    out = model(samples(name))
    assert out.shape == (6, CLASSES)
    assert torch.isfinite(out).all()
    torch.nn.functional.cross_entropy(out, torch.arange(6)).backward()
    if name == models.get(name).traits.get("example"):
        return  # other packages start some layers at zero, or have embeddings of tokens that our samples do not use
    for label, parameter in model.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.grad.abs().sum() > 0, label


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_and_every_weight_moves(name: str) -> None:
    model = made(name)
    before = copy.deepcopy(model)
    assert [n for n, _ in before.named_parameters()] == [n for n, _ in model.named_parameters()]
    settings = TrainingConfig(epochs=1, batch_size=8, optimizer="adam", lr=1e-3)
    state = train(model, Split(samples(name, 16), torch.arange(16) % CLASSES), settings, seed=0)
    assert state.steps == 2
    moved = [not torch.equal(p, q) for p, q in zip(model.parameters(), before.parameters(), strict=True) if p.grad is not None]
    assert all(moved) if name == models.get(name).name and "prefix" not in models.get(name).traits else any(moved)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("granularity", ["weight", "neuron"])
def test_it_is_pruned_where_it_stands(name: str, granularity: str) -> None:
    """Exact counts; the keys, the class and what is kept stay; the masks hold through training; the output layer is exempt."""
    model = made(name)
    twin = copy.deepcopy(model)
    kinds = granularities.get(granularity).traits.get("kinds")
    if kinds and not any(t.kind in kinds for t in targets(model)):
        with pytest.raises(ps.PrunescopeError, match="fits"):
            ps.prune(model, sparsity=0.5, granularity=granularity)
        return
    masks = ps.prune(model, sparsity=0.5, granularity=granularity)
    assert list(model.state_dict()) == list(twin.state_dict())
    assert len(masks) >= 1
    assert not {n for n in masks if n.startswith("output.")}, "the output layer is exempt"
    originals = dict(twin.named_parameters())
    for label, parameter in model.named_parameters():
        mask = masks[label] if label in masks else torch.ones_like(parameter, dtype=torch.bool)
        assert torch.equal(parameter[mask], originals[label][mask])
        assert (parameter[~mask] == 0).all()
        if granularity == "weight" and label in masks and mask.ndim > 1:
            assert int((~mask).sum()) == round(0.5 * mask.numel())
    settings = TrainingConfig(epochs=1, batch_size=8, optimizer="adam", lr=1e-3, weight_decay=0.1)
    train(model, Split(samples(name, 16), torch.arange(16) % CLASSES), settings, seed=0, masks=masks)
    assert all((p[~masks[n]] == 0).all() for n, p in model.named_parameters() if n in masks)
    assert torch.isfinite(model(samples(name))).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_plane_has_layers_to_look_at(name: str) -> None:
    model = made(name)
    values = capture(model, samples(name))
    assert len(values) >= 2
    assert "output" in values
    assert all(len(v) == 6 and torch.isfinite(v).all() for v in values.values())
    y = torch.arange(60) % CLASSES
    plane = ps.InformationPlane(model, samples(name, 60), y, estimators=[{"name": "binning", "bins": 4}])
    points = plane.record(0)
    assert {p.layer for p in points} == set(values)
    assert all(0 <= p.estimate.value <= p.estimate.ceiling + 1e-9 for p in points)


@pytest.mark.parametrize("name", [n for n in NAMES if not models.get(n).open])
def test_unknown_options_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown option of model .*'no_such'"):
        made(name, no_such=1)
