"""Real handwritten digits that come with scikit-learn: the offline default."""

from __future__ import annotations

from pathlib import Path

from prunescope.data.raw import RawData
from prunescope.registry import datasets


@datasets("digits", source="E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI 1998 (CC BY 4.0)")
def digits(*, directory: Path | None, seed: int) -> RawData:
    """1,797 handwritten digits of 8 x 8 pixels (0 to 16), 10 classes; built in, needs no network."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    note = "Digits: 1,797 real 8 x 8 images from the UCI set that scikit-learn ships; it has no test part of its own."
    return RawData(pixels.reshape(-1, 1, 8, 8), labels, classes=10, full_scale=16.0, notes=(note,))
