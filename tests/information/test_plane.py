import math

import numpy as np
import pytest
import torch

from prunescope.information import plane_convergence, plane_points, reference
from prunescope.information.reduce import pca, random_projection, reduced
from prunescope.types import ConfigError, EstimateError


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def values(points):
    return {(p.layer, p.quantity): p.estimate.value for p in points}


def pattern_net():
    """All 12-bit patterns and a label, two tanh layers: the setting of the information-bottleneck studies."""
    x = ((torch.arange(4096)[:, None] >> torch.arange(12)) & 1).float()
    y = (x.sum(1) > 6).long()
    h = torch.tanh(x @ normal(12, 4) * 2)
    return x, y, {"h1": h, "h2": torch.tanh(h @ normal(4, 2, seed=1))}


def counted(codes, y):
    """H(T) and I(T; Y) in bits of integer rows by dictionary."""
    n, rows, labels = len(y), [tuple(r) for r in codes.tolist()], y.tolist()

    def h(symbols):
        counts = {}
        for s in symbols:
            counts[s] = counts.get(s, 0) + 1
        return math.log2(n) - sum(c * math.log2(c) for c in counts.values()) / n

    return h(rows), h(rows) + h(labels) - h(list(zip(rows, labels, strict=True)))


def test_thirty_bins_on_the_natural_range():
    x, y, layers = pattern_net()
    points = plane_points(layers, y, x=x, ranges={"h1": (-1, 1), "h2": (-1, 1)})
    for layer, t in layers.items():
        codes = ((t + 1) * 15).floor().clamp(0, 29).int()
        h, i = counted(codes, y)
        assert values(points)[layer, "mi_input"] == values(points)[layer, "entropy"] == pytest.approx(h, abs=0.002)
        assert values(points)[layer, "mi_label"] == pytest.approx(i, abs=0.002)
    assert {p.resolution for p in points} == {"30 equal bins on [-1, 1]"}
    assert [p.order for p in points] == [0] * 3 + [1] * 3


def test_ceilings_and_saturation():
    _, y, layers = pattern_net()
    wide = plane_points({"wide": normal(4096, 200)}, y)
    ceilings = {p.quantity: p.estimate.ceiling for p in wide}
    h_y = counted(y[:, None], y)[0]
    assert ceilings["mi_input"] == ceilings["entropy"] == pytest.approx(12)
    assert ceilings["mi_label"] == pytest.approx(h_y)
    assert all("saturated" in p.estimate.flags for p in wide)
    narrow = plane_points({"h2": layers["h2"]}, y, estimators=[{"name": "binning", "bins": 2}])
    assert {p.quantity: p.estimate.ceiling for p in narrow} == pytest.approx({"entropy": 2.0, "mi_input": 2.0, "mi_label": h_y})


def test_equal_inputs_are_one_symbol():
    x = normal(100, 5).repeat(2, 1)
    t, y = x[:, :1] * 3, torch.arange(200) % 2
    points = plane_points({"t": t}, y, x=x, estimators=[{"name": "binning", "bins": 10_000}])
    top = {p.quantity: p.estimate.ceiling for p in points}
    assert top["mi_input"] == pytest.approx(math.log2(100))
    assert values(points)["t", "mi_input"] <= top["mi_input"] + 1e-9


def test_a_noisy_layer_has_less_information_than_entropy():
    """Equal inputs that lead to different activations: I(X; T) = H(T) - H(T | X) < H(T)."""
    x = torch.zeros(100, 1)
    points = plane_points({"t": normal(100, 1)}, torch.arange(100) % 2, x=x)
    assert values(points)["t", "mi_input"] == pytest.approx(0, abs=1e-9)
    assert values(points)["t", "entropy"] > 3


