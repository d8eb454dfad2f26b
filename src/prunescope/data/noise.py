"""Pure noise: nothing can be learned from it, so whatever a network gets right on fresh rows is luck."""

from __future__ import annotations

from pathlib import Path

from prunescope.data.raw import RawData
from prunescope.registry import datasets
from prunescope.rng import numpy_generator
from prunescope.types import ConfigError


@datasets("noise", source="data of the Keras magnitude-pruning example: uniform features, coin-flip labels")
def noise(*, directory: Path | None, seed: int, samples: int = 1000, features: int = 20, label_seed: int = 42) -> RawData:
    """Uniform features in [0, 1) with coin-flip labels (2 classes): I(X;Y) of the source is 0 bits.

    `label_seed` alone decides the rows and labels, so that every replicate sees the same ones, as if they were a file.
    """
    if samples < 4 or features < 1:
        raise ConfigError(f"noise: expected samples >= 4 and features >= 1, got samples = {samples} and features = {features}")
    x = numpy_generator(label_seed, "noise", "x").random((samples, features))
    y = numpy_generator(label_seed, "noise", "y").integers(0, 2, samples)
    note = f"Noise: {samples:,} rows of {features} uniform values, coin-flip labels (seed {label_seed}): there is nothing to learn."
    return RawData(x, y, classes=2, notes=(note,))
