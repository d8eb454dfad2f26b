import math

import numpy as np
import pandas as pd
import pytest
import torch

from prunescope.information import conditional_mutual_information, entropy, mutual_information
from prunescope.information.samples import columns
from prunescope.registry import estimators
from prunescope.types import ConfigError, EstimateError

X = np.random.default_rng(0).normal(size=(400, 2))
Y = (X[:, 0] > 0).astype(int)


@pytest.mark.parametrize(
    "kind", [np.asarray, torch.as_tensor, list, lambda a: pd.DataFrame(a), lambda a: a.tolist(), lambda a: a.astype(">f8")]
)
def test_containers_do_not_matter(kind):
    assert mutual_information(kind(X), Y, "binning", bins=4).value == mutual_information(X, Y, "binning", bins=4).value


def test_what_counts_as_labels():
    assert columns([True, False], "y").kind == columns(["a", "b"], "y").kind == columns([1, 2], "y").kind == "discrete"
    assert columns(np.array([1, 2], dtype=np.uint16), "y").values.tolist() == [1, 2]
    assert columns([[0, 1], [0, 1], [1, 1]], "y").values.tolist() == [0, 0, 1]  # a row of labels is one symbol
    assert columns([1.0, 2.0], "x").kind == "continuous"
    frame = pd.DataFrame({"a": ["u", "v", "u"], "b": [0.1, 0.2, 0.3]})
    assert columns(frame, "x").kind == "mixed"
    assert columns(frame[["a"]], "x").values.tolist() == [0, 1, 0]
    assert columns(pd.Series(["u", "v"], dtype="category"), "x").values.tolist() == [0, 1]