def test_input_modes():
    x, y, layers = pattern_net()
    binned = plane_points(layers, y, x=x, input={"mode": "binned", "bins": 2, "range": (0, 1)}, ranges={"h1": (-1, 1)})
    identity = plane_points(layers, y, x=x, ranges={"h1": (-1, 1)})
    assert values(binned) == pytest.approx(values(identity))  # two bins tell every bit pattern apart
    codes = plane_points(layers, y, x=torch.arange(4096) % 16, input="codes", ranges={"h1": (-1, 1)})
    assert all(p.estimate.ceiling <= 4 for p in codes if p.quantity == "mi_input")
    with pytest.raises(EstimateError, match="input='binned'"):
        plane_points(layers, y, input="binned")
    with pytest.raises(EstimateError, match=r"given codes|codes of whole numbers"):
        plane_points(layers, y, x=x, input="codes")


def test_a_reference_made_once_gives_the_same():
    x, y, layers = pattern_net()
    assert values(plane_points(layers, reference(y, x))) == values(plane_points(layers, y, x=x))


def test_range_rules():
    _, y, layers = pattern_net()
    one = {"h1": layers["h1"]}
    auto, fixed = plane_points(one, y, ranges={"h1": (-3, 3)}), plane_points(one, y, estimators=[{"name": "binning", "range": [-3, 3]}])
    assert values(auto) == values(fixed)
    data = plane_points(one, y)
    assert "this layer's range" in data[0].resolution
    assert "0.07 wide" in plane_points(one, y, estimators=[{"name": "binning", "width": 0.07}])[0].resolution
    missing = plane_points(one, y, estimators=[{"name": "binning", "range": "given"}])
    assert "pass it in `ranges`" in missing[0].estimate.parameters["why"]


def test_replicates_equal_single_networks():
    y = torch.arange(300) % 3
    t = torch.tanh(normal(4, 300, 5))
    together = plane_points({"h": t}, y, replicates=True, estimators=["binning", "kde", {"name": "renyi", "order": 2}])
    for r in range(4):
        alone = plane_points({"h": t[r]}, y, estimators=["binning", "kde", {"name": "renyi", "order": 2}])
        mine = [p for p in together if p.replicate == r]
        assert [(p.quantity, p.estimate.value) for p in mine] == [(p.quantity, p.estimate.value) for p in alone]
        assert all(p.replicate is None for p in alone)


def test_a_diverged_replicate_is_named_and_the_others_live():
    t = normal(3, 50, 2)
    t[1, 4, 0] = math.nan
    points = plane_points({"h": t}, torch.arange(50) % 2, replicates=True, estimators=["binning", "kde", "renyi", "noisy", "quantised"])
    for p in points:
        assert math.isnan(p.estimate.value) == (p.replicate == 1)
        assert ("not-finite" in p.estimate.flags) == (p.replicate == 1)


def test_maps_are_flattened_or_pooled_as_said():
    y = torch.arange(60) % 2
    maps = normal(60, 3, 4, 4)
    flat, pooled = plane_points({"c": maps}, y), plane_points({"c": maps}, y, spatial="mean")
    assert values(flat) == values(plane_points({"c": maps.flatten(1)}, y))
    assert values(pooled) == values(plane_points({"c": maps.mean((2, 3))}, y))
    assert flat[0].resolution.startswith("flattened, ")
    assert pooled[0].resolution.startswith("mean over positions, ")
    tokens = normal(60, 7, 3)
    assert values(plane_points({"t": tokens}, y, spatial="mean")) == values(plane_points({"t": tokens.mean(1)}, y))
    assert values(plane_points({"o": tokens[:, 0, 0]}, y)) == values(plane_points({"o": tokens[:, :1, 0]}, y))


