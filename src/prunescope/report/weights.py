"""What pruning left of the weights: histograms at each recorded moment, and pictures of the masks."""

from __future__ import annotations

import base64
import binascii
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from prunescope.report import tables
from prunescope.report.estimates import parameters
from prunescope.report.numbers import number, numbers
from prunescope.results import stats

if TYPE_CHECKING:
    from prunescope.results.store import Run

MOST_HISTOGRAM_NUMBERS = 120_000
MOST_PIXELS = 400_000  # of all pictures together; half a byte each
LARGEST_PICTURE = 160 * 96  # a screen shows no more beside others
Picture = dict[str, Any]


def histograms(run: Run, known: pd.DataFrame) -> list[Picture] | None:
    """Weights of the first seed of each cell: zero is the share exactly zero, and these are taken out of the counts."""
    rows = stats.select(run.records, "weight_histogram")
    rows = rows[rows["seed"] == rows.groupby(tables.CELL, dropna=False)["seed"].transform("min")]
    rows = rows.sort_values("epoch", na_position="first", kind="stable").sort_index(level=0, sort_remaining=False)
    rows = rows.assign(cell=tables.cell_numbers(rows, known), moment=_weight_moments(rows), n=rows["n"].astype(float))
    rows = rows.drop_duplicates(["cell", "moment", "layer"], keep="last")
    found, spent = [], 0
    for row in rows.to_dict("records"):
        details = parameters(row["parameters"])
        edges, counts = details.get("edges") or [], details.get("counts") or []
        if not _are_bins(edges, counts) or spent > MOST_HISTOGRAM_NUMBERS:
            continue
        spent += len(counts)
        outside = _without_zeros(np.asarray(edges, float), np.asarray(counts, float), row["value"], row["n"])
        edges, outside = _merged(np.asarray(edges, float), outside, row["n"])
        about = {"cell": row["cell"], "seed": row["seed"], "moment": row["moment"], "layer": row["layer"], "zero": number(row["value"])}
        found.append(about | {"edges": numbers(edges), "counts": numbers(outside), "n": number(row["n"])})
    return [h for h in found if not (h["moment"] == "final" and _repeats(h, found))] or None


def _repeats(last: Picture, found: list[Picture]) -> bool:
    """Whether the final weights are those after fine-tuning, or after training where nothing followed: one picture serves both."""
    same = ("cell", "layer", "edges", "counts")
    return any(h["moment"] in ("train", "finetune") and all(h[key] == last[key] for key in same) for h in found)


def _weight_moments(rows: pd.DataFrame) -> list[str]:
    at_start = (rows["phase"] == "train") & (rows["epoch"] == 0)
    return ["initial" if start else str(phase) for start, phase in zip(at_start, rows["phase"], strict=True)]


def _are_bins(edges: Any, counts: Any) -> bool:
    lists = isinstance(edges, list) and isinstance(counts, list)
    return lists and bool(counts) and len(edges) == len(counts) + 1 and all(isinstance(v, int | float) for v in edges + counts)


