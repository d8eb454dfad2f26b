"""Finding: which run, and which trial in it, a word on the command line means."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

from prunescope.experiments.planning import plan_tables
from prunescope.experiments.search import searched
from prunescope.experiments.sweep import Trial
from prunescope.results.store import Run
from prunescope.types import StoreError


def parted(where: str) -> tuple[Path, str] | None:
    """The run's folder and the hash, or its first digits, that "RUN", "RUN:HASH" or "RUN/trials/HASH" name; None where no run is there."""
    path = Path(where)
    if (path / "experiment.json").is_file():
        return path, ""
    if (path / "trial.json").is_file():
        return path.resolve().parent.parent, path.resolve().name
    folder, _, wanted = where.rpartition(":")
    return (Path(folder), wanted) if folder and (Path(folder) / "experiment.json").is_file() else None


def planned(run: Run, allow: Sequence[str] = ()) -> dict[str, Trial]:
    """The trials that this version makes of the run's config, by hash. ConfigError where it names code that `allow` does not."""
    where = str(run.folder / "experiment.json")
    try:
        tables = tomllib.loads(str(run.experiment.get("toml", "")))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{where}: its config is not valid TOML: {error}") from error
    found = plan_tables(tables, name=where, allow=allow)
    return {t.hash: t for t in (found.trials if found.experiment.search is None else searched(run.folder, found))}


def known(run: Run, trials: dict[str, Trial], name: str) -> Trial:
    """The trial called `name`. StoreError where this version makes others of the run's config."""
    if name not in trials:
        raise StoreError(f"{run.folder}: trial {name} is not what this version makes of the run's config: run it again with this version")
    return trials[name]
