"""Where each estimator fails, measured on samples of known mutual information and drawn for docs/science/estimators.

    python benchmarks/estimator_failures.py [--only NAME...] [--redraw] [--list]

One figure an estimator or family, in docs/images/estimators; the numbers drawn go to docs/science/estimators/measured.csv (bits, median,
lowest and highest over the seeds), where --only replaces the rows of those figures and leaves the rest. One process, one thread, seeded:
the numbers are the same on every run of a machine. A marker is hollow where most of the seeds' estimates carried a flag: the failure
is not silent there.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas as pd
import torch
from torch import Tensor

import failing_samples as draw
from failure_panels import Curve, Measure, Panel, curves, drawn, rows
from prunescope.information import entropy
from prunescope.types import Estimate

ROOT = Path(__file__).parent.parent
IMAGES, TABLE = ROOT / "docs" / "images" / "estimators", ROOT / "docs" / "science" / "estimators" / "measured.csv"


def discrete() -> list[Panel]:
    """Counts: letters that are independent, strongly dependent, and of a long tail, against the number of samples."""
    names = curves("plugin", "miller-madow", "shrinkage", "chao-shen", "nsb")
    n = (25, 50, 100, 200, 400, 800, 1600, 3200, 6400)
    label = "samples n"
    return [
        Panel("Independent, 20 x 20 letters", label, n, draw.letters(20), names, lambda _: 0.0),
        Panel("A letter or its neighbour, 26 letters", label, n, draw.typewriter(26), names, lambda _: math.log2(13)),
        Panel("200 letters by Zipf's law, half kept", label, n, draw.zipf(200, 0.5), names, lambda _: draw.zipf_truth(200, 0.5)),
    ]


def binning() -> list[Panel]:
    """Bins: a deterministic map, noise, and columns that know nothing."""
    counts = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)
    noise = [
        Curve("equal bins", "binning"), Curve("quantile bins", "binning", {"range": "quantile"}),
        Curve("equal bins, Miller-Madow", "binning", {"correction": "miller-madow"}),
    ]  # fmt: skip
    coin = [Curve(f"{b} bins", "binning", {"bins": b}) for b in (30, 10, 3)]
    top = ("log2 n", lambda _: math.log2(1000))
    return [
        Panel("T = tanh X: truth is infinite", "bins", counts, draw.tanh(1000), noise[:1], ceiling=top, vary="bins"),
        Panel("Normal pair, correlation 0.75", "bins", counts[:10], draw.normal_pair(1000, 0.75), noise, draw.pair_truth(0.75), top,
              vary="bins"),
        Panel("Columns that ignore a coin", "columns", (1, 2, 3, 4, 5, 6, 8, 10), draw.coin_and_columns(1000), coin,
              lambda _: 0.0, ("H(Y)", lambda _: 1.0), log=False),
    ]  # fmt: skip


def kde() -> list[Panel]:
    """The noise variance assumed, where the label matters and where it does not."""
    bounds = [Curve(f"{b} bound", "kde", {"bound": b}) for b in ("upper", "lower")]
    interval = [Curve(f"rigorous, {end} end", measure=draw.rigorous(i)) for i, end in ((1, "upper"), (0, "lower"))]
    noise = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)
    label, top = "noise variance assumed", ("H(Y)", lambda _: 1.0)
    return [
        Panel("X = ±1 + N(0, 1), sign as label", label, noise, draw.signed(1000, 1.0), bounds + interval, draw.signed_truth(1.0), top,
              vary="noise"),
        Panel("The same X, labels shuffled", label, noise, draw.signed(1000, 1.0, shuffled=True), bounds, lambda _: 0.0, top,
              vary="noise"),
    ]  # fmt: skip


def kernel_density() -> list[Panel]:
    """Columns, strength and tails for the classic kernel estimate, with Kraskov's beside it."""
    names = curves("kernel-density", "ksg")
    bits = (0.5, 1, 2, 3, 4, 5, 6)
    return [
        Panel("Two pairs, correlation 0.8, among d", "columns d of x and of y", (2, 3, 4, 5, 6, 8), draw.pairs(1000, 2, 0.8), names,
              lambda _: draw.pairs_truth(2, 0.8), log=False),
        Panel("One pair of growing strength", "true bits", bits, draw.strength(1000, 1), names, lambda bits: bits, log=False),
        Panel("Student's t, 1 and 1 columns", "degrees of freedom", (1, 2, 3, 5, 10, 30), draw.student(1000, 1), names,
              draw.student_truth(1)),
    ]  # fmt: skip


