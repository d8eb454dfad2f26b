"""A run as its report reads it: text columns as categories, and what several parts of the report need worked out once."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from prunescope.report import curves, tables
from prunescope.report.convergence import convergence
from prunescope.report.pareto import pareto
from prunescope.report.planes import Planes, planes
from prunescope.results.columns import table_of

if TYPE_CHECKING:
    from prunescope.results.store import Run


class Digest:
    """What a `Run` has (folder, experiment, trials, problems, records) and what is made of it; it stands for the run in this package.

    The page and the figures show the same planes and curves: of 10,000 trials they take longer to work out than to draw.
    """

    def __init__(self, run: Run) -> None:
        self.records = table_of(run)  # first: it may find trials that are damaged
        self.folder, self.experiment, self.trials, self.problems = run.folder, run.experiment, run.trials, run.problems

    @property
    def run(self) -> Run:
        """Itself, for what takes a run."""
        return cast("Run", self)

    @functools.cached_property
    def cells(self) -> pd.DataFrame:
        return tables.cells(self.run)

    @functools.cached_property
    def planes(self) -> Planes | None:
        return planes(self.records)

    @functools.cached_property
    def convergence(self) -> pd.DataFrame | None:
        return convergence(self.run)

    @functools.cached_property
    def epochs(self) -> tuple[list[curves.EpochCurve], curves.Timeline]:
        return curves.epoch_curves(self.run)

    @functools.cached_property
    def levels(self) -> pd.DataFrame:
        return curves.sparsity_points(self.run)

    @functools.cached_property
    def pareto(self) -> pd.DataFrame | None:
        return pareto(self.run)


def digest(run: Any) -> Digest:
    """The digest of a run, or the one that is given: hand it to `write_report` and `write_figures` to have its work done once."""
    return run if isinstance(run, Digest) else Digest(run)
