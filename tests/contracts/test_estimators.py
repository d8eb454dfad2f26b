"""What every registered estimator of mutual information must do, whoever wrote it."""

import importlib
import math
import pkgutil

import pytest
import torch

import prunescope.information
from prunescope.information import mutual_information
from prunescope.information.estimate import fits
from prunescope.registry import estimators
from prunescope.types import LN2, Estimate

for module in pkgutil.iter_modules(prunescope.information.__path__):
    importlib.import_module(f"prunescope.information.{module.name}")

NAMES = [e.name for e in estimators if "mi" in e.traits.get("quantities", ("mi",))]
# resolutions at which 600 samples of one column can show independence; the defaults speak of other scales
FAIR = {
    "binning": {"bins": 4},
    "quantised": {"scale": 2.0},
    "kde": {"noise": 1.0},
    "noisy": {"noise": 0.5},
    "renyi": {"order": 2},
}
TRAINED = {"mine", "nwj", "infonce", "smile"}  # optimised in float32: alike to a few hundredths, not to rounding
LOOSE = TRAINED | {"auto"}


def options(name):
    return FAIR.get(name, {}) | ({"steps": 120} if "steps" in estimators.get(name).options else {})


def normal(n, *purpose, d=1):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(hash(purpose) % 2**31), dtype=torch.float64)


def sample(name, n=600, *, dependent, seed=0):
    """A pair that the estimator takes: numbers with numbers, numbers with labels, or labels with labels."""
    x, other = normal(n, seed, 1), normal(n, seed, 2)
    y = x + 0.7 * other if dependent else other
    entry = estimators.get(name)
    if fits(entry, "continuous", "continuous"):
        return x, y
    labels = (y[:, 0] > 0).long()
    if fits(entry, "continuous", "discrete"):
        return x, labels
    return (x[:, 0] * 2).round().long(), labels


def value(name, x, y, **more):
    return mutual_information(x, y, name, unit="nats", **{**options(name), **more})


@pytest.mark.parametrize("name", NAMES)
def test_independent_samples_have_about_no_information(name):
    x, y = sample(name, dependent=False)
    assert abs(value(name, x, y).value) < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_dependent_samples_have_some(name):
    x, y = sample(name, dependent=True)
    assert value(name, x, y).value > 0.15


@pytest.mark.parametrize("name", NAMES)
def test_seeded_and_complete(name):
    x, y = sample(name, 200, dependent=True)
    first, again = value(name, x, y, seed=3), value(name, x, y, seed=3)
    assert isinstance(first, Estimate)
    assert first.value == again.value
    assert first.n == 200
    assert first.ceiling is not None
    assert first.ceiling > 0
    assert first.estimator == name


@pytest.mark.parametrize("name", NAMES)
def test_bits_and_nats_agree(name):
    x, y = sample(name, 200, dependent=True)
    nats = value(name, x, y)
    bits = mutual_information(x, y, name, **options(name))
    assert bits.unit == "bits"
    assert math.isclose(nats.value, bits.value * LN2, rel_tol=1e-12, abs_tol=1e-15)
    assert math.isclose(nats.ceiling, bits.ceiling * LN2, rel_tol=1e-12)


@pytest.mark.parametrize("name", [e.name for e in estimators if e.name in NAMES and e.traits.get("symmetric")])
def test_symmetric_where_claimed(name):
    x, y = sample(name, 300, dependent=True)
    assert math.isclose(value(name, x, y).value, value(name, y, x).value, rel_tol=1e-6, abs_tol=1e-9)


def _turned(x, kind):
    if kind == "shift":
        return x + 8.0
    if kind == "scale":
        return x * 4.0
    if kind == "monotone":
        return torch.sinh(x) + x**3
    if kind == "linear":
        return x @ torch.tensor([[2.0, 1.0], [-1.0, 0.5]], dtype=x.dtype)
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=x.dtype)
    return x @ turn


CLAIMS = [(e.name, kind) for e in estimators if e.name in NAMES for kind in e.traits.get("invariant", ())]


@pytest.mark.parametrize(("name", "kind"), CLAIMS)
def test_invariant_where_claimed(name, kind):
    x, y = sample(name, 200, dependent=True)
    if kind == "permutation":
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
        turned, other = x[order], y[order]
    elif kind == "relabel":
        turned, other = 7 - 3 * x, 5 * y - 2
    else:
        x = torch.cat([x, normal(200, 0, 5)], dim=1)
        turned, other = _turned(x, kind), y
        if kind == "scale" and y.is_floating_point():
            other = _turned(y, kind)  # one unit for everything: distances in x and in y keep their proportion
    near = 0.05 if name in LOOSE else 1e-9
    assert math.isclose(value(name, x, y).value, value(name, turned, other).value, rel_tol=1e-6, abs_tol=near)


@pytest.mark.parametrize("name", [e.name for e in estimators if e.name in NAMES and e.traits.get("batched")])
def test_batched_equals_a_loop(name):
    pairs = [sample(name, 150, dependent=True, seed=s) for s in (1, 2, 3)]
    if pairs[0][0].ndim == 1:  # labels: a batch of rows of one code each
        x, y = torch.stack([a[:, None] for a, _ in pairs]), torch.stack([b[:, None] for _, b in pairs])
    else:
        x, y = torch.stack([a for a, _ in pairs]), torch.stack([b for _, b in pairs])
    together = value(name, x, y)
    alone = [value(name, a, b) for a, b in pairs]
    assert [e.n for e in together] == [150] * 3
    for a, b in zip(together, alone, strict=True):
        assert math.isclose(a.value, b.value, rel_tol=1e-9, abs_tol=1e-12)
        assert a.flags == b.flags
        assert math.isclose(a.ceiling, b.ceiling, rel_tol=1e-9)


@pytest.mark.parametrize("entry", list(estimators), ids=lambda e: e.name)
def test_the_docstring_names_unit_and_the_registration_its_source(entry):
    assert "nats" in entry.summary or "bits" in entry.summary
    assert entry.source


@pytest.mark.parametrize("name", NAMES)
def test_float32_far_from_zero_is_not_cancelled(name):
    x, y = sample(name, 300, dependent=True)
    if not x.is_floating_point() or "shift" not in estimators.get(name).traits.get("invariant", ()):
        pytest.skip("takes labels, or speaks of absolute values")
    grain = 2.0**-8  # the numbers are multiples of it, so that adding 10,000 in float32 loses nothing
    x = (x / grain).round() * grain
    near = value(name, x, y).value
    far = value(name, (x + 10_000).float(), y).value
    assert math.isclose(near, far, rel_tol=1e-4, abs_tol=0.05 if name in LOOSE else 1e-5)
