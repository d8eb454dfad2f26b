"""The 12-bit rule of the information-bottleneck studies: a binary label that no rotation or reflection of a sphere changes."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Literal

import numpy as np

from prunescope import limits
from prunescope.data.locate import directories, find
from prunescope.data.matlab import read_arrays
from prunescope.data.raw import Array, RawData
from prunescope.registry import datasets
from prunescope.types import DataError

FILE = "var_u.mat"
DEGREES = 5  # spherical harmonics of degree 0 to 4 tell 64 kinds of patterns apart: the median splits them 2,044 to 2,052


@datasets("tishby", source="R. Shwartz-Ziv, N. Tishby, arXiv:1703.00810, section 3.1", file=FILE)
def tishby(
    *,
    directory: Path | None,
    seed: int,
    rule: Literal["auto", "file", "generated"] = "auto",
    encoding: Literal["bits", "signed"] = "bits",
) -> RawData:
    """All 4,096 patterns of 12 bits with a binary label, H(Y) within 0.001 of 1 bit; I(X;Y) = H(Y) (no noise).

    rule       "file" reads `<dir>/tishby/var_u.mat`, "generated" computes an O(3)-invariant rule of our own, "auto" takes the file if found
    encoding   "bits" 0 and 1 as in the file, "signed" -1 and 1
    """
    paths = None if rule == "generated" else find("tishby", [FILE], directory)
    if paths is None and rule == "file":
        places = ", ".join(str(place / "tishby") for place in directories(directory))
        raise DataError(f"tishby: no {FILE} in {places}: put the study's file there, or set data.rule = \"generated\"")
    if paths:
        x, y = read_rule(paths[0])
        note = f"Tishby: the rule of the study's own file {FILE}; its rows are in counting order and are shuffled before any split."
    else:
        x = patterns()
        y = generated_rule(x)
        note = (
            f"Tishby: a generated rule, not the study's ({FILE} was not {'asked for' if rule == 'generated' else 'found'}): 12 bits choose "
            "vertices of an icosahedron, the label says whether their spherical power (degrees 0 to 4) exceeds its median."
        )
    return RawData(x if encoding == "bits" else 2.0 * x - 1.0, y, classes=2, notes=(note,))


def read_rule(path: Path) -> tuple[Array, Array]:
    """The patterns `F`, shape (4096, 12), and labels `y`, shape (4096,), of a MATLAB 5 file. DataError if damaged."""
    try:
        found = read_arrays(limits.read_bytes(path, "matlab", DataError), ["F", "y"])
    except (ValueError, struct.error, zlib.error, OSError) as error:
        raise DataError(f"{path}: not a readable MATLAB 5 file ({error}): take var_u.mat from the study's code again") from error
    shapes = {name: found[name].shape if name in found else None for name in ("F", "y")}
    if shapes != {"F": (4096, 12), "y": (1, 4096)}:
        raise DataError(f"{path}: expected F of shape (4096, 12) and y of shape (1, 4096), got {shapes['F']} and {shapes['y']}")
    return found["F"].astype(np.float64), found["y"][0]


def patterns() -> Array:
    """All 4,096 patterns of 12 bits in counting order, shape (4096, 12), most significant bit first."""
    bits: Array = (np.arange(4096)[:, None] >> np.arange(11, -1, -1)) & 1
    return bits.astype(np.float64)


def vertices() -> Array:
    """The 12 vertices of the regular icosahedron on the unit sphere, shape (12, 3)."""
    golden = (1 + 5**0.5) / 2
    corners = [np.roll((0.0, a, b * golden), turn) for turn in range(3) for a in (1, -1) for b in (1, -1)]
    unit: Array = np.array(corners) / np.hypot(1, golden)
    return unit


def spherical_power(bits: Array) -> Array:
    """Power of each pattern of marked vertices, summed over the spherical harmonics of degree 0 to 4; shape (n,).

    By the addition theorem the power of degree l is (2l + 1) / 4 pi times the sum of P_l(cos angle) over all pairs of marked
    points: angles alone enter it, so no rotation or reflection changes it. One point has (1 + 3 + 5 + 7 + 9) / 4 pi:

    >>> round(float(spherical_power(np.eye(12)[:1])[0]) * 4 * np.pi, 9)
    25.0
    """
    from scipy.special import eval_legendre

    corners = vertices()
    cosines = corners @ corners.T
    kernel = sum((2 * degree + 1) / (4 * np.pi) * eval_legendre(degree, cosines) for degree in range(DEGREES))
    return np.asarray(np.einsum("ni,ij,nj->n", bits, kernel, bits))


def generated_rule(bits: Array) -> Array:
    """Label of each pattern, shape (n,): 1 where its spherical power exceeds the median over all 4,096 patterns."""
    median = np.median(spherical_power(patterns()))
    return np.asarray(spherical_power(bits) > median + 1e-6, np.int64)  # levels lie 0.019 apart: 1e-6 outweighs rounding