def _merged(edges: np.ndarray, counts: np.ndarray, n: float) -> tuple[np.ndarray, np.ndarray]:
    """Neighbouring bins joined until there are about 2 n^(1/3) (Rice's rule), at least 8: small layers would show nothing but noise."""
    wanted = max(8.0, 2 * n ** (1 / 3)) if n > 0 else len(counts)
    step = max(1, round(len(counts) / wanted))
    starts = np.linspace(0, len(counts), -(-len(counts) // step) + 1).round().astype(int)[:-1]
    return np.append(edges[starts], edges[-1]), np.add.reduceat(counts, starts)


def _without_zeros(edges: np.ndarray, counts: np.ndarray, zero: float, n: float) -> np.ndarray:
    """The counts without the weights that are exactly zero, which would hide all others; unchanged where the counts do not hold them."""
    if not (0 < zero <= 1 and n > 0) or not edges[0] <= 0 <= edges[-1]:
        return counts
    near = 1e-6 * (edges[-1] - edges[0])  # an edge at zero is rarely exactly there: of the bins that touch it, zeros fill the fullest
    touching = np.flatnonzero((edges[:-1] <= near) & (edges[1:] >= -near))
    bin_of_zero = touching[counts[touching].argmax()]
    left = counts.copy()
    left[bin_of_zero] -= round(zero * n)
    return left if left[bin_of_zero] >= 0 else counts


def mask_pictures(run: Run, known: pd.DataFrame) -> tuple[list[Picture], list[str]]:
    """(pictures of the masks of each cell's first seed, sentences on mask files that could not be read).

    Small masks come from the records, bit by bit ("kept"). Those that only the trial's masks.safetensors holds are thinned: a pixel
    stands for a block of weights and its shade for the share kept, in sixteenths ("shades" of the `grid`); `count` is the exact count.
    """
    rows = stats.select(run.records, "mask")
    rows = rows[rows["seed"] == rows.groupby(tables.CELL, dropna=False)["seed"].transform("min")]
    rows = rows.assign(cell=tables.cell_numbers(rows, known)).drop_duplicates(["cell", "layer"], keep="last")
    found, spent = [], 0
    for row in rows.to_dict("records"):
        details = parameters(row["parameters"])
        shape, kept = details.get("shape"), details.get("kept") or ""
        if not _is_picture(shape, kept) or (spent := spent + 8 * len(kept)) > 4 * MOST_PIXELS:
            continue
        found.append({"cell": row["cell"], "layer": row["layer"], "seed": row["seed"], "shape": shape, "kept": kept})
    stored, lost = _stored(run, known, {(p["cell"], p["layer"]) for p in found})
    return found + stored, lost


def _is_picture(shape: Any, kept: Any) -> bool:
    if not (isinstance(shape, list) and len(shape) == 2 and all(isinstance(s, int) and s > 0 for s in shape) and isinstance(kept, str)):
        return False
    try:
        bits = 8 * len(base64.b64decode(kept, validate=True))
    except (binascii.Error, ValueError):
        return False
    return 0 <= bits - math.prod(shape) < 8


def _stored(run: Run, known: pd.DataFrame, drawn: set[tuple[int, str]]) -> tuple[list[Picture], list[str]]:
    """Pictures of the masks that only the files hold, and what could not be read."""
    done = run.trials[run.trials["status"] == "finished"].astype({"sparsity": float}).sort_values("seed", kind="stable")
    done = done.assign(cell=tables.cell_numbers(done, known) if len(done) else []).drop_duplicates("cell")
    files = [(t["cell"], t["seed"], run.folder / "trials" / str(t["hash"]) / "masks.safetensors") for t in done.to_dict("records")]
    listed, lost = [], []
    for cell, seed, path in files:
        try:
            listed += [(cell, seed, layer, shape, path) for layer, shape in _shapes(path).items() if (cell, layer) not in drawn]
        except (OSError, ValueError) as error:
            lost.append(f"{path}: the masks cannot be read ({error}); they are not drawn")
    most = min(LARGEST_PICTURE, max(256, MOST_PIXELS // max(1, len(listed))))
    found: list[Picture] = []
    spent = 0
    for cell, seed, layer, shape, path in listed:
        picture = thinned(_mask(path, layer, shape), most)
        if (spent := spent + math.prod(picture["grid"])) > MOST_PIXELS:
            lost.append(f"masks of {len(listed) - len(found):,} more layers are not drawn: the page would grow too large")
            break
        found.append({"cell": int(cell), "layer": layer, "seed": int(seed), **picture})
    return found, lost


def _shapes(path: Path) -> dict[str, tuple[int, int]]:
    """Rows and columns of each mask in a file, weights of a unit in a row; nothing where there is no file."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return {}
    try:
        with safe_open(path, "np") as held:
            sizes = {name: held.get_slice(name).get_shape() for name in held.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    return {name: (size[0], math.prod(size[1:])) for name, size in sizes.items() if len(size) > 1 and math.prod(size)}


def _mask(path: Path, layer: str, shape: tuple[int, int]) -> NDArray[np.bool_]:
    from safetensors import safe_open

    with safe_open(path, "np") as held:
        mask: NDArray[np.bool_] = np.asarray(held.get_tensor(layer)).reshape(shape) != 0
    return mask


def thinned(mask: NDArray[np.bool_], most: int) -> Picture:
    """shape, grid, shades (base64, two pixels a byte, 15 = all of the block kept) and count of a mask (rows, columns).

    >>> picture = thinned(np.array([[1, 1, 0, 0], [1, 1, 0, 1]], dtype=bool), 2)
    >>> picture["grid"], picture["count"], base64.b64decode(picture["shades"]).hex()
    ([1, 2], 5, 'f4')
    """
    rows, columns = mask.shape
    scale = max(1.0, math.sqrt(rows * columns / most))
    down, across = min(rows, max(1, round(rows / scale))), min(columns, max(1, round(columns / scale)))
    while down * across > most:  # rounding may have gone up, and a long, thin mask keeps its one row
        down, across = (down, across - 1) if across > down else (down - 1, across)
    tops, lefts = (np.linspace(0, size, parts + 1).round().astype(int) for size, parts in ((rows, down), (columns, across)))
    sums = np.add.reduceat(np.add.reduceat(mask.astype(np.int64), tops[:-1], axis=0), lefts[:-1], axis=1)
    sizes = np.outer(np.diff(tops), np.diff(lefts))
    shades = np.rint(15 * sums / sizes)
    shades = np.where((sums > 0) & (sums < sizes), shades.clip(1, 14), shades)  # blank means that nothing at all is kept, full that all is
    sixteenths = shades.astype(np.uint8).ravel()
    even = np.pad(sixteenths, (0, sixteenths.size % 2))
    packed = base64.b64encode((even[::2] << 4 | even[1::2]).tobytes()).decode()
    return {"shape": [rows, columns], "grid": [down, across], "shades": packed, "count": int(mask.sum())}
