"""MNIST and Fashion-MNIST, read from their original gzipped IDX files."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from prunescope import limits
from prunescope.data.locate import found
from prunescope.data.raw import Array, RawData
from prunescope.data.sources import SOURCES
from prunescope.registry import datasets
from prunescope.types import DataError, PrunescopeError

GARMENTS = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


@datasets("mnist", source="Y. LeCun, C. Cortes, C. J. C. Burges: The MNIST database of handwritten digits (CC BY-SA 3.0)")
def mnist(*, directory: Path | None, seed: int) -> RawData:
    """70,000 handwritten digits of 28 x 28 pixels (0 to 255), 10 classes; 60,000 for training, 10,000 for testing."""
    return _images("mnist", directory, tuple("0123456789"))


@datasets("fashion-mnist", source="H. Xiao, K. Rasul, R. Vollgraf: Fashion-MNIST, arXiv:1708.07747, 2017 (MIT)")
def fashion_mnist(*, directory: Path | None, seed: int) -> RawData:
    """70,000 pictures of garments of 28 x 28 pixels (0 to 255), 10 classes; 60,000 for training, 10,000 for testing."""
    return _images("fashion-mnist", directory, GARMENTS)


def _images(name: str, directory: Path | None, class_names: tuple[str, ...]) -> RawData:
    paths = found(name, [source.name for source in SOURCES[name]], directory)
    x_train, y_train, x_test, y_test = (read_idx(path) for path in paths)
    return RawData(x_train[:, None], y_train, x_test[:, None], y_test, 10, class_names, full_scale=255.0)


def read_idx(path: Path) -> Array:
    """The unsigned bytes of a gzipped IDX file, shaped as its header says (read-only). DataError if damaged.

    Labels have one dimension (magic number 2049), images three (2051): big-endian sizes follow the magic number.
    """
    dimensions = 3 if "idx3" in path.name else 1
    expected = 2048 + dimensions
    start = 4 + 4 * dimensions
    try:
        with gzip.open(path) as file:
            head = file.read(start)
            if len(head) < start:
                raise DataError(f"{path}: truncated: {len(head)} bytes are too few for the IDX header of {start}: fetch the file again")
            magic, *shape = struct.unpack(f">{1 + dimensions}I", head)
            if magic != expected:
                raise DataError(
                    f"{path}: magic number {magic}, expected {expected}: this is not the IDX file that its name says, fetch it again"
                )
            return np.frombuffer(_body(file, path, shape), np.uint8).reshape(shape)
    except EOFError as error:
        raise DataError(f"{path}: truncated: the gzip stream ends early, so fetch the file again") from error
    except (gzip.BadGzipFile, zlib.error, struct.error) as error:
        raise DataError(f"{path}: not an undamaged gzip file ({error}): fetch the file again") from error
    except OSError as error:
        if isinstance(error, PrunescopeError):
            raise
        raise DataError(f"{path}: cannot be read ({error.strerror}): check the file and its permissions") from error


def _body(file: gzip.GzipFile, path: Path, shape: list[int]) -> bytes:
    """What the header announces, and no more: a file that unpacks to more than that is cut off where it exceeds it."""
    announced = math.prod(shape)
    if announced > limits.limit("arrays"):
        raise limits.beyond("arrays", f"{path}: the header announces {announced:,} bytes", DataError)
    parts, left = [], announced
    while left and (part := file.read(min(left, limits.MIB))):  # never more room than bytes that are there
        parts.append(part)
        left -= len(part)
    more = 0 if left else len(file.read(limits.MIB))
    if left or more:
        follow = "many more" if more == limits.MIB else f"{announced - left + more:,}"
        raise DataError(
            f"{path}: the header announces {' x '.join(map(str, shape))} = {announced:,} bytes but {follow} follow: the file is "
            "truncated or damaged, fetch it again"
        )
    return b"".join(parts)
