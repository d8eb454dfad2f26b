"""Samples grouped by equal rows: hashing, sorting and the entropies (nats) of the groups.

Rows of small integers are packed into one 63-bit number where that is exact. Longer rows are projected on 16 vectors of
random integers in [-16, 16): every projection is an exact integer (float32 sums below 2^24, float64 below 2^53), and two
different rows agree in all of them with probability <= 2^-80 (some entry differs, and given the other weights at most one
of its weight's 32 values makes the projections equal). Four random sums modulo 2^64 of the 16 projections are the keys; with
projections below 2^25 they add 2^-156, below 2^46 (2^28 levels, 10,000 columns) 2^-72. At 100,000 rows (2^32.2 pairs) any
two rows are mistaken for equal with probability < 1e-12.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunescope.rng import numpy_generator
from prunescope.types import EstimateError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Coder = Callable[[Tensor, Tensor], None]  # (rows of the input, buffer to fill with integer codes)

TILE = 1 << 20  # numbers a tile: 4 MB of float32 stay in the cache between the passes


@dataclass(frozen=True)
class Groups:
    """Samples of B batches sorted into groups: `ids` (B, n) counts from 0 within each batch, `counts` (groups,) are sizes in samples.

    `batch` (groups,) says which batch a group belongs to; groups of one batch follow each other.
    """

    ids: Ints
    counts: Ints
    batch: Ints

    @property
    def n(self) -> int:
        return int(self.ids.shape[-1])

    @property
    def sizes(self) -> Ints:
        """Number of groups in each batch (B,)."""
        return np.bincount(self.batch, minlength=self.ids.shape[0])

    def entropy(self) -> Floats:
        """Plug-in entropy in nats of each batch's groups (B,): log n - sum(c log c) / n."""
        return _entropy(self.counts, self.batch, self.ids.shape)


@functools.lru_cache(maxsize=8)
def _count_logs(n: int) -> Floats:
    """c log c of every count c from 0 to n: looked up, because there are far more groups than different counts."""
    counts = np.maximum(np.arange(n + 1), 1)
    logs: Floats = counts * np.log(counts)
    return logs


def _entropy(counts: Ints, batch: Ints, shape: tuple[int, ...]) -> Floats:
    logs = np.log(counts) * counts if shape[1] > TILE else _count_logs(shape[1])[counts]
    sums = np.bincount(batch, weights=logs, minlength=shape[0])
    entropies: Floats = np.maximum(np.log(shape[1]) - sums / shape[1], 0.0)
    return entropies


