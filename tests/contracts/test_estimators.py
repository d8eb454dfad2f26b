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
from prunescope.types import LN2, Estimate, EstimateError

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


def value(name, x, y, *, uncertainty=None, **more):
    """The bare estimate, as `uncertainty=None` is what most of these contracts are about; flags of tests need the default "auto"."""
    return mutual_information(x, y, name, unit="nats", uncertainty=uncertainty, **{**options(name), **more})


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


@pytest.mark.parametrize("uncertainty", [None, "auto"])
@pytest.mark.parametrize("name", [e.name for e in estimators if e.name in NAMES and e.traits.get("batched")])
def test_batched_equals_a_loop(name, uncertainty):
    pairs = [sample(name, 150, dependent=True, seed=s) for s in (1, 2, 3)]
    if pairs[0][0].ndim == 1:  # labels: a batch of rows of one code each
        x, y = torch.stack([a[:, None] for a, _ in pairs]), torch.stack([b[:, None] for _, b in pairs])
    else:
        x, y = torch.stack([a for a, _ in pairs]), torch.stack([b for _, b in pairs])
    together = value(name, x, y, uncertainty=uncertainty)
    alone = [value(name, a, b, uncertainty=uncertainty) for a, b in pairs]
    assert [e.n for e in together] == [150] * 3
    for a, b in zip(together, alone, strict=True):
        assert math.isclose(a.value, b.value, rel_tol=1e-9, abs_tol=1e-12)
        assert a.flags == b.flags
        assert a.interval == b.interval or a.interval == pytest.approx(b.interval, rel=1e-9, abs=1e-12)
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
    grain = 2.0**-10  # the numbers are multiples of it, so that adding 10,000 in float32 loses nothing
    x = (x / grain).round() * grain
    if y.is_floating_point():
        y = (y / grain).round() * grain
    near = value(name, x, y).value
    moved = (y - 10_000).float() if y.is_floating_point() else y
    far = value(name, (x + 10_000).float(), moved).value
    assert math.isclose(near, far, rel_tol=1e-4, abs_tol=0.05 if name in LOOSE else 1e-5)


def spoilt(value, what):
    """`value` with one entry that is no finite number, where it can hold one."""
    value = value.double().clone()
    value.view(-1)[3] = what
    return value


@pytest.mark.parametrize("what", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", NAMES)
def test_nan_and_infinity_are_refused_by_name(name, what):
    x, y = sample(name, 60, dependent=True)
    with pytest.raises(EstimateError, match=r"x: .*NaN or infinite"):
        value(name, spoilt(x, what), y)
    with pytest.raises(EstimateError, match=r"y: .*NaN or infinite"):
        value(name, x, spoilt(y, what))


@pytest.mark.parametrize("name", NAMES)
def test_lengths_that_differ_and_emptiness_are_refused(name):
    x, y = sample(name, 60, dependent=True)
    with pytest.raises(EstimateError, match="x 60, y 59"):
        value(name, x, y[:-1])
    with pytest.raises(EstimateError, match="at least one row"):
        value(name, x[:0], y[:0])


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_variable_or_a_single_class_has_nothing_and_says_so(name):
    x, y = sample(name, 60, dependent=True)
    for a, b in ((torch.ones_like(x), y), (x, torch.ones_like(y))):
        found = value(name, a, b, uncertainty="auto")
        assert found.value == 0.0
        assert "degenerate" in found.flags


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_column_is_dropped_and_said(name):
    x, y = sample(name, 80, dependent=True)
    if not x.is_floating_point():
        pytest.skip("takes labels: rows of them are symbols")
    found = value(name, torch.cat([x, torch.ones_like(x)], dim=1), y)
    assert "degenerate" in found.flags
    assert found.value == pytest.approx(value(name, x, y).value, abs=1e-12)


def answer(name, x, y):
    """The estimate, or None where the estimator refused in one sentence that says more than "no"."""
    refusal = ""
    try:
        return value(name, x, y, uncertainty="auto")
    except EstimateError as error:
        refusal = str(error)
    assert len(refusal) > 30
    assert "\n" not in refusal
    return None


@pytest.mark.parametrize("name", NAMES)
def test_copied_rows_are_refused_or_flagged(name):
    x, y = sample(name, 60, dependent=True)
    if not x.is_floating_point():
        pytest.skip("labels repeat by nature")
    found = answer(name, torch.cat([x, x]), torch.cat([y, y]))
    assert found is None or "ties" in found.flags


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("name", NAMES)
def test_fewer_samples_than_neighbours_are_refused_or_flagged(name, n):
    x, y = sample(name, 60, dependent=True)
    rows = torch.cat([torch.argsort(x.reshape(-1))[:2], torch.argsort(x.reshape(-1))[-2:]])[:: 4 // n]
    found = answer(name, x[rows], y[rows])
    assert found is None or {"few-samples", "degenerate"} & set(found.flags)
    if "k" in estimators.get(name).options:
        with pytest.raises(EstimateError, match="too few samples"):
            value(name, x[:6], y[:6], k=5)


@pytest.mark.parametrize("name", NAMES)
def test_more_columns_than_samples_are_refused_or_flagged(name):
    x, y = sample(name, 70, dependent=True)
    if not x.is_floating_point():
        pytest.skip("labels are one symbol a row")
    found = answer(name, torch.cat([x, normal(70, "wide", d=90)], dim=1), y)
    assert found is None or "high-dimension" in found.flags


@pytest.mark.parametrize("name", NAMES)
def test_threads_change_nothing(name):
    x, y = sample(name, 300, dependent=True)
    values, kept = [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            values.append(value(name, x, y, **({"steps": 30} if name in TRAINED else {})).value)
    finally:
        torch.set_num_threads(kept)
    assert math.isclose(*values, rel_tol=1e-6, abs_tol=0.05 if name in TRAINED else 1e-9)


TILED = {
    "ksg": ("neighbours", 700), "gao-mixed": ("neighbours", 700), "ross": ("neighbours", 700), "sliced": ("neighbours", 700),
    "noisy": ("noisy", 7), "renyi": ("renyi", 7),
}  # fmt: skip


@pytest.mark.parametrize("name", [*TILED, *(n for n in NAMES if "tile" in estimators.get(n).options)])
def test_tile_size_changes_nothing(name, monkeypatch):
    x, y = sample(name, 100, dependent=True)
    x = torch.cat([x, normal(100, "more", d=5)], dim=1)  # beyond what trees answer
    whole = value(name, x, y).value
    if name in TILED:
        module, tile = TILED[name]
        monkeypatch.setattr(importlib.import_module(f"prunescope.information.{module}"), "TILE", tile)
        tiled = value(name, x, y).value
    else:
        tiled = value(name, x, y, tile=7).value
    assert math.isclose(whole, tiled, rel_tol=1e-6, abs_tol=1e-9)
