"""Plain arrays of numbers in a MATLAB 5 file, each element's stated size compared with what is there.

scipy reads more, but a damaged file can end the process in its compiled code; the one file that is read here comes from elsewhere.

Source: MathWorks, MAT-File Format (version 5): a header of 128 bytes, then elements of a type, a size and that many bytes.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection, Iterator

import numpy as np

from prunescope import limits
from prunescope.data.raw import Array
from prunescope.types import DataError

MATRIX, PACKED = 14, 15
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}  # how numbers are stored
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}  # what they are
COMPLEX = 0x800
DIMENSIONS = 32


def read_arrays(content: bytes, names: Collection[str]) -> dict[str, Array]:
    """The arrays called `names` that are there, of the shapes and types that MATLAB shows.

    Raises ValueError (or struct.error, zlib.error) for a file that is damaged, no version 5, or holds something else under such a name;
    DataError for one that unpacks to more than the limit `matlab`.
    """
    if content[126:128] not in (b"IM", b"MI") or b"\x01" not in content[124:126]:
        raise ValueError("no header of version 5")
    order, left, found = "<" if content[126:128] == b"IM" else ">", limits.limit("matlab"), {}
    for kind, data in _elements(content[128:], order):
        inside: Iterator[tuple[int, bytes]] = iter([(kind, data)])
        if kind == PACKED:
            unpacked = zlib.decompressobj().decompress(data, left + 1)
            if (left := left - len(unpacked)) < 0:
                raise limits.beyond("matlab", "its elements unpack to more than is expected", DataError)
            inside = _elements(unpacked, order)
        for own, body in inside:
            if own == MATRIX and (named := _matrix(body, order, names)) is not None:
                found[named[0]] = named[1]
    return found


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """(type, bytes) of each element; one of at most four bytes may stand in its own head."""
    place = 0
    while place + 8 <= len(content):
        kind, size = struct.unpack(f"{order}II", content[place : place + 8])
        if kind >> 16:
            kind, size, begin, end = kind & 0xFFFF, kind >> 16, place + 4, place + 8
            if size > 4:
                raise ValueError(f"a short element states {size} bytes")
        else:
            begin, end = place + 8, place + 8 + size + (0 if kind == PACKED else -size % 8)
        if begin + size > len(content):
            raise ValueError("it ends in the middle of an element")
        yield kind, content[begin : begin + size]
        place = end


def _matrix(content: bytes, order: str, names: Collection[str]) -> tuple[str, Array] | None:
    """A matrix by its name, if that is wanted."""
    parts = [data for _, data in _elements(content, order)]
    kinds = [kind for kind, _ in _elements(content, order)]
    if len(parts) < 3:
        raise ValueError("an array has no name")
    name = parts[2].decode("latin-1")
    if name not in names:
        return None
    flags, shape = struct.unpack(f"{order}I", parts[0][:4])[0], np.frombuffer(parts[1], f"{order}i4").tolist()
    if flags & 0xFF not in CLASSES or flags & COMPLEX or len(parts) < 4 or kinds[3] not in STORED:
        raise ValueError(f"{name} is no array of plain numbers")
    values = np.frombuffer(parts[3], order + STORED[kinds[3]])
    if not 2 <= len(shape) <= DIMENSIONS or min(shape) < 0 or math.prod(shape) != len(values):
        raise ValueError(f"{name} states the shape {tuple(shape)} and holds {len(values)} numbers")
    return name, values.astype(CLASSES[flags & 0xFF]).reshape(shape, order="F")
