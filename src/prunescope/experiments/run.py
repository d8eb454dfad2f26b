"""`run`: an experiment from its config to a run folder with records and a report; finished trials are never done again."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from prunescope.experiments import checkpoints, engines
from prunescope.experiments.checkpoints import SECONDS
from prunescope.experiments.cluster import Cluster, address_of, joined
from prunescope.experiments.memory import fit, limit_of, needs_of
from prunescope.experiments.passes import carry_out
from prunescope.experiments.planning import Plan, check, describe, in_shard, plan, reproduce
from prunescope.experiments.tasks import Task, dense_name, rounds_name, trial_done, trial_name
from prunescope.integrations.tracking import tracked
from prunescope.results.claims import LEASE, refuse_others
from prunescope.results.files import check_folder, read_json, write_beside, write_json
from prunescope.results.store import Run
from prunescope.training.arrangement import asked
from prunescope.types import ConfigError, StoreError


def run(
    source: str | Path | Mapping[str, Any] | Plan = "quickstart",
    *,
    overrides: Mapping[str, Any] | Sequence[tuple[str, Any]] = (),
    out: str | Path | None = None,
    data_dir: str | Path | None = None,
    engine: str = "processes",
    jobs: int | None = None,
    threads: int | None = None,
    device: str = "cpu",
    stack: str | int = "auto",
    checkpoint: float = SECONDS,
    fresh: bool = False,
    quiet: bool = True,
    log: Sequence[str] | str = (),
    finish: Callable[[Run], object] | None = None,
    shard: str | None = None,
    lease: float = LEASE,
    storage: str | None = None,
    memory: str | int = "auto",
    allow: Sequence[str] = (),
) -> Run:
    """Run every trial of an experiment that is not finished yet and return the Run.

    source      a preset's name, a TOML file or a mapping; overrides: {"training.epochs": 3, ...}
    out         the run folder (default runs/<name>); data_dir: where data sets lie
    engine      "processes" (one worker a core, or `jobs`), "serial", "ray" (a local cluster) or "ray=HOST:PORT" (one that is running);
                `threads` a worker (default: the config's resources.cpus); device: "cpu", "cuda" or "auto"
    stack       trials that train together: "auto" (where it is faster and fits), "on", "off", or how many at most
    checkpoint  seconds between checkpoints inside a training: what a killed run loses at most, but for the epoch at work; 0: every epoch
    fresh       forget finished trials of this experiment first
    log         "tensorboard" or "mlflow" (extra `track`), also "tensorboard=DIR" and "mlflow=URI": records are handed on as they come
    finish      called with the Run at the end (the command line writes the report there)
    shard       "3/20": only the third of twenty parts of the trials, by their hashes; parts merge by copying their folders together
    lease       seconds after which a run on another machine that shows no sign of life loses the trials that it was at
    storage     of engine "ray": a URL (s3://bucket/x, file:///...) by which finished trials travel; those that lie there are not done again
    memory      what all workers together may take: "auto" (nine tenths of what is free), "8GB" or "off"; if little, fewer train at once
    allow       functions "module:function" of one's own, or modules, that a TOML file may name; a mapping and overrides may name any

    Several runs may work in one folder, on one machine or on many: each trial is done by the run that claims it (results/claims.py).
    Raises ConfigError and DataError before anything runs, StoreError when results cannot be written. A trial that fails is a row.
    """
    limit = limit_of(memory)
    planned = plan(source, overrides, allow=allow)
    _refused(planned, stack, checkpoint, lease)
    folder = Path(out) if out is not None else Path("runs") / planned.experiment.name
    directory = Path(data_dir) if data_dir is not None else None
    tasks = _tasks(planned, shard, folder, directory, device=device, engine=engine, checkpoint=checkpoint)
    tracking = tracked([log] if isinstance(log, str) else log, folder)
    notes = check(planned, directory) if planned.notes is None else planned.notes
    chosen = opened(engine, planned, jobs=jobs, threads=threads, storage=storage, tasks=[] if fresh else tasks)
    with tracking, chosen as working:
        stack = within([t for t in tasks if fresh or not trial_done(t)], working, limit, stack, quiet=quiet)
        if fresh:  # not before all that may be refused was asked
            _forget(folder, planned, working)
        about = describe(planned, [*notes, *check_folder(folder)], planned.command or reproduce(source, overrides, folder, planned))
        with _clocked(folder, about, 0.0 if fresh else _spent(folder)):
            carry_out(tasks, working, stack=stack, quiet=quiet, lease=lease)
    return _finished(folder, finish)


def _finished(folder: Path, finish: Callable[[Run], object] | None) -> Run:
    found = Run(folder)
    if finish is not None:
        finish(found)
    return found


def _tasks(
    planned: Plan, shard: str | None, folder: Path, directory: Path | None, *, device: str, engine: str, checkpoint: float
) -> list[Task]:
    """What workers are given for the trials of a shard."""
    where = _device(device, gpus=planned.experiment.resources.gpus if engine.partition("=")[0] == "ray" else None)
    return [Task(t, folder, directory, where, checkpoint) for t in in_shard(planned.trials, shard)]


def _refused(planned: Plan, stack: str | int, checkpoint: float, lease: float) -> None:
    asked(stack, 1)
    if planned.experiment.search is not None and planned.notes is None:
        raise ConfigError("this config has a section [search]: `prunescope search` carries it out, and `-s search=null` runs it without")
    if not checkpoint >= 0:
        raise ConfigError(f"checkpoint {checkpoint!r}: expected the seconds between checkpoints, 0 for every epoch, inf for none")
    if not lease > 0:
        raise ConfigError(f"lease {lease!r}: expected seconds above 0")


@contextlib.contextmanager
def _clocked(folder: Path, about: Mapping[str, Any], spent: float) -> Iterator[None]:
    """experiment.toml and experiment.json before the work, and the latter after it with the seconds that all of it took."""
    write_beside(folder / "experiment.toml", lambda p: p.write_text(about["toml"], encoding="utf-8"))
    write_json(folder / "experiment.json", {**about, "wall_seconds": spent})
    began = time.perf_counter()
    yield
    write_json(folder / "experiment.json", {**about, "wall_seconds": round(spent + time.perf_counter() - began, 1)})


def within(missing: Sequence[Task], engine: object, limit: int | None, stack: str | int, *, quiet: bool) -> str | int:
    """The stack with which what is missing fits into `limit` bytes of this machine; the engine's workers are made fewer where they must."""
    if limit is None or not isinstance(engine, engines.Serial | engines.Processes):  # other engines have machines of their own
        return stack
    needs = needs_of([t.trial for t in missing], missing[0].data_dir if missing else None, stack=stack)
    found = fit(needs, limit, jobs=engine.jobs, stack=stack, trials=len(missing))
    if found.text is not None:
        engine.jobs = found.jobs
        if not quiet:
            print(f"prunescope: {found.text}", file=sys.stderr)
    return found.stack


def _spent(folder: Path) -> float:
    """Seconds on the clock that earlier calls of the same run took; of a file that a kill cut short, none."""
    with contextlib.suppress(StoreError, TypeError, ValueError):
        return float(read_json(folder / "experiment.json").get("wall_seconds", 0.0))
    return 0.0


def _forget(folder: Path, planned: Plan, working: engines.Engine) -> None:
    if (folder / "experiment.json").exists():
        read_json(folder / "experiment.json")  # refuses to touch a folder that is not a run
        refuse_others(folder)
        chains = [rounds_name(t) for t in planned.trials if t.config.prune.when == "rewind"]
        checkpoints.forget(folder, [*chains, *(name for t in planned.trials for name in (trial_name(t), dense_name(t)))])
        for trial in planned.trials:
            shutil.rmtree(folder / "trials" / trial.hash, ignore_errors=True)
            if trial.dense_hash:
                shutil.rmtree(folder / "dense" / trial.dense_hash, ignore_errors=True)
    if isinstance(working, Cluster):
        working.forget()


@contextlib.contextmanager
def opened(
    name: str, planned: Plan, *, jobs: int | None, threads: int | None, storage: str | None, tasks: Sequence[Task]
) -> Iterator[engines.Engine]:
    """The engine called `name`, for the while; with a storage, what it has of `tasks` is brought first."""
    resources = planned.experiment.resources
    threads = threads or resources.cpus
    place = None if storage is None else f"{storage.rstrip('/')}/{planned.experiment.name}"
    if name.partition("=")[0] == "ray":
        with joined(address_of(name), threads=threads, resources=resources, jobs=jobs, storage=place) as cluster:
            cluster.fetch(tasks)
            yield cluster
        return
    if storage is not None:
        raise ConfigError(f"--storage {storage}: goes with --engine ray; engine {name} writes into the run folder (--out)")
    fitting = max(1, engines.cores() // resources.cpus)
    yield engines.engine(name, jobs=fitting if jobs is None and name == "processes" else jobs, threads=threads)


def _device(name: str, *, gpus: float | None = None) -> str:
    """The device of every trial; `gpus` that a worker on a cluster has (None: trials stay on this machine, whose torch is asked)."""
    if gpus is not None:
        if name.startswith("cuda") and not gpus:
            raise ConfigError(f"device {name!r} on a cluster: say how many GPUs a worker holds, e.g. -s resources.gpus=1")
        if name == "auto" or name == "cpu" or name.startswith("cuda"):
            return name if name != "auto" else "cuda" if gpus else "cpu"
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu" or (name.startswith("cuda") and torch.cuda.is_available()):
        return name
    expected = "this torch sees no GPU; use cpu" if name.startswith("cuda") else "expected cpu, cuda or auto"
    raise ConfigError(f"device {name!r}: {expected}")
