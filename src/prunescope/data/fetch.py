"""Fetching the public datasets, checked by sha256, and saying which ones are there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from prunescope.data.locate import VARIABLE, directories, find
from prunescope.data.sources import SOURCES, Source
from prunescope.registry import datasets
from prunescope.types import DataError

TIMEOUT = 30  # seconds without an answer after which the next mirror is tried


class Availability(NamedTuple):
    """Whether a dataset can be used now: `where` it lies (or how to get it) and its `size` in bytes."""

    name: str
    found: bool
    where: str
    size: int


def get(name: str, directory: Path | None = None, *, progress: bool = True) -> list[Path]:
    """Paths of the dataset's files after fetching those that are missing or damaged; [] for a set that needs no download.

    They go to `directory`, else $PRUNESCOPE_DATA, else the user's cache. DataError where no mirror delivers the right bytes.
    """
    datasets.get(name)  # an unknown name is an error, with the near names
    sources = SOURCES.get(name, ())
    if not sources:
        return []
    present = find(name, [source.name for source in sources], directory)
    if present and all(map(_intact, present, sources)):
        return present
    folder = _writable(directories(directory)[0] / name)
    return [_fetched(name, source, folder, progress) for source in sources]


def available(directory: Path | None = None) -> list[Availability]:
    """One row for every dataset: what `prunescope data` prints."""
    return [_availability(entry.name, entry.traits, directory) for entry in datasets]


def _availability(name: str, traits: object, directory: Path | None) -> Availability:
    files = [source.name for source in SOURCES.get(name, ())]
    optional = dict(traits).get("file") if isinstance(traits, dict) else None
    if optional:
        files = [optional]
    if not files:
        return Availability(name, True, "built in" if name != "npz" else "your own file (data.path)", 0)
    paths = find(name, files, directory)
    if paths:
        return Availability(name, True, str(paths[0].parent), sum(path.stat().st_size for path in paths))
    if optional:
        return Availability(name, True, f"generated ({optional} not found)", 0)
    return Availability(name, False, f"prunescope data get {name}", sum(source.size for source in SOURCES[name]))


def _writable(folder: Path) -> Path:
    reason = "no permission to write"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise DataError(f"{folder}: cannot be written ({reason}): choose another folder with --data-dir or ${VARIABLE}")
    return folder


def _intact(path: Path, source: Source) -> bool:
    import pooch

    return path.is_file() and path.stat().st_size == source.size and pooch.file_hash(str(path)) == source.sha256


def _fetched(name: str, source: Source, folder: Path, progress: bool) -> Path:
    path = folder / source.name
    if _intact(path, source):
        return path
    failures = []
    for mirror in source.mirrors:
        failure = _download(mirror + source.name, source, folder, progress)
        if failure is None:
            return path
        failures.append(failure)
    raise DataError(
        f"{name}: {source.name} could not be fetched ({'; '.join(failures)}): try again with a network connection, put the file into "
        f"{folder} yourself, or work offline with `-s data.name=digits`"
    )


def _download(url: str, source: Source, folder: Path, progress: bool) -> str | None:
    """None when the file lies in `folder` with the right checksum, else why it does not, in a few words."""
    import logging

    import pooch
    import requests

    host = url.split("/")[2]
    downloader = pooch.HTTPDownloader(progressbar=progress, timeout=TIMEOUT)
    pooch.get_logger().setLevel(logging.WARNING)  # its announcements would break the progress bar
    try:
        pooch.retrieve(url, f"sha256:{source.sha256}", source.name, folder, downloader=downloader)
    except requests.HTTPError as error:
        return f"{host} answered: {str(error).split(' for url')[0]}"
    except requests.RequestException as error:
        return f"no connection to {host} ({type(error).__name__})"
    except ValueError:  # what pooch raises when the checksum differs
        return f"checksum mismatch: {host} sent other bytes than the published file"
    except OSError as error:
        return f"{folder} cannot be written ({error.strerror or error})"
    return None
