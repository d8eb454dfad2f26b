"""Seconds and peak memory of the estimators beside the way they are commonly computed, one thread each, in one run.

    python benchmarks/mi_speed.py [--only WORD] [--large] [--out docs/science/mi_speed.md]

A row names the work, the usual arithmetic (written here, in numpy, as the public programs of the field do it), ours, and the limit that
this kind of machine sets: 113 GFLOP/s of float32 products, 1.65 G exponentials/s and 41 GB/s of reading on one core. Times are the
least of several calls after a warm-up, in CPU seconds of the process, so that a busy machine counts as little as possible. Memory is
what the call adds to the process at its peak, each measured in a child of its own. --large adds N = 100,000. Neighbour counting
is timed by mi_speed_knn.py.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from scipy.special import ndtri
from scipy.stats import rankdata

from prunescope.information import mutual_information, plane_points, reference

GEMM, EXP, READ = 113e9, 1.65e9, 41e9
Work = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One comparison: `ours` and `usual` do the same work; `goal` and `limit` in seconds."""

    family: str
    work: str
    ours: Work
    usual: Work | None
    usual_name: str
    goal: float | None
    limit: float
    agree: float | None = None  # largest difference in bits of the two results, None where they are different estimators


def layer(n: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 10, (n,), generator=g)
    return torch.tanh(torch.randn(n, d, generator=g) * (1.0 if d < 100 else 0.3) + 0.1 * y[:, None]), y


def points(t: torch.Tensor, ref: object, spec: dict[str, object]) -> list[float]:
    """I(X; T) and I(T; Y) in bits."""
    made = plane_points({"t": t}, ref, estimators=[spec], ranges={"t": (-1.0, 1.0)})
    found = {p.quantity: p.estimate.value for p in made}
    return [found[q] for q in ("mi_input", "mi_label") if q in found]


# --- the usual arithmetic -----------------------------------------------------------------------------------------------


def usual_binning(t: np.ndarray, y: np.ndarray, bins: int = 30) -> list[float]:
    """Digitised rows viewed as one void item each, unique over all and over each label's rows."""

    def entropy(rows: np.ndarray) -> float:
        items = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))
        p = np.unique(items, return_counts=True)[1] / len(rows)
        return float(-(p * np.log2(p)).sum())

    codes = np.digitize(t, np.linspace(-1, 1, bins + 1)[1:-1])
    whole = entropy(codes)
    return [whole, whole - sum((y == c).mean() * entropy(codes[y == c]) for c in np.unique(y))]


def usual_bounds(t: np.ndarray, y: np.ndarray, variance: float) -> list[float]:
    """Whole distance matrices in float32, once for each bound and again for every class."""

    def entropy(x: np.ndarray, v: float) -> float:
        squares = (x * x).sum(1, keepdims=True)
        distances = squares + squares.T - 2 * x @ x.T
        return float(-np.log(np.exp(-np.maximum(distances, 0) / (2 * v)).mean(1)).mean() / math.log(2))

    values = []
    for v in (variance, 4 * variance):
        whole = entropy(t, v)
        values += [whole, whole - sum((y == c).mean() * entropy(t[y == c], v) for c in np.unique(y))]
    return values


def usual_copula(x: np.ndarray, y: np.ndarray) -> float:
    """Ranks, normal quantiles and log determinants, column by column as scipy gives them."""
    both = np.concatenate([x, y], axis=1)
    scores = ndtri(rankdata(both, axis=0) / (len(both) + 1))
    covariance = np.cov(scores.T)
    d = x.shape[1]
    parts = [np.linalg.slogdet(c)[1] for c in (covariance[:d, :d], covariance[d:, d:], covariance)]
    return float((parts[0] + parts[1] - parts[2]) / 2 / math.log(2))