def ksg() -> list[Panel]:
    """Columns, strength and equal values for Kraskov's estimators."""
    strong = [Curve(f"{p} pair{'s' * (p > 1)}", "ksg", samples=draw.strength(2000, p)) for p in (1, 5, 20)]
    ks = [Curve(f"k = {k}", "ksg", {"k": k}) for k in (3, 10, 30)]
    tied = [
        Curve("variant 1", "ksg"), Curve("variant 2", "ksg", {"variant": 2}), Curve("variant 1, jitter 1e-10", "ksg", {"jitter": 1e-10})
    ]  # fmt: skip
    top = ("psi(n) - psi(3)", lambda _: draw.ksg_ceiling(2000, 3))
    return [
        Panel("Two pairs, correlation 0.8, among d", "columns d of x and of y", (2, 3, 5, 10, 20, 50), draw.pairs(2000, 2, 0.8), ks,
              lambda _: draw.pairs_truth(2, 0.8), seeds=3),
        Panel("Pairs of growing strength", "true bits", (1, 2, 4, 6, 8, 10, 12), draw.strength(2000, 1), strong, lambda bits: bits, top,
              seeds=3, log=False),
        Panel("Correlation 0.75, values rounded", "step of rounding", (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
              draw.rounded_pair(2000, 0.75), tied, draw.rounded_truth(0.75), top, seeds=3),
    ]  # fmt: skip


def ksg_lnc() -> list[Panel]:
    """Where the correction takes x's own shape for dependence, and what it is for."""
    names = curves("ksg-lnc", "ksg")
    return [
        Panel("Independent; x lies near a line", "distance of x from the line", (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
              draw.near_a_line(1000), names, lambda _: 0.0),
        Panel("One pair of growing strength", "true bits", (2, 4, 6, 8, 10, 12, 14), draw.strength(500, 1), names, lambda bits: bits,
              log=False),
    ]  # fmt: skip


def ross() -> list[Panel]:
    """Many classes, and columns that only add distance."""
    names = curves("ross", "gao-mixed")
    return [
        Panel("U(c, c + 2), many classes c", "classes, n = 1,000", (2, 5, 10, 20, 50, 100, 200, 300, 500), draw.uniforms(1000), names,
              draw.uniforms_truth),
        Panel("X1 = ±1.5 + N(0, 1), the rest noise", "columns", (1, 2, 5, 10, 20, 50, 100, 200), draw.signed_columns(1000, 1.5),
              curves("ross"), lambda _: draw.signed_truth(1.5)(0.0), ("H(Y)", lambda _: 1.0), limits=(0.0, 1.05)),
    ]  # fmt: skip


def gao_mixed() -> list[Panel]:
    """Values with a few copies each, atoms inside a density, and classes of few samples."""
    n = (100, 300, 1000, 3000, 10000)
    ks = [Curve(f"k = {k}", "gao-mixed", {"k": k}) for k in (3, 5, 10)]
    return [
        Panel("Correlation 0.75, values rounded", "step of rounding", (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
              draw.rounded_pair(2000, 0.75), ks, draw.rounded_truth(0.75), seeds=3),
        Panel("Half a density, half four atoms in it", "samples n", n, draw.task("half-discrete"), ks, draw.task_truth("half-discrete"),
              seeds=3),
        Panel("U(c, c + 2), many classes c", "classes, n = 1,000", (2, 5, 10, 20, 50, 100, 200, 300, 500), draw.uniforms(1000),
              [*ks, *curves("ross")], draw.uniforms_truth, seeds=3),
    ]  # fmt: skip


def kl_entropy() -> list[Panel]:
    """Error of the entropy against columns, and of the information made of three entropies."""
    def error(of: Callable[[int], float]) -> Measure:
        return lambda x, y, d, seed: (_entropy(x, seed) - of(int(d)), ())

    def three(x: Tensor, y: Tensor, d: float, seed: int) -> tuple[float, tuple[str, ...]]:
        return _entropy(x, seed) + _entropy(y, seed) - _entropy(torch.cat([x, y], 1), seed), ()

    made = [
        Curve("normal columns", samples=draw.normals(1000), measure=error(lambda d: d / 2 * math.log2(2 * math.pi * math.e))),
        Curve("uniform columns on [0, 1]", samples=draw.flat(1000), measure=error(lambda d: 0.0)),
    ]
    columns = (1, 2, 3, 5, 10, 20, 50)
    return [
        Panel("Error of the entropy", "columns", columns, draw.normals(1000), made, lambda _: 0.0, ylabel="bits above the truth"),
        Panel("Two pairs, correlation 0.8, among d", "columns d of x and of y", (2, 3, 5, 10, 20), draw.pairs(1000, 2, 0.8),
              [Curve("H(X) + H(Y) - H(X, Y)", measure=three), *curves("ksg")], lambda _: draw.pairs_truth(2, 0.8)),
    ]  # fmt: skip


def _entropy(x: Tensor, seed: int) -> float:
    found = entropy(x, "kl-entropy", seed=seed)
    assert isinstance(found, Estimate)
    return found.value


def gaussian() -> list[Panel]:
    """Dependence that no line follows, a few far samples, and classes whose mixture is not normal."""
    over = [Curve(name, name, over=True) for name in ("cca", "elliptical-copula")]
    family = [*curves("gaussian", "gaussian-copula"), *over]
    return [
        Panel("Y = sin(2πwU) + 0.3 N(0, 1)", "waves w", (1, 2, 4, 8, 16), draw.waves(2000), [*family, *curves("ksg")], draw.waves_truth),
        Panel("Independent, m far samples", "samples m of 2,000 around (30, 30)", (0, 1, 2, 5, 10, 20, 50), draw.outliers(2000), family,
              lambda _: 0.0, log=False),
        Panel("X = ±s + N(0, 1), sign as label", "shift s", (0, 0.5, 1, 2, 3, 4, 6, 8), draw.shifted(1000),
              [*family[:2], *curves("ross")], lambda s: draw.signed_truth(s)(0.0), ("H(Y)", lambda _: 1.0), log=False),
    ]  # fmt: skip


def cca() -> list[Panel]:
    """Weak pairs: what the test lets pass is biased high, what it stops is lost."""
    plain = Curve("gaussian, correct=False", "gaussian", {"correct": False})
    one = [Curve("cca", "cca"), Curve("gaussian", "gaussian")]
    weak = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2)
    return [
        Panel("20 equal pairs, n = 500", "correlation of each pair", (0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4), draw.equal_pairs(500, 20),
              [*one, plain], lambda r: draw.pairs_truth(20, r), log=False),
        Panel("One pair, n = 500", "correlation", weak, draw.equal_pairs(500, 1), one, lambda r: draw.pairs_truth(1, r), seeds=31,
              log=False),
    ]  # fmt: skip


def elliptical_copula() -> list[Panel]:
    """Tails, which it is for, and two shapes that are not elliptical."""
    names = curves("elliptical-copula", "gaussian-copula", "ksg")
    return [
        Panel("Student's t, 2 and 2 columns", "degrees of freedom", (1, 2, 3, 5, 10, 30), draw.student(2000, 2), names,
              draw.student_truth(2)),
        Panel("Ring, angle known to a share of it", "share of the circle", (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0), draw.ring(2000),
              names, lambda share: -math.log2(share)),
        Panel("Two crossed lines", "correlation along each", (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99), draw.crossed(2000), names,
              draw.crossed_truth, log=False),
    ]  # fmt: skip


def renyi() -> list[Panel]:
    """The width of the kernel, with and without dependence, and columns."""
    orders = [Curve(f"order {o:g}", "renyi", {"order": o}) for o in (1.01, 2.0)]
    widths = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    top = ("log2 n", lambda _: math.log2(500))
    return [
        Panel("Normal pair, correlation 0.75", "kernel width", widths, draw.normal_pair(500, 0.75), orders, draw.pair_truth(0.75), top,
              seeds=3, vary="width"),
        Panel("Independent pair", "kernel width", widths, draw.normal_pair(500, 0.0), orders, lambda _: 0.0, top, seeds=3, vary="width"),
        Panel("Independent columns, median width", "columns of x and of y", (1, 2, 5, 10, 20, 50), draw.pairs(500, 0, 0.0), orders,
              lambda _: 0.0, seeds=3),
    ]  # fmt: skip


def noisy() -> list[Panel]:
    """Few samples in several columns: the mixture of the samples is not the population."""
    many = [Curve(f"{d} column{'s' * (d > 1)}", "noisy", {"noise": 0.25}, draw.coin_and(d)) for d in (1, 2, 5, 10)]
    both = curves("noisy", "kde", noise=0.25)
    top = ("H(Y)", lambda _: 1.0)
    return [
        Panel("Columns that ignore a coin", "samples n", (50, 100, 200, 400, 800, 1600, 3200), draw.coin_and(1), many,
              lambda _: 0.0, top, seeds=3),
        Panel("X1 = ±1 + N(0, 1), the rest noise", "columns, n = 1,000", (1, 2, 3, 5, 7, 10, 15, 20), draw.signed_columns(1000, 1.0),
              both, lambda _: draw.signed_truth(1.0)(0.25), top, seeds=3, log=False),
    ]  # fmt: skip


def quantised() -> list[Panel]:
    """More codes than samples, and a step that is not the quantiser's."""
    sizes = [Curve(f"n = {n:,}", "quantised", {"scale": 1.0}, draw.codes(n)) for n in (300, 1000, 10000)]
    both = (("exact codes", 0.0), ("codes + 1 % noise", 0.01))
    step = [Curve(name, "quantised", samples=draw.steps(1000, noise)) for name, noise in both]
    top = ("H(Y)", lambda _: 1.0)
    return [
        Panel("2-bit codes that ignore a coin", "columns", (1, 2, 3, 4, 5, 6, 8, 10), draw.codes(1000), sizes, lambda _: 0.0, top,
              log=False, harmless="ties"),
        Panel("8 levels, step 1; coin flips with 10 %", "scale given", (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 2.0, 4.0, 8.0),
              draw.steps(1000, 0.0), step, lambda _: draw.flip_truth(0.1), top, vary="scale", harmless="ties"),
    ]  # fmt: skip


def sliced() -> list[Panel]:
    """The quantity itself is lower than Shannon's and changes with the scale of a column."""
    return [
        Panel("d pairs, correlation 0.7", "pairs d", (1, 2, 3, 5, 7, 10), draw.every_pair(1000, 0.7), curves("sliced", "ksg"),
              lambda d: draw.pairs_truth(int(d), 0.7), seeds=3, log=False),
        Panel("2 pairs; the first stretched", "factor on x1 and y1", (1, 2, 3, 5, 10, 30, 100), draw.stretched(1000, 0.7), curves("sliced"),
              lambda _: draw.pairs_truth(2, 0.7), seeds=3),
    ]  # fmt: skip


def neural() -> list[Panel]:
    """Strength from an empty start, strength from a normal one, and a dependence that must be learned."""
    names = ("mine", "nwj", "infonce", "smile")
    bits = (2, 6, 10, 14)
    top = ("log2 of 200 held out", lambda _: math.log2(200))
    return [
        Panel("5 normal pairs, start='zero'", "true bits, n = 1,000", bits, draw.strength(1000, 5), curves(*names, start="zero"),
              lambda b: b, top, seeds=1, log=False),
        Panel("The same, start='normal'", "true bits, n = 1,000", bits, draw.strength(1000, 5), curves(*names), lambda b: b, top,
              seeds=2, log=False),
        Panel("Two pairs wound to a spiral", "samples n", (250, 1000, 4000), draw.spiral_of(), curves(*names),
              lambda _: draw.pairs_truth(2, 0.8), seeds=1),
    ]  # fmt: skip


def auto() -> list[Panel]:
    """A dependence that the copulas miss and the network finds late, and independent rows among dependent ones."""
    names = [Curve("auto", "auto"), Curve("elliptical-copula", "elliptical-copula", over=True), *curves("ksg")]
    return [
        Panel("Two pairs wound to a spiral", "samples n", (300, 1000, 3000, 10000), draw.spiral_of(), names,
              lambda _: draw.pairs_truth(2, 0.8), seeds=3),
        Panel("Two pairs in 5 x 5, some rows broken", "share of rows with y drawn anew", (0.02, 0.1, 0.2, 0.4, 0.6), draw.inliers(2000),
              names, draw.inliers_truth, seeds=1, log=False),
        Panel("Ring, angle known to a share of it", "share of the circle", (0.02, 0.05, 0.1, 0.2, 0.5), draw.ring(2000), names,
              lambda share: -math.log2(share), seeds=1),
    ]  # fmt: skip


FIGURES: dict[str, Callable[[], list[Panel]]] = {
    "discrete": discrete, "binning": binning, "kde": kde, "kernel-density": kernel_density, "ksg": ksg, "ksg-lnc": ksg_lnc, "ross": ross,
    "gao-mixed": gao_mixed, "kl-entropy": kl_entropy, "gaussian": gaussian, "cca": cca, "elliptical-copula": elliptical_copula,
    "renyi": renyi, "noisy": noisy, "quantised": quantised, "sliced": sliced, "neural": neural, "auto": auto,
}  # fmt: skip


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from prunescope.report.drawing import STYLE

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="*", choices=FIGURES, default=list(FIGURES))
    parser.add_argument("--list", action="store_true", help="name the figures and stop")
    parser.add_argument("--redraw", action="store_true", help="draw from the table, measuring nothing")
    options = parser.parse_args()
    if options.list:
        print(*FIGURES, sep="\n")
        return
    torch.set_num_threads(1)
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        panels, started = FIGURES[name](), time.process_time()
        if not options.redraw:
            keep(name, pd.DataFrame([row for panel in panels for row in rows(name, panel)]))
        numbers = kept(name)
        with plt.rc_context(STYLE):
            figure = drawn(panels, numbers)
            figure.savefig(IMAGES / f"{name}.png", dpi=110, metadata={"Software": None})
            plt.close(figure)
        print(f"--- {name}: {time.process_time() - started:.1f} CPU s", flush=True)
        for title, part in numbers.groupby("panel", sort=False):
            wide = part.pivot(index="x", columns="curve", values="median").join(part.groupby("x")["truth"].first()).round(3)
            print(f"{title}\n{wide.to_string()}", flush=True)


def kept(name: str = "") -> pd.DataFrame:
    """The table's rows of one figure, or all of them."""
    table = pd.read_csv(TABLE, keep_default_na=False, na_values={"median": "", "lowest": "", "highest": "", "truth": ""})
    return table[table["figure"] == name] if name else table


def keep(name: str, numbers: pd.DataFrame) -> None:
    """Put the figure's rows into the table, in the order of FIGURES; values to 6 digits."""
    known = kept() if TABLE.exists() else numbers[:0]
    whole = pd.concat([known[known["figure"] != name], numbers])
    order = {figure: i for i, figure in enumerate(FIGURES)}
    whole.sort_values("figure", key=lambda c: c.map(order), kind="stable").to_csv(TABLE, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
