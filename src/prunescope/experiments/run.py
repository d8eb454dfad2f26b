"""`run`: an experiment from its config to a run folder with records and a report; finished trials are never done again."""

from __future__ import annotations

import contextlib
import json
import platform
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import tomli_w
import torch

from prunescope import config as configs
from prunescope.config import ExperimentConfig
from prunescope.experiments import checkpoints, engines, presets
from prunescope.experiments.checkpoints import SECONDS
from prunescope.experiments.deployment import check_extras
from prunescope.experiments.passes import carry_out
from prunescope.experiments.sweep import Trial, trials
from prunescope.experiments.tasks import Task, dense_name, rounds_name, trial_name
from prunescope.experiments.trial import build_model, load_data
from prunescope.integrations.tracking import tracked
from prunescope.results import schema
from prunescope.results.claims import LEASE, Runner
from prunescope.results.store import Run, check_folder, read_json, write_beside, write_json
from prunescope.training.arrangement import asked
from prunescope.training.optim import build as build_optimizer
from prunescope.types import ConfigError, StoreError

OPTIONAL = ("onnx", "onnxruntime", "onnxscript", "torchao")
PACKAGES = ("prunescope", "torch", "numpy", "scipy", "scikit-learn", "pandas", "duckdb", "safetensors")


@dataclass(frozen=True)
class Plan:
    """A resolved experiment: its config, its tables as read, and its trials."""

    experiment: ExperimentConfig
    tables: Mapping[str, Any]
    trials: tuple[Trial, ...]


def plan(source: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | Sequence[tuple[str, Any]] = ()) -> Plan:
    """The trials that a preset's name, a TOML file or tables stand for, with dotted `overrides` laid over them."""
    tables, name = presets.tables(source)
    tables = configs.override(tables, overrides)
    experiment = configs.experiment_config(tables, source=name)
    return Plan(experiment, tables, tuple(trials(experiment, tables)))


def run(
    source: str | Path | Mapping[str, Any] = "quickstart",
    *,
    overrides: Mapping[str, Any] | Sequence[tuple[str, Any]] = (),
    out: str | Path | None = None,
    data_dir: str | Path | None = None,
    engine: str = "processes",
    jobs: int | None = None,
    threads: int = 1,
    device: str = "cpu",
    stack: str | int = "auto",
    checkpoint: float = SECONDS,
    fresh: bool = False,
    quiet: bool = True,
    log: Sequence[str] | str = (),
    finish: Callable[[Run], object] | None = None,
    shard: str | None = None,
    lease: float = LEASE,
) -> Run:
    """Run every trial of an experiment that is not finished yet and return the Run.

    source      a preset's name, a TOML file or a mapping; overrides: {"training.epochs": 3, ...}
    out         the run folder (default runs/<name>); data_dir: where data sets lie
    engine      "processes" (one worker a core, or `jobs`) or "serial"; `threads` a worker; device: "cpu", "cuda" or "auto"
    stack       trials that train together: "auto" (where it is faster and fits), "on", "off", or how many at most
    checkpoint  seconds between checkpoints inside a training: what a killed run loses at most, but for the epoch at work; 0: every epoch
    fresh       forget finished trials of this experiment first
    log         "tensorboard" or "mlflow" (extra `track`), also "tensorboard=DIR" and "mlflow=URI": records are handed on as they come
    finish      called with the Run at the end (the command line writes the report there)
    shard       "3/20": only the third of twenty parts of the trials, by their hashes; parts merge by copying their folders together
    lease       seconds after which a run on another machine that shows no sign of life loses the trials that it was at

    Several runs may work in one folder, on one machine or on many: each trial is done by the run that claims it (results/claims.py).

    Raises ConfigError and DataError before anything runs, StoreError when results cannot be written. A trial that fails is a row.
    """
    asked(stack, 1)
    _numbers(checkpoint, lease)
    planned = plan(source, overrides)
    own = in_shard(planned.trials, shard)
    folder = Path(out) if out is not None else Path("runs") / planned.experiment.name
    directory = Path(data_dir) if data_dir is not None else None
    tasks = [Task(t, folder, directory, _device(device), checkpoint) for t in own]
    tracking = tracked([log] if isinstance(log, str) else log, folder)
    notes = [*check(planned, directory), *check_folder(folder)]
    if fresh:
        _forget(folder, planned)
    about = describe(planned, notes, reproduce(source, overrides, folder))
    with _clocked(folder, about, 0.0 if fresh else _spent(folder)), tracking:
        write_beside(folder / "experiment.toml", lambda p: p.write_text(toml_text(planned), encoding="utf-8"))
        carry_out(tasks, engines.engine(engine, jobs=jobs, threads=threads), stack=stack, quiet=quiet, lease=lease)
    finished = Run(folder)
    if finish is not None:
        finish(finished)
    return finished


def _numbers(checkpoint: float, lease: float) -> None:
    if not checkpoint >= 0:
        raise ConfigError(f"checkpoint {checkpoint!r}: expected the seconds between checkpoints, 0 for every epoch, inf for none")
    if not lease > 0:
        raise ConfigError(f"lease {lease!r}: expected seconds above 0")


