"""Limits: how much of a file from elsewhere is read at most, and which files are read at all. All of them stand here.

The environment variable PRUNESCOPE_LIMITS changes them, also for worker processes: PRUNESCOPE_LIMITS="arrays=64G,trials=5000000".
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from prunescope.types import ConfigError, PrunescopeError, StoreError

VARIABLE = "PRUNESCOPE_LIMITS"
MIB, GIB = 1 << 20, 1 << 30
DEFAULTS = {
    "config": 4 * MIB,  # bytes of a TOML file
    "json": 256 * MIB,  # bytes of experiment.json, trial.json and other JSON
    "live": 64 * MIB,  # bytes that are read at a time of what a trial at work records
    "arrays": 8 * GIB,  # bytes that the arrays of a compressed data file may unpack to
    "classes": 1_000_000,  # of a data set: labels are numbered from 0
    "matlab": 64 * MIB,  # bytes that the file of the Tishby rule may unpack to
    "rows": 5_000_000,  # records of one trial
    "text": 2 * GIB,  # bytes of text in the records of one trial
    "trials": 1_000_000,  # of an experiment
    "links": 0,  # 1: follow links in a run folder that lead out of it
}
UNITS = {"k": 1 << 10, "m": MIB, "g": GIB, "t": 1 << 40}


def limit(name: str) -> int:
    """The limit called `name`, as $PRUNESCOPE_LIMITS sets it or else by default. ConfigError for a variable that cannot be read.

    >>> limit("config") == 4 * 2**20 or VARIABLE in os.environ
    True
    """
    found = dict(DEFAULTS)
    for part in filter(None, (p.strip() for p in os.environ.get(VARIABLE, "").split(","))):
        key, _, value = part.partition("=")
        if key not in DEFAULTS or not (number := value[:-1] if value[-1:].lower() in UNITS else value).isdecimal():
            known = ", ".join(DEFAULTS)
            raise ConfigError(f"${VARIABLE}: {part!r}: expected NAME=NUMBER, k, M, G or T behind it, and a name among {known}")
        found[key] = int(number) * UNITS.get(value[-1:].lower(), 1)
    return found[name]


def beyond(name: str, what: str, error: type[PrunescopeError] = StoreError) -> PrunescopeError:
    """The error for `what` ("FILE: 12 GB of arrays"), which is more than the limit called `name`."""
    return error(f"{what}: more than the limit of {limit(name):,}; if that is meant, raise it with {VARIABLE}={name}=NUMBER")


def read_bytes(path: Path, name: str, error: type[PrunescopeError] = StoreError) -> bytes:
    """The content of a regular file that is no larger than the limit called `name`; OSError where it cannot be read."""
    most = limit(name)
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))  # a pipe must not be waited for
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise error(f"{path}: is no regular file: expected one, not a folder, pipe or device")
        content = file.read(most + 1)
    if len(content) > most:
        raise beyond(name, f"{path}: {os.path.getsize(path):,} bytes", error)
    return content


def leads_out(path: Path, folder: Path) -> str | None:
    """Why `path` in `folder` is not read: it leads out of the folder through a link, or is no regular file. None where it may be."""
    if (reason := no_file(path)) is not None or limit("links"):
        return reason
    root = os.path.realpath(folder)
    if os.path.commonpath([root, os.path.realpath(path)]) == root:
        return None
    return f"{path}: leads out of the run's folder through a link, and is not read; if that is meant, set {VARIABLE}=links=1"


def no_file(path: Path) -> str | None:
    """Why `path` is not read, if it is a pipe or a device; None for files, folders, and where there is nothing."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return None  # not there: said by whoever wants to read it
    return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else f"{path}: is a pipe or device, and is not read"