def usual_renyi(t: np.ndarray, y: np.ndarray, x: np.ndarray, order: float = 1.01) -> list[float]:
    """Distances by broadcasting in blocks, whole kernel matrices and the spectrum of each, labels as one-hot columns."""

    def matrix(v: np.ndarray) -> np.ndarray:
        squares = np.stack([((v - row) ** 2).sum(1) for row in v])
        width = np.sqrt(np.median(squares[np.triu_indices(len(v), 1)])) or 1.0
        return np.exp(-squares / (2 * width**2)) / len(v)

    def entropy(a: np.ndarray) -> float:
        spectrum = np.linalg.eigvalsh(a / np.trace(a)).clip(0)
        return float(np.log2((spectrum**order).sum()) / (1 - order))

    kt, kx, ky = matrix(t), matrix(x), (y[:, None] == y[None]) / len(y)
    return [entropy(kt) + entropy(k) - entropy(kt * k) for k in (kx, ky)]


# --- rows of each family ------------------------------------------------------------------------------------------------


def binned_rows(n: int = 10_000) -> list[Row]:
    rows = []
    for d, goal in ((10, 0.0017), (1024, 0.010)):
        t, y = layer(n, d)
        ref, tn, yn = reference(y), t.numpy(), y.numpy()
        limit = max(4 * n * d / READ, n * 2e-8)
        rows.append(
            Row("binned plane", f"N = {n:,}, d = {d:,}", lambda t=t, ref=ref: points(t, ref, {"name": "binning"}),
                lambda tn=tn, yn=yn: usual_binning(tn, yn), "digitise, unique of row views", goal, limit, 1e-3)
        )  # fmt: skip
    return rows


def quantised_rows(n: int = 10_000, d: int = 1024) -> list[Row]:
    codes = torch.randint(-128, 128, (n, d), dtype=torch.int8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(n) % 10
    ref, cn, yn = reference(y), codes.numpy(), y.numpy()

    def usual() -> list[float]:
        whole = np.unique(cn, axis=0, return_counts=True)[1] / n
        inside = [np.unique(cn[yn == c], axis=0, return_counts=True)[1] / (yn == c).sum() for c in range(10)]
        h = [float(-(p * np.log2(p)).sum()) for p in (whole, *inside)]
        return [h[0], h[0] - sum(h[1:]) / 10]

    ours = lambda: points(codes, ref, {"name": "quantised"})  # noqa: E731
    return [Row("quantised layer", f"N = {n:,}, d = {d:,}, int8", ours, usual, "unique over axis 0", 0.010, n * d / READ, 1e-9)]


def kernel_rows(n: int = 10_000) -> list[Row]:
    rows = []
    for d, goal in ((10, 0.2), (1024, 2.0)):
        for noise in (1e-3, 0.1):
            t, y = layer(n, d)
            ref, tn, yn = reference(y), t.numpy(), y.numpy()
            limit = n * n * d / GEMM + n * n / 2 / EXP
            ours = lambda t=t, ref=ref, s=noise: points(t, ref, {"name": "kde", "noise": s})  # noqa: E731
            usual = lambda tn=tn, yn=yn, s=noise: usual_bounds(tn, yn, s)[:2]  # noqa: E731
            rows.append(
                Row("KDE, both bounds", f"N = {n:,}, d = {d:,}, variance {noise:g}", ours, usual, "whole distance matrices",
                    goal, limit, 0.05)  # the whole matrices lose some of it to float32
            )  # fmt: skip
    return rows


def gaussian_rows(n: int = 10_000, d: int = 100) -> list[Row]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=g)
    y = x + torch.randn(n, d, generator=g)
    xn, yn = x.numpy(), y.numpy()
    limit = 2 * d * n * 3e-9 * math.log2(n) / 4 + 2 * n * (2 * d) ** 2 / (GEMM / 2)
    return [
        Row("Gaussian copula", f"N = {n:,}, d = {d} and {d}", lambda: mutual_information(x, y, "gaussian-copula", uncertainty=None).value,
            lambda: usual_copula(xn, yn), "scipy ranks, log det", 0.1, limit, None),
    ]  # fmt: skip