def _runs(new: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Sizes and batch numbers of the runs that start where `new` (B, n) is true."""
    starts = np.flatnonzero(new)
    return np.diff(starts, append=new.size), starts // new.shape[1]


def group(keys: Ints) -> Groups:
    """Groups (unitless) of the rows of `keys`, shape (B, n) or (B, n, m): samples with equal keys share a group.

    >>> group(np.array([[7, 3, 7, 7]])).counts.tolist()
    [1, 3]
    """
    first = keys if keys.ndim == 2 else np.ascontiguousarray(keys[..., 0])
    order = np.argsort(first, axis=-1)
    ranked = np.take_along_axis(first, order, axis=-1)
    new = np.ones(first.shape, dtype=bool)
    np.not_equal(ranked[:, 1:], ranked[:, :-1], out=new[:, 1:])
    if keys.ndim == 3 and keys.shape[2] > 1:
        rows = np.take_along_axis(keys, order[..., None], axis=1)
        if ((rows[:, 1:] != rows[:, :-1]).any(-1) & ~new[:, 1:]).any():  # equal first keys, different others
            return _group_rows(keys)
    ids = np.empty_like(order)
    np.put_along_axis(ids, order, np.cumsum(new, axis=-1) - 1, axis=-1)
    return Groups(ids, *_runs(new))


def _group_rows(keys: Ints) -> Groups:
    ids = np.stack([np.unique(one, axis=0, return_inverse=True)[1].reshape(-1) for one in keys])
    return group(ids)


def joint(a: Groups, b: Groups) -> Groups:
    """Groups of the pairs: samples share one when they share both the group in `a` and in `b`."""
    return group(a.ids * _width(a, b) + b.ids)


def joint_entropy(a: Groups, b: Groups) -> Floats:
    """Plug-in joint entropy in nats of each batch (B,), by one sort without the order."""
    return _sorted_entropy(np.sort(a.ids * _width(a, b) + b.ids, axis=-1))


def _sorted_entropy(ranked: Ints) -> Floats:
    new = np.ones(ranked.shape, dtype=bool)
    np.not_equal(ranked[:, 1:], ranked[:, :-1], out=new[:, 1:])
    return _entropy(*_runs(new), ranked.shape)


def entropies_with_labels(keys: list[Ints], labels: Ints) -> tuple[Floats, Floats] | None:
    """Plug-in entropies in nats (B,) of each batch's keys (n, 1), and of its pairs of key and label, by one sort without the order.

    `labels` (n,) count from 0. None where the keys have several columns or leave no room for the label beside them in 63 bits.
    """
    bits = int(labels.max()).bit_length()
    if any(k.shape[1] != 1 for k in keys):
        return None
    pairs = np.stack([k[:, 0] for k in keys])
    if int(pairs.min()) < 0 or int(pairs.max()) >> (63 - bits):
        return None
    pairs <<= bits
    pairs |= labels
    pairs.sort(axis=-1)
    both = _sorted_entropy(pairs)
    pairs >>= bits
    return _sorted_entropy(pairs), both


def _width(a: Groups, b: Groups) -> int:
    if a.n != b.n:
        raise EstimateError(f"samples of different length: expected equal numbers of rows, got {a.n} and {b.n}; pair them first")
    return int(b.sizes.max())


def row_keys(x: Tensor, code: Coder, lowest: int, highest: int, *, columns: int | None = None) -> Ints:
    """Keys (unitless) of the rows of `x` (n, d) such that equal code rows, and only those, get equal keys: (n, m) int64.

    `code(rows, out)` writes the codes of some rows, integers in [lowest, highest], into a float buffer (rows, columns or d).
    """
    n, d = len(x), columns or x.shape[1]
    levels = highest - lowest + 1
    bound = max(abs(lowest), abs(highest), 1)
    if bound >= 2**28:
        raise EstimateError(f"codes up to {bound}: expected fewer than 2^28 levels a column, use wider bins")
    wide = bound > 1024 or not float32_products_exact()
    rows = max(1, min(n, TILE // max(d, 1)))
    buffer = torch.empty(rows, d, dtype=torch.float64 if wide else torch.float32, device=x.device)
    exact = d * np.log2(levels) < 62.9
    project = _packing(d, lowest, levels, x.device) if exact else _projection(d, bound, buffer)
    keys = []
    for start in range(0, n, rows):
        part = x[start : start + rows]
        code(part, out := buffer[: len(part)])
        keys.append(project(out))
    found: Ints = torch.cat(keys).cpu().numpy()
    return found if exact else _mixed(found)


def _mixed(projections: Ints) -> Ints:
    """Four sums modulo 2^64 of the projections (n, 16): integer overflow is the modulus."""
    return projections @ numpy_generator(0, "row-mixing").integers(-(2**63), 2**63, (projections.shape[1], 4))


def float32_products_exact() -> bool:
    """Whether float32 matrix products keep all 24 bits: a user may have traded them for speed."""
    return torch.get_float32_matmul_precision() == "highest"


def _packing(d: int, lowest: int, levels: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    powers = torch.tensor([levels**i for i in range(d)], dtype=torch.int64, device=device)
    return lambda codes: ((codes.to(torch.int64) - lowest) * powers).sum(-1, keepdim=True)


def _projection(d: int, bound: int, like: Tensor) -> Callable[[Tensor], Tensor]:
    """Random projections (rows, 16) int64 of code rows, whose sums stay exact in the buffer's type.

    Two narrow columns are first folded into one number, which halves the product; columns are taken in blocks short
    enough for exact sums.
    """
    fold = 2 * bound + 1 if d > 1 and bound * (2 * bound + 2) <= 1024 * 2 else 0
    half = (d + 1) // 2 if fold else d
    rng = numpy_generator(0, "row-projection", d, bound)
    weights = torch.from_numpy(rng.integers(-16, 16, (half, 16))).to(like)
    block = max(1, 2 ** (49 if like.dtype == torch.float64 else 20) // (bound * (fold + 1)))

    def project(codes: Tensor) -> Tensor:
        if fold:
            codes[:, : d - half].add_(codes[:, half:], alpha=fold)
        total = torch.zeros(len(codes), 16, dtype=torch.int64, device=codes.device)
        for i in range(0, half, block):
            total += (codes[:, i : min(i + block, half)] @ weights[i : i + block]).to(torch.int64)
        return total

    return project


def integer_rows(x: Tensor) -> Ints:
    """Keys (n, m) of the rows of an integer tensor (n, d): equal where the rows are equal number by number."""
    low, high = (int(v) for v in x.aminmax())
    if max(-low, high) >= 2**28:
        return _bit_keys(x.to(torch.int64), 4)

    def copy(rows: Tensor, out: Tensor) -> None:
        out.copy_(rows)

    return row_keys(x, copy, low, high)


def float_rows(x: Tensor) -> Ints:
    """Keys (n, m) of the rows of a floating tensor (n, d): equal where the rows are equal number by number (-0.0 equals 0.0)."""
    wide = x.dtype == torch.float64
    return _bit_keys(((x if wide else x.to(torch.float32)) + 0.0).view(torch.int64 if wide else torch.int32), 4 if wide else 2)


def _bit_keys(bits: Tensor, pieces: int) -> Ints:
    """Keys of rows of 32-bit or 64-bit patterns, read as pieces of 16 bits."""
    d = bits.shape[1]

    def split(rows: Tensor, out: Tensor) -> None:
        for i in range(pieces):
            out[:, i * d : (i + 1) * d] = (rows >> (16 * i)) & 0xFFFF

    return row_keys(bits, split, 0, 0xFFFF, columns=pieces * d)


def group_keys(keys: list[Ints]) -> Groups:
    """Groups of several batches' rows in one sort: `keys` holds one (n, m) array a batch."""
    width = max(k.shape[1] for k in keys)
    if width == 1:
        return group(np.stack([k[:, 0] for k in keys]))
    return group(np.stack([np.repeat(k, width, axis=1) if k.shape[1] == 1 else k for k in keys]))


def symbols(x: Tensor) -> Groups:
    """Groups of equal samples: labels (..., n) of integers, or rows (..., n, d) of integers or floating numbers."""
    if x.is_floating_point():
        return group_keys([float_rows(one) for one in x.reshape(-1, *x.shape[-2:])])
    return group(x.reshape(-1, x.shape[-1]).cpu().numpy())


def row_symbols(x: Tensor) -> Tensor:
    """Labels (n,) int64 that are equal where the rows of `x` (n, d) are: a vector-valued discrete variable as one symbol."""
    keys = float_rows(x) if x.is_floating_point() else integer_rows(x)
    return torch.from_numpy(group_keys([keys]).ids[0])
