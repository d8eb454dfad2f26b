"""Figures for papers and slides: the same pictures as the page's, as SVG and PNG files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from prunescope.report import curves, drawing, pareto, planefigures, tables, weights
from prunescope.report.convergence import convergence
from prunescope.report.gradients import gradient_curves
from prunescope.report.planes import Planes
from prunescope.report.planes import planes as information_planes
from prunescope.results.store import write_beside
from prunescope.types import ConfigError

if TYPE_CHECKING:
    from prunescope.results.store import Run

FORMATS = ("svg", "png", "pdf")
Named = tuple[str, Any]


def write_figures(run: Run, folder: Path | None = None, formats: Sequence[str] = ("svg", "png")) -> list[Path]:
    """The paths written, in `folder` (default: figures/ in the run's folder): planes, estimators, information, curves and others.

    Figures against epochs and of layers show one sparsity a variant (the middle level); the page has all of them.
    A figure whose records are missing is left out. `formats` are any of svg, png, pdf; names from the run are drawn as plain text.
    """
    if wrong := [f for f in formats if f not in FORMATS]:
        raise ConfigError(f"figure format {wrong[0]!r}: expected any of {', '.join(FORMATS)}")
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    target = Path(folder) if folder is not None else run.folder / "figures"
    written = []
    with plt.rc_context(drawing.STYLE):  # type: ignore[arg-type, unused-ignore]
        for name, figure in _figures(run):
            figure.draw_without_rendering()  # lays out once; each format would do it again
            figure.set_layout_engine("none")
            written += [_save(figure, target / f"{name}.{suffix}") for suffix in formats]
            plt.close(figure)
    return written


def _save(figure: Any, path: Path) -> Path:
    kind = path.suffix[1:]
    still = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)  # the same run gives the same bytes
    write_beside(path, lambda beside: figure.savefig(beside, format=kind, metadata=still))
    return path


def _figures(run: Run) -> Iterator[Named]:
    known = tables.cells(run)
    shown = tables.one_level(known)
    found = information_planes(run.records)
    if found is not None:
        yield from _plane_figures(found, known, shown)
    yield from _convergence_figures(run, known, shown)
    yield from _epoch_figures(run, known, shown)
    yield from _gradient_figures(run, known, shown)
    yield from _sparsity_figures(run, known)
    yield from _pareto_figures(run, known)
    yield from _histogram_figures(run, known, shown)
    yield from _layer_figures(run, known, shown)


def slug(*parts: object) -> str:
    """A file name made of the parts' letters and digits.

    >>> slug("plane", "", "a/b <c>", 0.9)
    'plane-a-b-c-0.9'
    """
    return "-".join(s for part in parts if (s := re.sub(r"[^\w.]+", "-", str(part)).strip("-.")))[:120]


def _plane_figures(found: Planes, known: pd.DataFrame, shown: list[int]) -> Iterator[Named]:
    cell = tables.cell_numbers(found.trials, known).to_numpy()
    for group in dict.fromkeys(found.trials["group"]):
        cells = [c for c in shown if known["group"][c] == group]
        measured = [[c for c in cells if np.isfinite(found.x[e, cell == c]).any()] for e in range(len(found.estimates))]
        for e, estimate in enumerate(found.estimates):
            panels = [planefigures.panel(known["label"][c], found, e, cell == c) for c in measured[e]]
            if panels:
                yield slug("plane", group, estimate["label"]), planefigures.planes(found, panels)
                if len(found.moments) > 1:
                    yield slug("information", group, estimate["label"]), planefigures.information(found, panels)
        for c in cells:
            having = [e for e in range(len(found.estimates)) if c in measured[e]]
            if len(having) > 1:
                panels = [planefigures.panel(found.estimates[e]["label"], found, e, cell == c) for e in having]
                name = slug("estimators", group, known["label"][c] if len(cells) > 1 else "")
                yield name, planefigures.planes(found, panels)


def _convergence_figures(run: Run, known: pd.DataFrame, shown: list[int]) -> Iterator[Named]:
    found = convergence(run)
    if found is None:
        return
    for c in shown:
        mine = found[found["cell"] == c]
        if len(mine):
            yield slug("convergence", known["group"][c], known["label"][c] if len(shown) > 1 else ""), planefigures.convergence(mine)


def _epoch_figures(run: Run, known: pd.DataFrame, shown: list[int]) -> Iterator[Named]:
    found, timeline = curves.epoch_curves(run)
    styles = drawing.styles(known["variant"].tolist(), tables.baseline(run))
    found = [curve for curve in found if curve.cell in shown]
    yield from _by_group("epochs", found, known, lambda mine: drawing.epochs(mine, known, styles, timeline))


def _gradient_figures(run: Run, known: pd.DataFrame, shown: list[int]) -> Iterator[Named]:
    found = gradient_curves(run)
    if found is not None:
        mine = [curve for curve in found.curves if curve.cell in shown]
        yield from _by_group("gradients", mine, known, lambda some: drawing.gradients(found, some, known))


def _by_group(name: str, found: list[Any], known: pd.DataFrame, draw: Callable[[list[Any]], Any]) -> Iterator[Named]:
    for group in dict.fromkeys(known["group"]):
        mine = [f for f in found if known["group"][f["cell"] if isinstance(f, dict) else f.cell] == group]
        if mine:
            yield slug(name, group), draw(mine)


def _sparsity_figures(run: Run, known: pd.DataFrame) -> Iterator[Named]:
    points = curves.sparsity_points(run)
    if points["x"].nunique() < 2:
        return
    styles = drawing.styles(known["variant"].tolist(), tables.baseline(run))
    found: list[Any] = points.to_dict("records")
    plain = tables.baseline(run)
    yield from _by_group("sparsity", found, known, lambda mine: drawing.against_sparsity(pd.DataFrame(mine), known, styles, plain))


def _pareto_figures(run: Run, known: pd.DataFrame) -> Iterator[Named]:
    points = pareto.pareto(run)
    if points is not None:
        styles = drawing.styles(known["variant"].tolist(), tables.baseline(run))
        found: list[Any] = points.to_dict("records")
        yield from _by_group("pareto", found, known, lambda mine: pareto.figure(pd.DataFrame(mine), known, styles))


def _histogram_figures(run: Run, known: pd.DataFrame, shown: list[int]) -> Iterator[Named]:
    found = weights.histograms(run, known) or []
    for cell in [c for c in shown if any(h["cell"] == c for h in found)]:
        mine = [h for h in found if h["cell"] == cell]
        styles = drawing.styles([h["layer"] for h in mine])
        yield slug("weights", known["group"][cell], known["label"][cell]), drawing.histograms(mine, styles)


def _layer_figures(run: Run, known: pd.DataFrame, shown: list[int]) -> Iterator[Named]:
    found = tables.layer_sparsity(run)
    if found.empty:
        return
    found = found.assign(cell=tables.cell_numbers(found, known))
    rows: list[Any] = found[found["cell"].isin(shown)].to_dict("records")
    yield from _by_group("layers", rows, known, lambda mine: drawing.layer_bars(pd.DataFrame(mine), known))