BAD = {
    "empty": ([], [], "at least one row"),
    "lengths": ([1.0, 2.0, 3.0], [0, 1], "x 3, y 2"),
    "nan": ([1.0, math.nan, 2.0], [0, 1, 0], "1 NaN"),
    "infinite": ([1.0, math.inf, 2.0], [0, 1, 0], "finite"),
    "ragged": ([[1.0], [1.0, 2.0]], [0, 1], "ragged"),
    "complex": (np.array([1j, 2j]), [0, 1], "real"),
    "missing": (np.array(["a", None], dtype=object), [0, 1], "missing"),
    "scalar": (3.0, [0], "samples of shape"),
    "one row": ([1.0], [0], "at least 2"),
    "batches": (torch.zeros(2, 5, 1), torch.zeros(3, 5, 1), "leading dimensions"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_sentence(case):
    x, y, words = BAD[case]
    with pytest.raises(EstimateError, match=words) as caught:
        mutual_information(x, y, "binning")
    assert "\n" not in str(caught.value)


def test_too_few_samples_for_k():
    with pytest.raises(EstimateError, match="at least 7"):
        mutual_information(X[:6], X[:6, :1], "ksg", k=5)


@pytest.mark.parametrize("x", [np.ones((50, 2)), np.full(50, 7), ["same"] * 50])
def test_a_constant_variable_has_exactly_nothing_and_says_so(x):
    estimate = mutual_information(x, Y[:50], "binning")
    assert (estimate.value, estimate.ceiling) == (0.0, 0.0)
    assert "degenerate" in estimate.flags
    assert "constant" in estimate.parameters["why"]


def test_a_constant_column_is_left_out_and_flagged():
    wide = np.concatenate([X, np.ones((400, 1))], axis=1)
    estimate = mutual_information(wide, Y, "gaussian")
    assert "degenerate" in estimate.flags
    assert estimate.value == mutual_information(X, Y, "gaussian").value


def test_flags_for_ties_and_dimension():
    assert "ties" in mutual_information(X.round(1)[:, :1], Y, "binning", bins=3).flags
    assert "ties" in mutual_information(np.repeat(np.random.default_rng(1).normal(size=(30, 9)), 2, 0), Y[:60], "binning").flags
    assert "ties" not in mutual_information(np.maximum(np.random.default_rng(1).normal(size=(99, 9)), 0), Y[:99], "binning").flags
    assert "high-dimension" in mutual_information(np.random.default_rng(1).normal(size=(20, 30)), Y[:20], "binning").flags


def test_unknown_names_are_answered_with_near_ones():
    with pytest.raises(ConfigError, match="did you mean 'plugin'"):
        mutual_information(Y, Y, "plugn")
    with pytest.raises(ConfigError, match="did you mean 'bins'"):
        mutual_information(X, Y, "binning", bin=3)
    with pytest.raises(EstimateError, match=r"choose one of.*binning"):
        mutual_information(X, Y, "plugin")
    with pytest.raises(EstimateError, match="unit"):
        mutual_information(X, Y, "binning", unit="bit")
    with pytest.raises(EstimateError, match="uncertainty"):
        mutual_information(X, Y, "binning", uncertainty="bootstrap")
    with pytest.raises(ConfigError, match=r"choose one of.*plugin"):
        entropy(Y, "kde")
    with pytest.raises(ConfigError, match="choose one of"):
        conditional_mutual_information(Y, Y, Y, "kde")


def test_x_and_y_may_change_places():
    assert mutual_information(Y, X, "kde", noise=0.1).value == mutual_information(X, Y, "kde", noise=0.1).value


@pytest.mark.parametrize("method", ["extrapolation", "subsampling", "jackknife"])
def test_intervals_from_parts_cover_a_known_value(method):
    """Gaussian pairs, 80 draws: the 95 % interval holds the truth at least 90 times in 100, and is stated."""
    truth, hits = -0.5 * math.log2(1 - 0.36), 0
    for seed in range(80):
        a, b = np.random.default_rng(seed).normal(size=(2, 500))
        estimate = mutual_information(a, 0.6 * a + 0.8 * b, "gaussian", uncertainty=method, seed=seed)
        hits += estimate.interval[0] <= truth <= estimate.interval[1]
        assert estimate.parameters["uncertainty"].startswith(method)
    assert hits >= 72


def test_subsampling_refuses_too_small_parts():
    with pytest.raises(EstimateError, match="jackknife"):
        mutual_information(X[:50], Y[:50], "binning", uncertainty="subsampling")


def test_batches_share_what_has_no_batch():
    batch = torch.from_numpy(np.stack([X, -X, 2 * X]))
    together = mutual_information(batch, Y, "gaussian")
    assert [round(e.value, 9) for e in together] == [round(mutual_information(b, Y, "gaussian").value, 9) for b in batch]
    labels = torch.from_numpy(np.stack([Y, 1 - Y, np.roll(Y, 7)]))
    assert mutual_information(batch, labels, "kde")[2].value == mutual_information(batch[2], labels[2], "kde").value


def test_a_batch_with_one_constant_member():
    batch = np.stack([X, np.ones_like(X)])
    alive, dead = mutual_information(batch, Y, "binning", bins=3)
    assert alive.value > 0.1
    assert dead.value == 0.0
    assert dead.flags == ("degenerate",)
    assert alive.flags == ()


def test_an_estimator_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def half(x, y, *, scale=0.5):\n    return scale * x.shape[0] / y.shape[0]\n")
    monkeypatch.chdir(tmp_path)
    assert mutual_information(X, Y, "mine:half", unit="nats").value == 0.5
    assert mutual_information(X, Y, "mine:half", unit="nats", scale=0.25).value == 0.25


def test_a_method_that_breaks_down_never_returns_a_silent_nan(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("def nan(x, y):\n    return float('nan')\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EstimateError, match="returned nan"):
        mutual_information(X, Y, "broken:nan")


def test_entropy_of_a_constant_column_is_refused():
    with pytest.raises(EstimateError, match="minus infinity"):
        entropy(np.ones((50, 1)), "gaussian")


@pytest.mark.parametrize("name", ["binning", "gaussian-copula", "kde", "renyi", "kernel-density"])
def test_thread_count_changes_nothing(name):
    values = []
    other = Y if name == "kde" else X[:, 1:]
    order = {"order": 2} if name == "renyi" else {}  # spectra of 400 samples on two busy threads take seconds
    for threads in (1, 2):
        kept = torch.get_num_threads()
        torch.set_num_threads(threads)
        values.append(mutual_information(X[:, :1], other, name, **order).value)
        torch.set_num_threads(kept)
    assert math.isclose(*values, rel_tol=1e-6)


def test_every_estimator_of_this_package_has_a_ceiling_it_respects():
    for entry in estimators:
        if entry.traits.get("x") in ("discrete", "any") and "mi" in entry.traits["quantities"] and "steps" not in entry.options:
            estimate = mutual_information(Y, Y, entry.name)
            assert estimate.ceiling <= 1.0
            assert estimate.value <= estimate.ceiling + 0.15


def test_a_value_above_its_ceiling_is_marked(tmp_path, monkeypatch):
    (tmp_path / "tall.py").write_text("def value(x, y, *, nats=1.0):\n    return nats\n")
    monkeypatch.chdir(tmp_path)
    flags = {nats: mutual_information(X, Y, "tall:value", nats=nats).flags for nats in (0.3, 0.69, 0.75, 0.9)}
    assert flags == {0.3: (), 0.69: ("saturated",), 0.75: ("saturated",), 0.9: ("saturated", "above-ceiling")}  # H(Y) = 0.693 nats
