"""Estimators that count neighbours: against naive float64 counting, known values, and on data that break them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import digamma as psi

from prunescope.data.synthetic import tasks
from prunescope.information import neighbours
from prunescope.information.knn import (
    digamma,
    even_ratio,
    frenzel_pompe,
    gao_mixed,
    kozachenko_leonenko,
    ksg,
    ksg_lnc,
    ross,
    rotated_volume,
    ties,
)
from prunescope.rng import numpy_generator
from prunescope.types import EstimateError

N = 400


def sample(d, n=N, seed=0, tail=False):
    random = numpy_generator(seed, "knn", d)
    x = random.standard_normal((n, d))
    y = 0.6 * x + 0.8 * random.standard_normal((n, d))
    if tail:
        scale = random.standard_normal((n, 1))
        x, y = x / scale, y / scale
    return torch.from_numpy(x), torch.from_numpy(y)


def distances(a, metric):
    gap = a.numpy()[:, None] - a.numpy()[None]
    return np.abs(gap).max(2) if metric == "max" else np.sqrt((gap**2).sum(2))


def naive_ksg(x, y, k, metric, variant):
    """Kraskov et al. 2004 as it is written: every distance, every count, no shortcut."""
    dx, dy = distances(x, metric), distances(y, metric)
    joint = np.maximum(dx, dy)
    np.fill_diagonal(joint, np.inf)
    near = np.argsort(joint, axis=1)[:, :k]
    n = len(joint)
    if variant == 1:
        radius = np.take_along_axis(joint, near, 1).max(1)[:, None]
        nx, ny = (dx < radius).sum(1) - 1, (dy < radius).sum(1) - 1
        return psi(k) + psi(n) - np.mean(psi(nx + 1) + psi(ny + 1))
    ex, ey = (np.take_along_axis(d, near, 1).max(1)[:, None] for d in (dx, dy))
    nx, ny = (dx <= ex).sum(1) - 1, (dy <= ey).sum(1) - 1
    return psi(k) - 1 / k + psi(n) - np.mean(psi(nx) + psi(ny))


@pytest.mark.parametrize("variant", [1, 2])
@pytest.mark.parametrize("metric", ["max", "euclidean"])
@pytest.mark.parametrize("d", [1, 2, 3, 12])
def test_ksg_equals_naive_counting(d, metric, variant):
    x, y = sample(d)
    found = float(ksg(x, y, k=3, metric=metric, variant=variant).value)
    assert found == pytest.approx(naive_ksg(x, y, 3, metric, variant), abs=1e-9)


@pytest.mark.parametrize("metric", ["max", "euclidean"])
def test_ksg_equals_naive_counting_on_heavy_tails_and_unlike_scales(metric):
    x, y = sample(4, tail=True)
    y = y * 1e-4
    assert float(ksg(x, y, k=4, metric=metric).value) == pytest.approx(naive_ksg(x, y, 4, metric, 1), abs=1e-9)


@pytest.mark.parametrize("metric", ["max", "euclidean"])
def test_counts_do_not_depend_on_the_tile_or_on_an_offset(metric, monkeypatch):
    x, y = (part.float() for part in sample(6))
    whole = float(ksg(x, y, metric=metric).value)
    monkeypatch.setattr(neighbours, "TILE", 7 * N)
    assert float(ksg(x, y, metric=metric).value) == whole
    shifted = x.double() + 1e4
    assert float(ksg(shifted, y, metric=metric).value) == pytest.approx(whole, abs=1e-6)
    assert float(ksg(shifted.float(), y, metric=metric).value) == pytest.approx(whole, abs=0.02)  # rounding of the input itself


def test_tiles_and_trees_agree(monkeypatch):
    x, y = sample(1, n=900)
    tree = float(ksg(x, y).value)
    monkeypatch.setattr(neighbours, "TREE_DIMENSIONS", 0)
    assert float(ksg(x, y).value) == pytest.approx(tree, abs=1e-12)
    labels = (y[:, 0] > 0).long()
    tiled = float(ross(x, labels).value)
    monkeypatch.setattr(neighbours, "TREE_DIMENSIONS", 4)
    assert float(ross(x, labels).value) == pytest.approx(tiled, abs=1e-12)


def test_unsettled_tiles_go_on_exactly(monkeypatch):
    """An outlier leaves the whole-number tiles without resolution: the answer must still be the naive one."""
    x, y = sample(5)
    x[0] = 1e5
    taken = []
    exact = neighbours._Task.exact
    monkeypatch.setattr(neighbours._Task, "exact", lambda task: taken.append(1) or exact(task))
    assert float(ksg(x, y).value) == pytest.approx(naive_ksg(x, y, 3, "max", 1), abs=1e-9)
    assert taken


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("normal-1x1", 0.03), ("uniform-noise-0.1", 0.05), ("asinh @ student-1x1-dof1", 0.04), ("independent-1x1", 0.03)],
)
def test_ksg_finds_the_known_value(name, tolerance):
    task = tasks()[name]
    x, y = task.sample(4000)
    found = ksg(x, y)
    assert float(found.value) == pytest.approx(task.mi, abs=tolerance)
    assert 0.003 < float(found.stderr) < 0.03
    assert found.flags == ()
    assert float(ksg(y, x).value) == pytest.approx(float(found.value), abs=1e-9)


def test_the_ceiling_is_reached_by_a_copy():
    x = sample(1)[0]
    found = ksg(x, x, k=3)
    assert float(found.value) == pytest.approx(found.ceiling, abs=1e-9)


def test_lnc_corrects_where_points_lie_along_a_line():
    random = numpy_generator(1, "lnc")
    x = random.uniform(size=(600, 1))
    y = x + 1e-5 * random.uniform(size=(600, 1))
    truth = 1e-5 / 2 - math.log(1e-5)  # X ~ U(0, 1), Y = X + U(0, w): w / 2 - ln w
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    plain, found = float(ksg(x, y).value), ksg_lnc(x, y)
    assert plain < 0.6 * truth
    assert abs(float(found.value) - truth) < 0.25 * abs(plain - truth)
    assert found.detail["corrected"] > 0.9
    loose = ksg_lnc(*sample(1))
    assert loose.detail["corrected"] < 0.05
    with pytest.raises(EstimateError, match=r"must exceed the 2 columns.*set k=4"):
        ksg_lnc(x, y, k=2)


def test_rotated_volume_of_a_diagonal():
    line = np.stack([np.linspace(-1, 1, 9), np.linspace(-1, 1, 9) + 1e-3 * np.cos(np.arange(9))], axis=1)[None]
    assert float(rotated_volume(line)[0]) < math.log(0.01)
    assert -2 < even_ratio(10, 2) < 0


def test_ross_counts_as_its_equation_says():
    x, y = sample(1, n=200)
    labels = torch.bucketize(y[:, 0], torch.tensor([-0.5, 0.7], dtype=torch.float64))
    gap, terms = distances(x, "max"), []
    for i in range(200):
        same = np.sort(gap[i][(labels == labels[i]).numpy()])
        within = (gap[i] < same[3]).sum()  # same[0] is the sample itself
        terms.append(psi(200) + psi(3) - psi((labels == labels[i]).sum().item()) - psi(within))
    assert float(ross(x, labels, k=3).value) == pytest.approx(np.mean(terms), abs=1e-9)


def test_ross_small_classes_and_one_class():
    x, _ = sample(1, n=50)
    labels = torch.zeros(50, dtype=torch.int64)
    only = ross(x, labels)
    assert float(only.value) == pytest.approx(0, abs=1e-9)
    assert "degenerate" in only.flags
    labels[:2], labels[2] = 1, 2
    assert "dropped" in ross(x, labels).flags
    with pytest.raises(EstimateError, match="occurs once"):
        ross(x, torch.arange(50))


@pytest.mark.parametrize("name", ["zero-inflated-poisson-0.15", "overlapping-uniforms-5", "two-normals-1.0", "noisy-typewriter-26"])
def test_mixed_estimator_finds_the_known_value(name):
    task = tasks()[name]
    assert float(gao_mixed(*task.sample(4000)).value) == pytest.approx(task.mi, abs=0.05)


def test_mixed_estimator_is_nearly_plugin_on_labels():
    x, y = tasks()["symmetric-channel-0.11"].sample(3000)
    table = np.histogram2d(x.numpy(), y.numpy(), bins=2)[0] / 3000
    plugin = float((table * np.log(table / np.outer(table.sum(1), table.sum(0)))).sum())
    found = gao_mixed(x, y)
    assert float(found.value) == pytest.approx(plugin, abs=2e-3)
    assert found.detail["atoms"] == 1.0


@pytest.mark.parametrize("metric", ["max", "euclidean"])
def test_entropy_of_a_normal_and_its_unit(metric):
    x = sample(2, n=5000)[0]
    exact = math.log(2 * math.pi * math.e)
    found = kozachenko_leonenko(x, metric=metric)
    assert float(found.value) == pytest.approx(exact, abs=4 * float(found.stderr))
    assert float(kozachenko_leonenko(2 * x, metric=metric).value - found.value) == pytest.approx(2 * math.log(2), abs=1e-9)
    with pytest.raises(EstimateError, match=r"exact copies.*jitter"):
        kozachenko_leonenko(torch.zeros(20, 2))


def test_conditional_information_vanishes_given_the_common_cause():
    random = numpy_generator(0, "cmi")
    z, a, b = (torch.from_numpy(random.standard_normal((3000, 1))) for _ in range(3))
    given = frenzel_pompe(z + a, z + b, z)
    assert abs(float(given.value)) < 0.04
    assert float(ksg(z + a, z + b).value) > 0.07  # -ln(1 - 1 / 4) / 2 = 0.144 in the long run
    # given z, y = a + b + z tells about x = a + z what a + b tells about a: ln 2 / 2
    assert float(frenzel_pompe(z + a, z + a + b, z).value) == pytest.approx(0.5 * math.log(2), abs=0.05)


def test_batches_equal_loops_and_jitter_is_seeded():
    pairs = [sample(2, seed=s) for s in range(3)]
    x, y = torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs])
    together = ksg(x, y)
    assert together.value.shape == (3,)
    assert torch.equal(together.value, torch.stack([ksg(a, b).value for a, b in pairs]))
    tied = (x[0] * 2).round()
    draws = [float(ksg(tied, y[0], jitter=1e-6, generator=torch.Generator().manual_seed(s)).value) for s in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert "ties" not in ksg(tied, y[0], jitter=1e-6).flags
    assert "ties" in ksg(tied, y[0]).flags


def test_flags_and_refusals():
    assert "high-dimension" in ksg(*sample(12)).flags
    x, y = sample(1)
    with pytest.raises(EstimateError, match="need at least 5 samples, 4 came"):
        ksg(x[:4], y[:4])
    with pytest.raises(EstimateError, match="variant is 1 or 2"):
        ksg(x, y, variant=3)
    with pytest.raises(EstimateError, match="at least 1, 0 came"):
        ksg(x, y, k=0)
    with pytest.raises(EstimateError, match="NaN or infinite"):
        ksg(torch.full_like(x, math.nan), y)
    with pytest.raises(EstimateError, match="reduce them first"):
        ksg(torch.zeros(10, 5000), torch.zeros(10, 1))


def test_duplicates_do_not_break_the_neighbours():
    x = torch.zeros(30, 1, dtype=torch.float64)
    x[:5, 0] = torch.arange(5, dtype=torch.float64)
    found = neighbours.search([x.numpy()], k=3, metric="max", counted=[(0,)], rule="closed")
    assert not (found.indices == np.arange(30)[:, None]).any()
    assert found.counts[10, 0] == 25
    assert ties(x.numpy()) == ("ties",)


def test_digamma_table():
    assert np.allclose(digamma(50)[1:], psi(np.arange(1, 51)), atol=1e-13)
    assert len(digamma(1)) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("d", "metric", "n"), [(1, "max", 100_000), (3, "euclidean", 40_000)])  # 100,000: benchmarks/mi_speed_knn.py
def test_large_samples_finish(d, metric, n):
    x, y = sample(d, n=n)
    assert float(ksg(x, y, metric=metric).value) == pytest.approx(-d / 2 * math.log(1 - 0.36), rel=0.05)