def test_estimators_that_know_nothing_of_planes():
    y = torch.arange(200) % 2
    x = normal(200, 3) + 2 * y[:, None]
    points = plane_points({"t": torch.tanh(x[:, :2])}, y, x=x, estimators=["gaussian-copula", {"name": "ksg", "k": 4}, "cca"])
    assert [(p.estimate.estimator, p.quantity) for p in points] == [
        ("gaussian-copula", "mi_label"), ("gaussian-copula", "mi_input"), ("ksg", "mi_label"), ("ksg", "mi_input"),
        ("cca", "mi_label"), ("cca", "mi_input"),
    ]  # fmt: skip
    assert all(p.estimate.value > 0.1 for p in points)
    assert all("deterministic" in p.resolution for p in points if p.quantity == "mi_input")
    assert "one-hot" in points[4].resolution
    assert points[2].resolution == "ross, k=4"  # Kraskov's estimator for a continuous variable and labels


def test_refusals_are_points_with_their_reason():
    y = torch.arange(40) % 2
    points = plane_points({"wide": normal(40, 100)}, y, estimators=["gaussian"])
    assert points[0].estimate.flags == ("refused",)
    assert "reduce" in points[0].estimate.parameters["why"]
    spec = {"name": "gaussian", "reduce": {"name": "pca", "dimensions": 3}}
    reduced_points = plane_points({"wide": normal(40, 100)}, y, estimators=[spec])
    assert reduced_points[0].resolution.startswith("pca of 100 columns to 3")


def test_the_data_processing_inequality_is_watched():
    y = torch.arange(400) % 2
    noise, label = normal(400, 1), y[:, None] + 0.01 * normal(400, 1)
    points = plane_points({"noise": noise, "label": label}, y, estimators=[{"name": "binning", "bins": 4}])
    marked = [p.layer for p in points if "exceeds-earlier-layer" in p.estimate.flags]
    assert marked == ["label"]
    free = plane_points({"noise": noise, "label": label}, y, estimators=[{"name": "binning", "bins": 4}], chain=False)
    assert all("exceeds-earlier-layer" not in p.estimate.flags for p in free)


def test_convergence_in_the_number_of_samples():
    x, y, layers = pattern_net()
    points = plane_convergence(layers, y, x=x, ranges={"h1": (-1, 1), "h2": (-1, 1)})
    h1 = [(p.estimate.n, p.estimate.value) for p in points if (p.layer, p.quantity) == ("h1", "entropy")]
    assert [n for n, _ in h1] == [1024, 2048, 4096]
    assert h1[0][1] < h1[1][1] < h1[2][1]


def test_wrong_shapes_and_names():
    y = torch.arange(10) % 2
    with pytest.raises(EstimateError, match=r"'h'.*10 samples"):
        plane_points({"h": normal(9, 2)}, y)
    with pytest.raises(ConfigError, match="did you mean 'binning'"):
        plane_points({"h": normal(10, 2)}, y, estimators=["bining"])
    with pytest.raises(ConfigError, match="table with one"):
        plane_points({"h": normal(10, 2)}, y, estimators=[{"bins": 3}])
    with pytest.raises(EstimateError, match="labels"):
        plane_points({"h": normal(10, 2)}, normal(10))


def test_units():
    _, y, layers = pattern_net()
    bits, nats = plane_points(layers, y), plane_points(layers, y, unit="nats")
    for a, b in zip(bits, nats, strict=True):
        assert b.estimate.value == pytest.approx(a.estimate.value * math.log(2))


@pytest.mark.parametrize("shape", [(50, 8), (20, 60)])
def test_principal_components_agree_with_sklearn(shape):
    from sklearn.decomposition import PCA

    x = normal(*shape).double() @ torch.diag(torch.linspace(1, 3, shape[1], dtype=torch.float64))
    ours, theirs = pca(x, dimensions=3).numpy(), PCA(3, svd_solver="full").fit_transform(x.numpy())
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), rtol=1e-6, atol=1e-8)


def test_random_projections_are_orthonormal_and_fixed():
    a, b = (random_projection(torch.eye(20, dtype=torch.float64), dimensions=4, seed=1) for _ in range(2))
    assert (a == b).all()
    torch.testing.assert_close(a.T @ a, torch.eye(4, dtype=torch.float64))
    with pytest.raises(ConfigError, match="random-projection"):
        reduced(torch.eye(3), {"name": "umap"})
