"""Arrays of MATLAB files as scipy writes them, and what is said of others."""

import io

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from prunescope.data.matlab import read_arrays

ARRAYS = {
    "F": np.arange(12.0).reshape(4, 3),
    "y": np.array([[1, 0, 1]], dtype=np.uint8),
    "n": np.array([[-300, 5]], dtype=np.int16),
    "s": np.float32(0.5),
    "e": np.zeros((0, 3)),
}


def written(content, **options) -> bytes:
    savemat(file := io.BytesIO(), content, **options)
    return file.getvalue()


@pytest.mark.parametrize("packed", [False, True])
def test_arrays_are_those_that_scipy_reads(packed):
    content = written(ARRAYS, do_compression=packed)
    found, expected = read_arrays(content, ARRAYS), loadmat(io.BytesIO(content))
    assert found.keys() == ARRAYS.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name])
        assert array.dtype == expected[name].dtype
    assert list(read_arrays(content, ["y", "not there"])) == ["y"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no header"),
        (written(ARRAYS)[:-9], "ends in the middle"),
        (written({"F": "text"}), "no array of plain numbers"),
        (written({"F": np.array([[1 + 2j]])}), "no array of plain numbers"),
        (written({"F": {"a": 1}}), "no array of plain numbers"),
        (written({"F": np.zeros((2, 3))}).replace(b"\x02\0\0\0\x03\0\0\0", b"\x02\0\0\0\x04\0\0\0"), "holds 6 numbers"),
    ],
)
def test_what_is_no_such_array_is_named(content, said):
    with pytest.raises(ValueError, match=said):
        read_arrays(content, ["F"])
