"""Pictures of masks: exact where they fit, thinned with the share told where they do not."""

import base64

import numpy as np
import pytest
from fakerun import Made, make_run
from safetensors.numpy import save_file

from prunescope.report import tables
from prunescope.report.weights import mask_pictures, thinned


def shades(picture):
    packed = base64.b64decode(picture["shades"])
    pixels = [half for byte in packed for half in (byte >> 4, byte & 15)]
    down, across = picture["grid"]
    assert len(pixels) - down * across in (0, 1)
    return np.array(pixels[: down * across]).reshape(down, across)


@pytest.mark.parametrize("shape", [(300, 784), (7, 5), (1, 50_000), (50_000, 1), (3, 9_999), (101, 33)])
def test_a_thinned_mask_keeps_its_shares(shape):
    mask = np.random.default_rng(0).random(shape) < np.linspace(0, 1, shape[1])
    picture = thinned(mask, 1001)
    found = shades(picture)
    assert picture["count"] == mask.sum()
    assert found.size <= 1001
    assert picture["shape"] == list(shape)
    assert found.mean() / 15 == pytest.approx(mask.mean(), abs=0.02)


def test_blank_and_full_mean_nothing_and_all():
    mask = np.zeros((100, 100), dtype=bool)
    mask[0, 0] = True
    mask[50:] = True
    mask[99, 99] = False
    found = shades(thinned(mask, 4))
    assert found.tolist() == [[1, 0], [15, 14]]


def test_masks_of_the_first_seed_are_read_from_their_files(tmp_path):
    made = Made(variants={"baseline": ((None,), False), "units": ((0.5,), False)}, groups=("",), seeds=2, epochs=1, information=False)
    run = make_run(tmp_path, made)
    for trial, share in (("00100", 0.5), ("00101", 0.9)):
        place = tmp_path / "trials" / trial
        place.mkdir(parents=True)
        mask = np.random.default_rng(1).random((40, 3, 5, 5)) < share
        save_file({"conv.weight": mask.astype(np.uint8), "conv.bias": np.ones(40, dtype=np.uint8)}, place / "masks.safetensors")
        if trial == "00100":
            count = int(mask.sum())
    (picture,), lost = mask_pictures(run, tables.cells(run))
    assert (picture["cell"], picture["layer"], picture["seed"]) == (1, "conv.weight", 0)
    assert (picture["shape"], picture["count"], lost) == ([40, 75], count, [])
