"""Figures for papers and slides: the same pictures as the page's, as SVG and PNG files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from prunescope import limits
from prunescope.registry import unknown
from prunescope.report import backends, drawing, pareto, planefigures, searching, tables, weights
from prunescope.report.digest import Digest, digest
from prunescope.report.gradients import gradient_curves
from prunescope.report.planes import Planes
from prunescope.results.files import write_beside
from prunescope.results.store import load
from prunescope.types import ConfigError, StoreError

if TYPE_CHECKING:
    from prunescope.results.store import Run

FORMATS = ("svg", "png", "pdf")
Named = tuple[str, Callable[[], Any]]  # a file's name and what draws it


INCHES = {"in": 1.0, "cm": 1 / 2.54, "mm": 1 / 25.4, "pt": 1 / 72}
WIDTHS = (1.5, 20.0)  # inches: below, labels lie on each other


def figures(
    run: Run | Digest | str | Path,
    folder: str | Path | None = None,
    *,
    format: str | Sequence[str] = "pdf",
    width: str | float | None = None,
    only: Sequence[str] | None = None,
) -> list[Path]:
    """The paths of the figures written for a paper, in `folder` (default: figures/ in the run's folder).

    format  pdf (fonts embedded as TrueType), svg (text as outlines) or png (300 dots an inch), or several of them
    width   the exact width of each file, "3.25in", "8.2cm", "82mm", "234pt" or inches as a number; None: as wide as the panels need
    only    names or their beginnings, such as "plane" or "sparsity"; None: all that `figure_names` lists
    Raises ConfigError for an unknown format, width or name.
    """
    opened = digest(load(run) if isinstance(run, str | Path) else run)
    formats = (format,) if isinstance(format, str) else tuple(format)
    inches = None if width is None else in_inches(width)
    names = figure_names(opened)
    for wanted in only or ():
        if not any(_is(name, wanted) for name in names):
            raise ConfigError(unknown("figure", wanted, names or ["none: nothing was recorded that a figure shows"]))
    return write_figures(opened, None if folder is None else Path(folder), formats, width=inches, only=only)


def figure_names(run: Run | Digest) -> list[str]:
    """The names of all figures that a run's records have something for, in the order of the page."""
    return [name for name, _ in _figures(digest(run))]


def in_inches(width: str | float) -> float:
    """A width in inches.

    >>> in_inches("3.25in"), round(in_inches("82mm"), 2), in_inches(7)
    (3.25, 3.23, 7.0)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(in|cm|mm|pt)?\s*", str(width))
    inches = float(found[1]) * INCHES[found[2] or "in"] if found else 0.0
    if not WIDTHS[0] <= inches <= WIDTHS[1]:
        raise ConfigError(f"width {width!r}: expected {WIDTHS[0]:g} to {WIDTHS[1]:g} inches, such as 3.25in, 8.2cm, 82mm or 234pt")
    return inches


def write_figures(
    run: Run | Digest,
    folder: Path | None = None,
    formats: Sequence[str] = ("svg", "png"),
    *,
    width: float | None = None,
    only: Sequence[str] | None = None,
) -> list[Path]:
    """The paths written, in `folder` (default: figures/ in the run's folder): planes, estimators, information, curves and others.

    Figures against epochs and of layers show one sparsity a variant (the middle level); the page has all of them.
    A figure whose records are missing is left out. `formats` are any of svg, png, pdf; names from the run are drawn as plain text.
    `width` in inches is each file's exact width; `only` names figures or their kinds.
    """
    if wrong := [f for f in formats if f not in FORMATS]:
        raise ConfigError(f"figure format {wrong[0]!r}: expected any of {', '.join(FORMATS)}")
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    target = Path(folder) if folder is not None else run.folder / "figures"
    if folder is None and (reason := limits.leads_out(target, run.folder)) is not None:
        raise StoreError(reason.replace("read", "written to"))
    written = []
    with plt.rc_context(drawing.style(width)), drawing.page_width(width):  # type: ignore[arg-type, unused-ignore]
        for name, draw in _figures(digest(run)):
            if only and not any(_is(name, wanted) for wanted in only):
                continue
            figure = draw()
            figure.draw_without_rendering()  # lays out once; each format would do it again
            figure.set_layout_engine("none")
            written += [_save(figure, target / f"{name}.{suffix}") for suffix in formats]
            plt.close(figure)
    return written


def _is(name: str, wanted: str) -> bool:
    return name == wanted or name.startswith(f"{wanted}-")


def _save(figure: Any, path: Path) -> Path:
    kind = path.suffix[1:]
    still = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)  # the same run gives the same bytes
    write_beside(path, lambda beside: figure.savefig(beside, format=kind, metadata=still))
    return path


def _figures(whole: Digest) -> Iterator[Named]:
    run, known = whole.run, whole.cells
    shown = tables.one_level(known)
    search, _ = searching.searched(run)
    if search is not None:
        yield "search", partial(searching.figure, search)
    if whole.planes is not None:
        yield from _plane_figures(whole.planes, known, shown)
    yield from _convergence_figures(whole, shown)
    yield from _epoch_figures(whole, shown)
    yield from _gradient_figures(run, known, shown)
    yield from _sparsity_figures(whole)
    yield from _pareto_figures(whole)
    yield from _backend_figures(run, known)
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
                yield slug("plane", group, estimate["label"]), partial(planefigures.planes, found, panels)
                if len(found.moments) > 1:
                    yield slug("information", group, estimate["label"]), partial(planefigures.information, found, panels)
        for c in cells:
            having = [e for e in range(len(found.estimates)) if c in measured[e]]
            if len(having) > 1:
                panels = [planefigures.panel(found.estimates[e]["label"], found, e, cell == c) for e in having]
                name = slug("estimators", group, known["label"][c] if len(cells) > 1 else "")
                yield name, partial(planefigures.planes, found, panels)


def _convergence_figures(whole: Digest, shown: list[int]) -> Iterator[Named]:
    found, known = whole.convergence, whole.cells
    if found is None:
        return
    for c in shown:
        mine = found[found["cell"] == c]
        if len(mine):
            name = slug("convergence", known["group"][c], known["label"][c] if len(shown) > 1 else "")
            yield name, partial(planefigures.convergence, mine)


def _epoch_figures(whole: Digest, shown: list[int]) -> Iterator[Named]:
    known, (found, timeline) = whole.cells, whole.epochs
    styles = drawing.styles(known["variant"].tolist(), tables.baseline(whole.run))
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
            yield slug(name, group), partial(draw, mine)


def _sparsity_figures(whole: Digest) -> Iterator[Named]:
    points, known, plain = whole.levels, whole.cells, tables.baseline(whole.run)
    if points["x"].nunique() < 2:
        return
    styles = drawing.styles(known["variant"].tolist(), plain)
    found: list[Any] = points.to_dict("records")
    yield from _by_group("sparsity", found, known, lambda mine: drawing.against_sparsity(pd.DataFrame(mine), known, styles, plain))


def _pareto_figures(whole: Digest) -> Iterator[Named]:
    points, known = whole.pareto, whole.cells
    if points is not None:
        styles = drawing.styles(known["variant"].tolist(), tables.baseline(whole.run))
        found: list[Any] = points.to_dict("records")
        yield from _by_group("pareto", found, known, lambda mine: pareto.figure(pd.DataFrame(mine), known, styles))


def _backend_figures(run: Run, known: pd.DataFrame) -> Iterator[Named]:
    points, plain = backends.backend_points(run), tables.baseline(run)
    if points is not None:
        styles = drawing.styles(known["variant"].tolist(), plain)
        found: list[Any] = points.to_dict("records")
        yield from _by_group("latency", found, known, lambda mine: backends.figure(pd.DataFrame(mine), known, styles, plain))


def _histogram_figures(run: Run, known: pd.DataFrame, shown: list[int]) -> Iterator[Named]:
    found = weights.histograms(run, known) or []
    for cell in [c for c in shown if any(h["cell"] == c for h in found)]:
        mine = [h for h in found if h["cell"] == cell]
        styles = drawing.styles([h["layer"] for h in mine])
        yield slug("weights", known["group"][cell], known["label"][cell]), partial(drawing.histograms, mine, styles)


def _layer_figures(run: Run, known: pd.DataFrame, shown: list[int]) -> Iterator[Named]:
    found = tables.layer_sparsity(run)
    if found.empty:
        return
    found = found.assign(cell=tables.cell_numbers(found, known))
    rows: list[Any] = found[found["cell"].isin(shown)].to_dict("records")
    yield from _by_group("layers", rows, known, lambda mine: drawing.layer_bars(pd.DataFrame(mine), known))
