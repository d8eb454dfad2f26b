"""Estimators against tasks whose mutual information is known: what `prunescope mi --check` and the accuracy benchmark run."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from prunescope.information.estimate import fits, mutual_information
from prunescope.registry import Entry, estimators
from prunescope.types import PrunescopeError

if TYPE_CHECKING:
    from pandas import DataFrame

class KnownTask(Protocol):
    """What is asked of a task: see `prunescope.data.synthetic.Task`."""

    @property
    def name(self) -> str: ...

    @property
    def mi(self) -> float: ...

    @property
    def dx(self) -> int: ...

    @property
    def dy(self) -> int: ...

    @property
    def kinds(self) -> tuple[str, str]: ...

    def sample(self, n: int, *, seed: int = 0) -> tuple[Tensor, Tensor]: ...


def tolerance(mi: float) -> float:
    """Largest error in nats that counts as found: 0.07 bit, or 5 % where that is more.

    >>> tolerance(0.0) < 0.0486, tolerance(2.0)
    (True, 0.1)
    """
    return max(0.0485203, 0.05 * mi)


def applies(entry: Entry, task: KnownTask) -> bool:
    """Whether the estimator gives mutual information of variables of the task's kinds, in either order."""
    return "mi" in entry.traits.get("quantities", ("mi",)) and (fits(entry, *task.kinds) or fits(entry, *task.kinds[::-1]))


def check(
    names: Iterable[str], tasks: Mapping[str, KnownTask], *, n: int = 2000, seeds: int = 1, parameters: Mapping[str, Any] | None = None
) -> DataFrame:
    """One row for each estimator, task and seed: `truth`, `value`, `error`, `stderr`, `low`, `high` (nats), and the following.

    inside   the error is at most max(0.07 bit, 5 %)
    covered  the truth lies within the interval that the estimator reports, `low` to `high` (missing where it gives none)
    seconds  what it took; `flags`, joined by spaces, are what the estimate says of itself
    failure  the sentence of an estimator that raised, else empty
    Pairs whose kinds do not fit are left out.
    """
    from pandas import DataFrame

    chosen = [estimators.get(name) for name in names]
    rows = [row for task in tasks.values() for row in _of_task(task, chosen, n, seeds, parameters or {})]
    return DataFrame(rows, columns=[*COLUMNS])


COLUMNS = (
    "task", "estimator", "seed", "n", "truth", "value", "error", "stderr", "low", "high", "inside", "covered", "seconds", "flags",
    "failure",
)  # fmt: skip


def _of_task(task: KnownTask, entries: list[Entry], n: int, seeds: int, parameters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for seed in range(seeds):
        x, y = task.sample(n, seed=seed)
        for entry in entries:
            if applies(entry, task):
                yield {"task": task.name, "estimator": entry.name, "seed": seed, "n": n, "truth": task.mi} | measured(
                    entry, task, x, y, seed=seed, parameters=parameters
                )


def measured(
    entry: Entry, task: KnownTask, x: Tensor, y: Tensor, *, seed: int = 0, parameters: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What one estimator says of one sample of a task, in nats, and how long it took (seconds)."""
    started = time.perf_counter()
    missing = {"value": None, "error": None, "stderr": None, "low": None, "high": None, "inside": False, "covered": None, "flags": ""}
    try:
        found = mutual_information(x, y, entry.name, unit="nats", seed=seed, **(parameters or {}))
    except PrunescopeError as failure:
        return {**missing, "seconds": time.perf_counter() - started, "failure": str(failure)}
    assert not isinstance(found, list), "a task's sample has no batch dimension"
    error = found.value - task.mi
    low, high = found.interval if found.interval is not None else (None, None)
    return {
        "value": found.value,
        "error": error,
        "stderr": found.stderr,
        "inside": abs(error) <= tolerance(task.mi),
        "low": low,
        "high": high,
        "covered": None if low is None or high is None else low <= task.mi <= high,
        "seconds": time.perf_counter() - started,
        "flags": " ".join(found.flags),
        "failure": "",
    }
