"""The run folder: every file is written beside its place and renamed, so that a reader never meets half of one.

runs/<name>/experiment.json
            dense/<hash>/    what trials that share their training before pruning share: records, weights
            checkpoints/     where trainings under way stand, removed when all is done
            claims/, runners/    who is at what (claims.py), while runs are at work
            trials/<hash>/   trial.json (last, it says "finished"), records.parquet, weights.safetensors, masks.safetensors
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from prunescope import limits
from prunescope.registry import unknown
from prunescope.results import schema
from prunescope.results.columns import plain, quoted, read_columns
from prunescope.results.files import read_json, sweep, write_beside
from prunescope.types import ConfigError, StoreError


@functools.cache
def _database(process: int) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})  # nothing is fetched


def _connection() -> duckdb.DuckDBPyConnection:
    """A connection to this process's own database in memory: to make one takes ten times as long as to write a trial's records."""
    return _database(os.getpid()).cursor()


def write_records(path: Path, records: pd.DataFrame) -> None:
    """Write a records frame as Parquet."""

    def write(temporary: Path) -> None:
        with _connection() as connection:
            connection.register("records", records)
            connection.execute(f"COPY records TO '{quoted(temporary)}' (FORMAT parquet, COMPRESSION zstd)")

    write_beside(path, write)


def read_records(path: Path | list[Path]) -> pd.DataFrame:
    """The records in one Parquet file or several, checked for their columns."""
    return plain(_read(path if isinstance(path, list) else [path]))


def _read(paths: list[Path]) -> pd.DataFrame:
    with _connection() as connection:
        return read_columns(paths, connection)


class TrialFolder:
    """One trial's folder: what it holds and whether it is finished."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.status_file, self.records_file = folder / "trial.json", folder / "records.parquet"
        self.weights_file, self.masks_file = folder / "weights.safetensors", folder / "masks.safetensors"

    def status(self) -> dict[str, Any]:
        """trial.json's content; {"status": "missing"} where there is none, "damaged" with the reason where it cannot be read."""
        if not self.status_file.exists():
            return {"status": "missing"}
        try:
            return read_json(self.status_file)
        except StoreError as error:
            return {"status": "damaged", "reason": str(error)}

    def sweep(self) -> None:
        """Remove half-written files that a killed run left beside those of the trial."""
        sweep(self.folder)

    def seal(self) -> dict[str, list[Any]]:
        """What trial.json says of the files beside it: {name: [bytes, sha256]}."""
        files = (self.records_file, self.weights_file, self.masks_file)
        return {f.name: [f.stat().st_size, _sha256(f)] for f in files if f.exists()}

    def astray(self, run: Path) -> str | None:
        """Why the trial's files are not read: one of them leads out of the folder `run`, or is a pipe or device. None where they may be."""
        if (reason := limits.leads_out(self.folder, run)) is not None:
            return reason
        for path in (self.status_file, self.records_file, self.masks_file, self.weights_file):
            # where the folder leads is known now, so only a link among the files has to be followed: 10,000 trials have 40,000
            if (reason := limits.leads_out(path, run) if path.is_symlink() else limits.no_file(path)) is not None:
                return reason
        return None

    def finished(self) -> bool:
        """Whether the trial ended well and what it left is there in full: half a file is found by its size, damaged records by their sum.

        Where a rename is not one step, a kill can leave half a file under the right name.
        """
        status = self.status()
        return status.get("status") == "finished" and not self.faults(status, sums=(self.records_file.name,))

    def faults(self, status: Mapping[str, Any], sums: Container[str]) -> list[str]:
        """What is wrong with the files that trial.json names; those in `sums` are read in full."""
        files = status.get("files")
        if files is None:  # of a version that did not seal its trials
            try:
                read_records(self.records_file)
            except StoreError as error:
                return [str(error)]
            return []
        if not isinstance(files, dict):
            return [f"{self.status_file}: files: expected an object of names, got {type(files).__name__}"]
        return [fault for name, sealed in files.items() if (fault := _fault(self.folder, name, sealed, name in sums))]