@contextlib.contextmanager
def _clocked(folder: Path, about: Mapping[str, Any], spent: float) -> Iterator[None]:
    """experiment.json before the work, and after it with the seconds that all of it took."""
    write_json(folder / "experiment.json", {**about, "wall_seconds": spent})
    began = time.perf_counter()
    yield
    write_json(folder / "experiment.json", {**about, "wall_seconds": round(spent + time.perf_counter() - began, 1)})


def check(planned: Plan, data_dir: Path | None) -> list[str]:
    """Load each data set and build each network and optimiser once, so that mistakes show before the sweep; returns the data's notes."""
    notes: dict[str, None] = {}
    seen = set()
    for trial in planned.trials:
        check_extras(trial.config)
        key = configs.value_hash({s: getattr(trial.config, s).model_dump(mode="json") for s in ("data", "model", "training")})
        if key in seen:
            continue
        seen.add(key)
        data = load_data(trial.config.data, trial.seed, data_dir)
        build_optimizer(build_model(trial, data), trial.config.training)
        notes |= dict.fromkeys(data.notes)
    return list(notes)


def in_shard(trials: Sequence[Trial], shard: str | None) -> list[Trial]:
    """The trials of part i of n, for `shard` "i/n"; all of them for None. Parts go by hashes: a trial is in one of them.

    >>> in_shard([], "3/2")
    Traceback (most recent call last):
        ...
    prunescope.types.ConfigError: shard '3/2': expected i/n with i from 1 to n, e.g. 3/20 for the third of twenty parts
    """
    if shard is None:
        return list(trials)
    part, _, parts = shard.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise ConfigError(f"shard {shard!r}: expected i/n with i from 1 to n, e.g. 3/20 for the third of twenty parts")
    return [t for t in trials if int(t.hash, 16) % int(parts) == int(part) - 1]


def _spent(folder: Path) -> float:
    """Seconds on the clock that earlier calls of the same run took; of a file that a kill cut short, none."""
    with contextlib.suppress(StoreError, TypeError, ValueError):
        return float(read_json(folder / "experiment.json").get("wall_seconds", 0.0))
    return 0.0


def reproduce(source: Any, overrides: Any, folder: Path) -> str:
    """The command that runs the same experiment again, wherever the data lie."""
    what = str(folder / "experiment.toml") if isinstance(source, Mapping) else str(source)
    changes = [] if isinstance(source, Mapping) else [f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in dict(overrides).items()]
    return shlex.join(["prunescope", "run", what, *(w for c in changes for w in ("-s", c))])


def toml_text(planned: Plan) -> str:
    """The experiment's config as TOML that can be run; keys set to null are left out."""
    return tomli_w.dumps(_without_none(dict(planned.tables)))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return [_without_none(v) for v in value] if isinstance(value, list) else value


def describe(planned: Plan, data_notes: Sequence[str], command: str) -> dict[str, Any]:
    """What experiment.json holds: the experiment in full, where it ran and with what, and its planned trials."""
    experiment = planned.experiment
    return {
        "schema": schema.VERSION,
        "name": experiment.name,
        "title": experiment.title or experiment.name,
        "question": experiment.question,
        "notes": experiment.notes,
        "faults": experiment.faults,
        "baseline": experiment.baseline,
        "config": experiment.model_dump(mode="json"),
        "toml": toml_text(planned),
        "command": command,
        "data_notes": list(data_notes),
        "versions": versions(),
        "machine": f"{platform.machine()}, {engines.cores()} cores, Python {platform.python_version()}",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "trials": [{"hash": t.hash, **{c: getattr(t, c) for c in ("group", "variant", "sparsity", "seed")}} for t in planned.trials],
    }


def versions() -> dict[str, str]:
    """Versions of every package that has a part in the results; optional ones where they are installed."""
    found = {name: metadata.version(name) for name in PACKAGES}
    for name in OPTIONAL:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _forget(folder: Path, planned: Plan) -> None:
    if not (folder / "experiment.json").exists():
        return
    read_json(folder / "experiment.json")  # refuses to touch a folder that is not a run
    if not Runner(folder).alone():
        raise StoreError(f"{folder}: another run is at work there: wait for its end, or leave --fresh out to share the work with it")
    chains = [rounds_name(t) for t in planned.trials if t.config.prune.when == "rewind"]
    checkpoints.forget(folder, [*chains, *(name for t in planned.trials for name in (trial_name(t), dense_name(t)))])
    for trial in planned.trials:
        shutil.rmtree(folder / "trials" / trial.hash, ignore_errors=True)
        if trial.dense_hash:
            shutil.rmtree(folder / "dense" / trial.dense_hash, ignore_errors=True)


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu" or (name.startswith("cuda") and torch.cuda.is_available()):
        return name
    expected = "this torch sees no GPU; use cpu" if name.startswith("cuda") else "expected cpu, cuda or auto"
    raise ConfigError(f"device {name!r}: {expected}")
