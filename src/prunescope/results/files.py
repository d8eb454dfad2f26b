"""Files of a run folder: written beside their place and renamed, so that a reader never meets half of one; and read with limits."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from prunescope import limits
from prunescope.types import StoreError

SWEPT = 5  # times that a temporary file may be swept up by other runs


def write_beside(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a temporary file next to `path`, then rename it into place; nothing is left behind when it fails.

    Raises StoreError with the reason (no space, no permission, ...). Where the temporary file is gone before it could be renamed, another
    run has swept up after a killed one and met ours: `write` is called again.
    """
    for _ in range(SWEPT):
        temporary = _temporary(path)
        try:
            write(temporary)
            temporary.chmod(0o644)
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
            return
        except (OSError, duckdb.Error) as error:
            failed = error
            if not isinstance(error, FileNotFoundError) or temporary.exists() or not path.parent.is_dir():
                break
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    reason = failed.strerror if isinstance(failed, OSError) and failed.strerror else str(failed).splitlines()[0]
    kept = "finished trials are kept, and the same command goes on from them"
    raise StoreError(f"{path}: could not be written ({reason}); {kept}") from failed


def _temporary(path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}; give another folder with --out") from error
    return Path(name)


def sweep(folder: Path, names: Sequence[str] | None = None, *, deep: bool = False) -> None:
    """Remove what a killed run left of writing files called `names` in `folder` (`deep`: and below it). Nobody may be writing them now.

    None: every hidden file, those of the libraries that write beside and rename themselves among them.
    """
    for pattern in [".*"] if names is None else [f".{name}.*" for name in names]:
        for path in (folder.rglob if deep else folder.glob)(pattern):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def check_folder(folder: Path) -> list[str]:
    """Whether files can be kept in `folder`: raises StoreError with the reason if not, and returns what should be known of it.

    A rename that is not one step (some network and object stores copy instead) can leave half a file when a run is killed. It is told by
    the file that comes out: a copy is another one than was renamed.
    """
    place, beside = (folder / f".prunescope-check.{secrets.token_hex(4)}" for _ in range(2))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"old")
        beside.write_bytes(b"new")
        before = beside.stat().st_ino
        beside.replace(place)
        replaced, same = place.read_bytes() == b"new" and not beside.exists(), place.stat().st_ino == before
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written to: {error.strerror or error}; give another folder with --out") from error
    finally:
        for path in (place, beside):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
    if not replaced:
        raise StoreError(f"{folder}: a renamed file does not take the place of the old one there; give another folder with --out")
    copied = "a rename copies in the run's folder: what a kill leaves half written there is found by its size and sum, and done again"
    return [] if same else [copied]


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` as JSON."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    write_beside(path, lambda p: p.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, or a StoreError that says what is wrong with it."""
    try:
        text = limits.read_bytes(path, "json")
        content = json.loads(text)
        if b"\\ud" in text.lower():  # halves of characters, which no file and no terminal takes
            content = json.loads(json.dumps(content, ensure_ascii=False).encode("utf-8", "replace"))
    except StoreError:
        raise
    except (OSError, ValueError, RecursionError) as error:  # a number of 5,000 digits and a list in a list in a list ... are no JSON here
        raise StoreError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise StoreError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content
