"""Storage that all machines reach by a URL (fsspec: s3://, gs://, file://, ...): a copy of a run's finished trials and dense trainings.

    <url>/<experiment>/trials/<hash>/...     trial.json last: a trial without it was not finished
                       dense/<hash>/...      records.parquet last
                       checkpoints/...       where trainings under way stand, of workers that do not see the run folder
"""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from prunescope import extras
from prunescope.results.files import write_beside
from prunescope.results.store import TrialFolder
from prunescope.types import ConfigError, MissingExtraError, StoreError

LAST = ("records.parquet", "trial.json")  # in this order, after all others: they say that a folder is whole
TRIES = 3
AT_ONCE = 16  # transfers side by side: each is one small file, and most of the time is spent waiting

T = TypeVar("T")


class Storage:
    """Folders of a run at `url`, by their names in the run folder: "trials/<hash>" and "dense/<hash>".

    Raises ConfigError for a URL that cannot be used, MissingExtraError where a package is missing, StoreError when a transfer fails.
    """

    def __init__(self, url: str) -> None:
        fsspec = extras.load("fsspec", extra="ray", purpose="--storage")
        self.url = url.rstrip("/")
        if "://" not in url:
            raise ConfigError(f"--storage {url!r}: expected a URL such as s3://bucket/prefix or file:///shared/folder")
        try:
            self._system, self._root = fsspec.core.url_to_fs(self.url)
        except ImportError as error:
            raise MissingExtraError(f"--storage {url}: a package for this kind of URL is missing ({error})") from error
        except Exception as error:  # each kind of file system has errors of its own
            raise ConfigError(f"--storage {url}: cannot be used: {_short(error)}") from error

    def names(self, kind: str) -> set[str]:
        """What there is of a kind ("trials", "dense" or "checkpoints"), in one listing: "trials/<hash>", ..."""

        def listed() -> list[str]:
            self._system.invalidate_cache()
            try:
                return list(self._system.ls(f"{self._root}/{kind}", detail=False))
            except FileNotFoundError:
                return []

        return {f"{kind}/{PurePosixPath(path).name}" for path in self._tried(listed, "list", kind)}

    def put(self, folder: Path, name: str) -> None:
        """Copy all of `folder / name` there, what says that it is whole last."""
        paths = [p for p in (folder / name).rglob("*") if p.is_file()]
        for path in sorted(paths, key=lambda p: (rank(p.name), str(p))):
            place = f"{self._root}/{path.relative_to(folder).as_posix()}"

            def copied(path: Path = path, place: str = place) -> None:
                self._system.makedirs(place.rpartition("/")[0], exist_ok=True)
                self._system.pipe_file(place, path.read_bytes())

            self._tried(copied, "write", place)

    def fetch(self, folder: Path, name: str) -> bool:
        """Bring `name` into `folder`, what says that it is whole last; False where it is not whole there."""

        def found() -> list[str]:
            self._system.invalidate_cache()
            return list(self._system.find(f"{self._root}/{name}"))

        root = self._system._strip_protocol(f"{self._root}/{name}")
        inside = [path[len(root) :].lstrip("/") for path in self._tried(found, "list", name)]
        if not whole(name, inside, lambda file: self._read(f"{name}/{file}")):
            return False
        placed(folder, ((f"{name}/{file}", functools.partial(self._read, f"{name}/{file}")) for file in inside))
        return True

    def keep(self, folder: Path, name: str) -> None:
        """Copy the file `folder / name` there over what was there: under another name first, as a write can be cut short."""
        place = f"{self._root}/{name}"

        def copied() -> None:
            self._system.makedirs(place.rpartition("/")[0], exist_ok=True)
            self._system.pipe_file(f"{place}.part", (folder / name).read_bytes())
            self._system.mv(f"{place}.part", place)

        self._tried(copied, "write", place)

    def bring(self, folder: Path, name: str) -> bool:
        """The file `name` into `folder`; False where there is none."""

        def content() -> bytes | None:
            self._system.invalidate_cache()
            try:
                return bytes(self._system.cat_file(f"{self._root}/{name}"))
            except FileNotFoundError:
                return None

        if (found := self._tried(content, "read", name)) is None:
            return False
        write_beside(folder / name, functools.partial(Path.write_bytes, data=found))
        return True

    def drop(self, name: str) -> None:
        """Remove the file `name`, if it is there."""

        def gone() -> None:
            with contextlib.suppress(FileNotFoundError):
                self._system.rm_file(f"{self._root}/{name}")

        self._tried(gone, "remove", name)

    def fetch_all(self, folder: Path, names: Iterable[str]) -> int:
        """`fetch` each of `names`, several at a time; how many came."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return sum(pool.map(lambda name: self.fetch(folder, name), names))

    def _read(self, name: str) -> bytes:
        return bytes(self._tried(lambda: self._system.cat_file(f"{self._root}/{name}"), "read", name))

    def _tried(self, call: Callable[[], T], verb: str, name: str) -> T:
        """`call`, tried again after a pause where it fails: networks do."""
        for attempt in range(1, TRIES + 1):
            try:
                return call()
            except Exception as error:  # each kind of file system has errors of its own
                if attempt == TRIES or isinstance(error, PermissionError):
                    raise StoreError(f"--storage {self.url}: could not {verb} {name}: {_short(error)}") from error
                time.sleep(attempt**2 / 4)
        raise AssertionError("the last try returns or raises")


def rank(name: str) -> int:
    """Where a file stands in the order of writing: what says that a folder is whole comes last."""
    return LAST.index(name) + 1 if name in LAST else 0


def whole(name: str, files: Iterable[str], read: Callable[[str], bytes]) -> bool:
    """Whether a folder called `name` with these files is finished: a trial by what its trial.json says, a training by its records."""
    if not name.startswith("trials/"):
        return "records.parquet" in files
    if "trial.json" not in files:
        return False
    try:
        status = json.loads(read("trial.json"))
    except ValueError:
        return False
    return isinstance(status, dict) and status.get("status") == "finished"


def placed(folder: Path, files: Iterable[tuple[str, Callable[[], bytes]]]) -> None:
    """Write files, by their names in the run folder, each beside its place and renamed, trial.json last.

    A trial that is finished in the folder stays as it is: what is stored first counts. Names that lead elsewhere are refused (StoreError).
    """
    by_trial: dict[str, bool] = {}
    for name, read in sorted(files, key=lambda item: (rank(PurePosixPath(item[0]).name), item[0])):
        parts = PurePosixPath(name).parts
        if len(parts) < 3 or parts[0] not in ("trials", "dense") or ".." in parts or "\\" in name:
            raise StoreError(f"{name!r}: not the name of a file of a trial: expected trials/HASH/FILE or dense/HASH/FILE")
        if parts[0] == "trials" and by_trial.setdefault(parts[1], TrialFolder(folder / "trials" / parts[1]).finished()):
            continue
        content = read()
        write_beside(folder.joinpath(*parts), functools.partial(Path.write_bytes, data=content))


def contents(folder: Path, name: str) -> dict[str, bytes]:
    """All files of `folder / name` by their names in `folder`."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted((folder / name).rglob("*")) if p.is_file()}


def unpacked(folder: Path, files: Mapping[str, Any]) -> None:
    """`placed` for contents that are there already."""
    placed(folder, ((name, functools.partial(bytes, content)) for name, content in files.items()))


def _short(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__
