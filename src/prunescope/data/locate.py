"""Where data files lie: `--data-dir`, then $PRUNESCOPE_DATA, then the user's cache."""

from __future__ import annotations

import os
from pathlib import Path

from prunescope.types import DataError

VARIABLE = "PRUNESCOPE_DATA"


def directories(directory: Path | None) -> list[Path]:
    """The folders to search, in order; the folder asked for comes first."""
    import pooch

    named = [directory, os.environ.get(VARIABLE) or None]
    return [Path(d).expanduser() for d in (*named, pooch.os_cache("prunescope")) if d is not None]


def find(folder: str, names: list[str], directory: Path | None) -> list[Path] | None:
    """The paths of all `names` in the first `<dir>/<folder>` that holds every one of them, else None."""
    for place in directories(directory):
        paths = [place / folder / name for name in names]
        if all(path.is_file() for path in paths):
            return paths
    return None


def found(folder: str, names: list[str], directory: Path | None) -> list[Path]:
    """As `find`, but a DataError with the command that fetches the files where there are none."""
    paths = find(folder, names, directory)
    if paths is None:
        places = ", ".join(str(place / folder) for place in directories(directory))
        raise DataError(
            f"{folder}: its {len(names)} files were not found together in {places}: fetch them with `prunescope data get {folder}`, "
            "or work offline with `-s data.name=digits`"
        )
    return paths
