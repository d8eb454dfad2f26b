"""The 12-bit rule: the study's file where it is there, the generated rule always."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from scipy.spatial.transform import Rotation

from prunescope.data import available, load
from prunescope.data.tishby import generated_rule, patterns, spherical_power, vertices
from prunescope.types import ConfigError, DataError

FILE = Path(os.environ.get("PRUNESCOPE_DATA", "nowhere")) / "tishby" / "var_u.mat"
GENERATED = {"rule": "generated"}


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("PRUNESCOPE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def entropy(p: float) -> float:
    return float(-p * np.log2(p) - (1 - p) * np.log2(1 - p))


@pytest.mark.skipif(not FILE.is_file(), reason="$PRUNESCOPE_DATA holds no tishby/var_u.mat")
def test_the_studys_file() -> None:
    data = load("tishby", options={"rule": "file"})
    everything = data.split("all")
    assert len(everything) == 4096
    assert len({tuple(row) for row in everything.x.tolist()}) == 4096
    assert entropy(everything.y.float().mean().item()) == pytest.approx(0.99916, abs=1e-5)
    shares = [split.y.float().mean().item() for split in (data.train, data.validation, data.test)]
    assert max(shares) - min(shares) < 0.002  # in counting order they would be 0.44 and 0.84
    assert "own file" in data.notes[0]


def symmetries() -> np.ndarray:
    """The permutations of the 12 vertices by rotations of the icosahedron and by the point reflection."""
    corners = vertices()
    axes = [corners[0] * 2 * np.pi / 5, (corners[0] + corners[np.argsort(corners @ corners[0])[-2]])]
    axes[1] *= np.pi / np.linalg.norm(axes[1])  # half a turn about the middle of an edge
    images = [Rotation.from_rotvec(axis).apply(corners) for axis in axes] + [-corners]
    distances = [np.linalg.norm(image[:, None] - corners, axis=2) for image in images]
    assert max(d.min(1).max() for d in distances) < 1e-9  # the vertices do fall on vertices
    return np.array([d.argmin(1) for d in distances])


def test_the_generated_label_does_not_change_under_rotation_and_reflection() -> None:
    bits = patterns()
    labels = generated_rule(bits)
    for permutation in symmetries():
        assert sorted(permutation) == list(range(12))
        assert not np.array_equal(permutation, np.arange(12))
        assert np.array_equal(generated_rule(bits[:, permutation]), labels)


def test_the_generated_label_does_change_under_other_permutations() -> None:
    bits = patterns()
    swapped = np.arange(12)
    swapped[[0, 1]] = 1, 0
    assert 0 < (generated_rule(bits[:, swapped]) != generated_rule(bits)).mean() < 0.5


def test_power_is_the_sum_of_squared_harmonic_coefficients() -> None:
    from scipy.special import sph_harm_y

    bits = patterns()[[1, 100, 2077, 4095]]
    x, y, z = vertices().T
    theta, phi = np.arccos(z), np.arctan2(y, x)
    power = sum(
        np.abs((bits * sph_harm_y(degree, order, theta, phi)).sum(1)) ** 2
        for degree in range(5)
        for order in range(-degree, degree + 1)
    )
    assert np.allclose(power, spherical_power(bits), atol=1e-9)


def test_levels_lie_far_enough_apart_for_rounding() -> None:
    levels = np.unique(spherical_power(patterns()).round(9))
    assert len(levels) == 64
    assert np.diff(levels).min() > 0.01


def test_the_generated_rule_is_balanced_and_said(nowhere: Path) -> None:
    data = load("tishby", directory=nowhere)
    assert entropy(data.split("all").y.float().mean().item()) > 0.999
    assert "generated" in data.notes[0]
    assert "not the study's" in data.notes[0]
    row = {r.name: r for r in available(nowhere)}["tishby"]
    assert row.found
    assert "generated" in row.where


def test_encodings() -> None:
    bits, signed = (load("tishby", options={**GENERATED, "encoding": e}) for e in ("bits", "signed"))
    assert set(bits.train.x.unique().tolist()) == {0.0, 1.0}
    assert bool((signed.train.x == 2 * bits.train.x - 1).all())
    with pytest.raises(ConfigError, match="'encoding' of dataset 'tishby': expected Literal"):
        load("tishby", options={"encoding": "sign"})


def test_a_file_that_was_asked_for_must_be_there(nowhere: Path) -> None:
    with pytest.raises(DataError, match=r"no var_u\.mat in"):
        load("tishby", directory=nowhere, options={"rule": "file"})


@pytest.mark.parametrize("content", [b"", b"not a MATLAB file at all" * 40])
def test_a_damaged_file_is_not_replaced_in_silence(nowhere: Path, content: bytes) -> None:
    (nowhere / "tishby").mkdir()
    (nowhere / "tishby" / "var_u.mat").write_bytes(content)
    with pytest.raises(DataError, match="not a readable MATLAB 5 file"):
        load("tishby", directory=nowhere)


@pytest.mark.skipif(not FILE.is_file(), reason="$PRUNESCOPE_DATA holds no tishby/var_u.mat")
def test_a_truncated_file_is_named(nowhere: Path) -> None:
    (nowhere / "tishby").mkdir()
    (nowhere / "tishby" / "var_u.mat").write_bytes(FILE.read_bytes()[:500])
    with pytest.raises(DataError, match="not a readable MATLAB 5 file"):
        load("tishby", directory=nowhere)


def test_other_arrays_are_named(nowhere: Path) -> None:
    (nowhere / "tishby").mkdir()
    savemat(nowhere / "tishby" / "var_u.mat", {"F": np.zeros((5, 12)), "z": 1})
    with pytest.raises(DataError, match=r"got \(5, 12\) and None"):
        load("tishby", directory=nowhere)