def _fault(folder: Path, name: str, sealed: Any, whole: bool) -> str:
    """What is wrong with one file, or nothing."""
    if name not in ("records.parquet", "weights.safetensors", "masks.safetensors") or not (isinstance(sealed, list) and len(sealed) == 2):
        return f"{folder / 'trial.json'}: files: {name[:60]!r} is no entry that this version writes"
    path = folder / name
    try:
        size = path.stat().st_size
        if size != sealed[0]:
            return f"{path}: has {size} bytes, {sealed[0]} were written"
        if whole and _sha256(path) != sealed[1]:
            return f"{path}: is not what was written (its SHA-256 differs)"
    except OSError as error:
        return f"{path}: cannot be read: {error.strerror or error}"
    return ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_ENTRIES: dict[str, Any] = {
    **dict.fromkeys(("name", "title", "question", "command", "toml", "machine", "created", "baseline"), str),
    **dict.fromkeys(("notes", "faults", "data_notes", "trials"), list),
    **dict.fromkeys(("config", "versions"), dict),
}
_TEXTS = ("notes", "faults", "data_notes", "versions")  # hold texts alone


def read_experiment(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """experiment.json without entries of another type than ours (other versions and other hands write it too), and what was left out."""
    found, problems = read_json(folder / "experiment.json"), []
    for key, kind in _ENTRIES.items():
        value = found.get(key)
        inside = value.values() if isinstance(value, dict) else value
        right = isinstance(value, kind) and (key not in _TEXTS or all(isinstance(v, str) for v in inside or ()))
        if value is not None and not right:
            problems.append(f"experiment.json: {key} is {type(value).__name__} of another form than ours, and left out")
            del found[key]
    return {"name": folder.resolve().name} | {key: value for key, value in found.items() if key != "name" or value}, problems


class Run:
    """A run folder as it stands: `experiment` (its config and origin), `records`, `trials`, and `problems` found while reading.

    Records are read when they are first asked for and kept: `records` with text columns of strings, `table` the same with categories,
    which take a fraction of the memory. A file that cannot be read is found then at the latest; one that is cut off or no Parquet, at once.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / "experiment.json").is_file():
            raise StoreError(f"{self.folder}: not a run folder (no experiment.json in it); `prunescope run` makes one")
        if (reason := limits.leads_out(self.folder / "experiment.json", self.folder)) is not None:
            raise StoreError(reason)
        self.experiment, self._problems = read_experiment(self.folder)
        if (version := self.experiment.get("schema")) != schema.VERSION:
            self._problems.append(f"experiment.json has schema {version!r}, this version reads {schema.VERSION}: figures may be missing")
        self.trials = self._read_trials()
        self._mark(self._cut_off())

    @property
    def problems(self) -> list[str]:
        """What was found while reading everything: the records are read for it where they were not yet."""
        _ = self.table
        return self._problems

    @functools.cached_property
    def table(self) -> pd.DataFrame:
        """All records of finished trials, text columns as categories."""
        paths = self._finished()
        try:
            return _read(paths)
        except StoreError:
            self._mark(_unreadable(paths))  # bad files must not hide the good ones
            return _read(self._finished())

    @functools.cached_property
    def records(self) -> pd.DataFrame:
        """All records of finished trials, text columns as strings."""
        return plain(self.table)

    def __repr__(self) -> str:
        counts = self.trials["status"].value_counts().to_dict() if len(self.trials) else {}
        read = f", {len(self.table)} records" if "table" in self.__dict__ else ""
        return f"Run({str(self.folder)!r}: {', '.join(f'{n} {s}' for s, n in counts.items()) or 'no trials'}{read})"

    def _read_trials(self) -> pd.DataFrame:
        columns = ["hash", "group", "variant", "sparsity", "seed", "status", "reason", "seconds"]
        rows = []
        listed = self.experiment.get("trials") or []
        trials = [t for t in listed if is_trial(t)]
        if lost := len(listed) - len(trials):
            self._problems.append(f"experiment.json: {lost} of its trials lack a hash, group, variant, sparsity or seed, and are left out")
        for planned in trials:
            status = self._status(TrialFolder(self.folder / "trials" / str(planned.get("hash"))))
            if status.get("status") == "damaged":
                self._problems.append(str(status.get("reason")))
            reason = status.get("reason")
            told: dict[str, Any] = {"status": str(status.get("status")), "reason": None if reason is None else str(reason)}
            told["seconds"] = seconds_of(status)
            rows.append({**{c: planned.get(c) for c in columns}, **told})
        return pd.DataFrame(rows, columns=columns)

    def _status(self, place: TrialFolder) -> dict[str, Any]:
        """The trial's status; damaged where its files lie elsewhere: whoever wrote the folder would choose what of ours a report shows."""
        reason = place.astray(self.folder)
        return place.status() if reason is None else {"status": "damaged", "reason": reason}

    def _finished(self) -> list[Path]:
        finished = self.trials.loc[self.trials["status"] == "finished", "hash"]
        return [TrialFolder(self.folder / "trials" / h).records_file for h in finished]

    def _cut_off(self) -> dict[Path, StoreError]:
        """The records that are not there or do not begin and end as Parquet does, with why they cannot be read."""
        return _unreadable([path for path in self._finished() if not _whole(path)])

    def _mark(self, bad: Mapping[Path, StoreError]) -> None:
        """Count the trials of `bad` records as damaged."""
        for path, error in bad.items():
            self._problems.append(str(error))
            self.trials.loc[self.trials["hash"] == path.parent.name, ["status", "reason"]] = ["damaged", str(error)]


def _whole(path: Path) -> bool:
    """Whether a file begins and ends as Parquet does: what a crash or a full disk leaves seldom does."""
    mark = b"PAR1"
    try:
        with path.open("rb") as file:
            first = file.read(len(mark))
            file.seek(-len(mark), os.SEEK_END)
            return first == mark == file.read()
    except OSError:
        return False


def _unreadable(paths: list[Path]) -> dict[Path, StoreError]:
    """Which of `paths` cannot be read, and why: halves are tried, so that few bad ones among many are found soon."""
    if not paths:
        return {}
    try:
        _read(paths)
    except StoreError as error:
        if len(paths) == 1:
            return {paths[0]: error}
        half = len(paths) // 2
        return _unreadable(paths[:half]) | _unreadable(paths[half:])
    return {}


def seconds_of(status: Mapping[str, Any]) -> float | None:
    """What a trial took, in seconds; None where its status does not say so in a number."""
    spent = status.get("seconds")
    return float(spent) if isinstance(spent, int | float) and 0 <= spent < 1e15 else None


def is_trial(planned: Any) -> bool:
    """Whether an entry of the plan names a trial; a hash that leads out of the run's folder names none."""
    if not isinstance(planned, dict):
        return False
    named = all(isinstance(planned.get(key), str) for key in ("hash", "group", "variant")) and re.fullmatch(r"\w{1,64}", planned["hash"])
    level, seed = planned.get("sparsity"), planned.get("seed")
    fraction = level is None or (isinstance(level, int | float) and not (level < 0 or level > 1))
    return bool(named) and fraction and isinstance(seed, int) and not isinstance(seed, bool) and abs(seed) < 1 << 63


def load(folder: str | Path) -> Run:
    """The run in `folder`: its `.records` frame, `.trials` frame, `.experiment` and the `.problems` met while reading."""
    return Run(folder)


def export_records(run: Run, format: str, file: Path | None = None) -> Path:
    """Write all records of `run` as one csv, parquet or json file (default: records.FORMAT in the run folder); returns its path."""
    path = file if file is not None else run.folder / f"records.{format}"
    writers: dict[str, Callable[[Path], object]] = {
        "csv": lambda p: run.records.to_csv(p, index=False),
        "json": lambda p: run.records.to_json(p, orient="records", lines=False, double_precision=15),
    }
    if format == "parquet":
        write_records(path, run.records)
    elif format in writers:
        write_beside(path, writers[format])
    else:
        raise ConfigError(unknown("format", format, [*writers, "parquet"]))
    return path
