"""MNIST and Fashion-MNIST, read from their original gzipped IDX files."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from prunescope.data.locate import found
from prunescope.data.raw import Array, RawData
from prunescope.data.sources import SOURCES
from prunescope.registry import datasets
from prunescope.types import DataError

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
    content = _decompressed(path)
    dimensions = 3 if "idx3" in path.name else 1
    expected = 2048 + dimensions
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise DataError(f"{path}: truncated: {len(content)} bytes are too few for the IDX header of {start}: fetch the file again")
    magic, *shape = struct.unpack(f">{1 + dimensions}I", content[:start])
    if magic != expected:
        raise DataError(f"{path}: magic number {magic}, expected {expected}: this is not the IDX file that its name says, fetch it again")
    if math.prod(shape) != len(content) - start:
        raise DataError(
            f"{path}: the header announces {' x '.join(map(str, shape))} = {math.prod(shape):,} bytes but {len(content) - start:,} "
            "follow: the file is truncated or damaged, fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _decompressed(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes())
    except EOFError as error:
        raise DataError(f"{path}: truncated: the gzip stream ends early, so fetch the file again") from error
    except (gzip.BadGzipFile, zlib.error, struct.error) as error:
        raise DataError(f"{path}: not an undamaged gzip file ({error}): fetch the file again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}): check the file and its permissions") from error
