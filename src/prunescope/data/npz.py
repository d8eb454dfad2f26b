"""Arrays of an .npz file: nothing is unpickled, and nothing is allocated before its size is checked against the file."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from prunescope import limits
from prunescope.data.raw import Array
from prunescope.types import DataError

SINGLE = b"\x93NUMPY"


def read_npz(path: Path, names: list[str] | None = None) -> dict[str, Array]:
    """The arrays called `names` (default: all) of an .npz file by name; a name that is not there is left out.

    DataError for a file that is no undamaged .npz, for Python objects (never unpickled), and for arrays whose stated size is not in the
    file or beyond the limit of what a compressed file may unpack to (`prunescope.limits`).
    """
    try:
        with path.open("rb") as file:
            if file.read(len(SINGLE)) == SINGLE:
                raise DataError(f"{path}: holds a single array: expected an .npz file of named arrays (numpy.savez)")
        with zipfile.ZipFile(path) as archive:
            members = {m.filename.removesuffix(".npy"): m for m in archive.infolist()}
            wanted = {n: m for n, m in members.items() if names is None or n in names}
            if sum(m.file_size for m in wanted.values()) > max(limits.limit("arrays"), path.stat().st_size):
                size = sum(m.file_size for m in wanted.values())
                raise limits.beyond("arrays", f"{path}: its arrays unpack to {size:,} bytes", DataError)
            return {name: _read(path, name, archive, member) for name, member in wanted.items()}
    except DataError:
        raise
    except Exception as error:  # zipfile and numpy raise what they like for damaged files
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path}: not a readable npz file ({reason}): save it again with numpy.savez") from error


def array_names(path: Path) -> list[str]:
    """The names of the arrays in an .npz file that `read_npz` could read."""
    with zipfile.ZipFile(path) as archive:
        return [m.filename.removesuffix(".npy") for m in archive.infolist()]


def _read(path: Path, name: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others may ask for any amount of memory to unpack with
        raise DataError(f"{path}: array {name!r} is packed in a way that numpy.savez never does: save it again with numpy.savez")
    with archive.open(member) as stream:
        _check(path, name, stream, member.file_size)
    with archive.open(member) as stream:
        array: Array = np.lib.format.read_array(stream, allow_pickle=False)
        return array.astype(array.dtype.newbyteorder("="), copy=False)  # torch takes no other machine's byte order


def _check(path: Path, name: str, stream: IO[bytes], size: int) -> None:
    """Compare the array's header with what the member holds, before numpy allocates what the header states."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise DataError(
            f"{path}: holds Python objects, which are never unpickled (array {name!r}): save plain numeric arrays with numpy.savez"
        )
    if any(n < 0 for n in shape) or len(shape) > 64:
        raise DataError(f"{path}: the header of {name!r} states the shape {shape}: the file is damaged")
    stated, held = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if stated > held:
        raise DataError(
            f"{path}: the header of {name!r} states {stated:,} bytes and {max(0, held):,} follow: the file is truncated or damaged"
        )