def renyi_rows() -> list[Row]:
    rows = []
    for n, goal in ((1000, 0.5), (2000, None)):
        t, y = layer(n, 1024)
        x = torch.randn(n, 784, generator=torch.Generator().manual_seed(1))
        ref, arrays = reference(y, x), (t.numpy().astype(float), y.numpy(), x.numpy().astype(float))
        limit = 2 * (4 / 3 * n**3) / (GEMM / 2) + n * n * 1024 / (GEMM / 2)
        ours = lambda t=t, ref=ref: points(t, ref, {"name": "renyi"})  # noqa: E731
        usual = lambda a=arrays: usual_renyi(*a)  # noqa: E731
        rows.append(Row("matrix Renyi, order 1.01", f"N = {n:,}, d = 1,024", ours, usual, "a spectrum for each matrix", goal, limit, 0.02))
    return rows


def large_rows(n: int = 100_000) -> list[Row]:
    t, y = layer(n, 10)
    wide, labels = layer(n, 1024)
    ref, wide_ref = reference(y), reference(labels)
    return [
        Row("binned plane", f"N = {n:,}, d = 1,024", lambda: points(wide, wide_ref, {"name": "binning"}), None, "",
            None, 4 * n * 1024 / READ),
        Row("KDE, both bounds", f"N = {n:,}, d = 10, variance 0.1", lambda: points(t, ref, {"name": "kde", "noise": 0.1}), None, "",
            None, n * n * 10 / GEMM + n * n / 2 / EXP),
        Row("matrix Renyi, order 2", f"N = {n // 5:,}, d = 10",
            lambda: points(t[: n // 5], reference(y[: n // 5]), {"name": "renyi", "order": 2}), None, "", None, 2 * (n / 5) ** 2 / EXP * 4),
    ]  # fmt: skip


FAMILIES = (binned_rows, quantised_rows, kernel_rows, gaussian_rows, renyi_rows)


# --- measuring ----------------------------------------------------------------------------------------------------------


def seconds(work: Work, *, budget: float = 3.0) -> float:
    """Least CPU seconds of a call, after one that warms memory up, within a time budget."""
    best, spent = math.inf, 0.0
    work()
    while spent < budget:
        start = time.process_time()
        work()
        taken = time.process_time() - start
        best, spent = min(best, taken), spent + taken + 1e-4
    return best


def _peak(work: Work, pipe: object) -> None:
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    work()
    pipe.send(max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 2**20)


def megabytes(work: Work) -> float:
    """Peak memory in MB that a call adds, measured in a forked child."""
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_peak, args=(work, theirs))
    child.start()
    child.join()
    if child.exitcode != 0 or not ours.poll():
        return math.nan
    return float(ours.recv())


def line(row: Row) -> str:
    ours = seconds(row.ours)
    cells = [row.family, row.work, _time(ours), f"{megabytes(row.ours):.0f} MB"]
    if row.usual is None:
        cells += ["", "", ""]
    else:
        usual = seconds(row.usual, budget=1.0)
        cells += [f"{_time(usual)} ({row.usual_name})", f"{megabytes(row.usual):.0f} MB", f"{usual / ours:.1f}x"]
        if row.agree is not None:
            worst = float(np.abs(np.subtract(row.ours(), row.usual())).max())
            if worst > row.agree:
                raise SystemExit(f"{row.family}, {row.work}: results differ by {worst:.3g} bits, more than {row.agree:g}")
    cells += [_time(row.goal) if row.goal else "", f"{_time(row.limit)} ({ours / row.limit:.1f}x)"]
    return "| " + " | ".join(cells) + " |"


def _time(value: float) -> str:
    return f"{value * 1e3:.2f} ms" if value < 0.1 else f"{value:.2f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="families whose name holds this word")
    parser.add_argument("--large", action="store_true", help="also N = 100,000")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = ["| estimator | work | ours | memory | usual | memory | ratio | goal | limit (ours / limit) |", "| --- " * 9 + "|"]
    print("\n".join(lines), flush=True)
    for family in (*FAMILIES, *((large_rows,) if options.large else ())):
        for row in family():
            if options.only.lower() in row.family.lower():
                lines.append(line(row))
                print(lines[-1], flush=True)
    if options.out:
        options.out.write_text(f"# Speed of the estimators\n\n{__doc__}\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
