"""Trials a second and overhead a trial of every engine, beside joblib and plain Ray; and what saturates first with 10^6 trials.

    python benchmarks/scale.py [--empty 1000] [--trials 1000] [--many 20000] [--jobs 2] [--out docs/science/scale.md]

Empty tasks do nothing; real ones are the smallest trials that there are (a network 64-4-2 on 60 digits, one epoch, everything stored), one
a task. Every contestant carries out the same function on the same tasks with the same number of processes of one thread each. Its start
(processes, imports) is told apart: the rate is that of the last nine tenths. Serial comes first and last, as machines drift.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")  # by itself Ray's workers stand back for others, which nobody else's do here

from prunescope.config import ResourcesConfig
from prunescope.experiments import engines
from prunescope.experiments.cluster import joined
from prunescope.experiments.planning import describe, plan
from prunescope.experiments.tasks import Batch, Task, batches, trial_batch, trial_done
from prunescope.results.claims import Runner
from prunescope.results.files import write_json
from prunescope.results.store import TrialFolder, read_records

SILENT = SimpleNamespace(started=lambda label: None, ended=lambda label: None)
TINY = {
    "name": "tiny",
    "sparsity": [0.05 * n for n in range(1, 11)],
    "data": {"name": "digits", "flatten": True, "classes": [0, 1], "train_size": 60, "test_size": 40},
    "model": {"name": "mlp", "widths": [4]},
    "training": {"epochs": 1},
    "measure": {"histogram_bins": 0, "epochs": "none"},
    "variant": [{"name": "init", "prune": {"when": "init"}}],
}
MACHINES, TRIALS = 1000, 10**6


@dataclass
class Row:
    """One contestant: seconds until its first result, and tasks a second over the last nine tenths."""

    name: str
    start: float
    rate: float


def nothing(task: Any) -> None:
    """The empty task."""


def ours(engine: Any, function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
    """Results of one of our engines."""
    for _, result in engine.map(function, tasks, label=str, watcher=SILENT):
        yield result


def on_ray(function: Callable[[Any], Any], tasks: list[Any], jobs: int) -> Iterator[Any]:
    """Results of our engine on a local Ray cluster."""
    with joined(None, threads=1, resources=ResourcesConfig(), jobs=jobs) as engine:
        yield from ours(engine, function, tasks)


def on_joblib(function: Callable[[Any], Any], tasks: list[Any], jobs: int) -> Iterator[Any]:
    """Results of joblib's processes (loky), as they come."""
    from joblib import Parallel, delayed

    yield from Parallel(n_jobs=jobs, return_as="generator_unordered")(delayed(function)(task) for task in tasks)


def on_plain_ray(function: Callable[[Any], Any], tasks: list[Any], jobs: int) -> Iterator[Any]:
    """Results of ray.remote over the same function, all handed over at once, as Ray's tutorial has it."""
    import ray

    ray.init("local", num_cpus=jobs, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        remote = ray.remote(function)
        left = [remote.remote(task) for task in tasks]
        while left:
            done, left = ray.wait(left, num_returns=1)
            yield from ray.get(done)
    finally:
        ray.shutdown()


def timed(name: str, results: Iterator[Any], count: int, good: Any) -> Row:
    """A contestant's row; every result has to be `good`."""
    begun, moments = time.perf_counter(), []
    for result in results:
        assert result == good, f"{name}: {result!r}"
        moments.append(time.perf_counter() - begun)
    assert len(moments) == count, f"{name}: {len(moments)} of {count} results"
    first = count // 10
    row = Row(name, moments[0], (count - 1 - first) / (moments[-1] - moments[first]))
    print(f"  {name:18s} start {row.start:6.1f} s   {row.rate:9.2f} a second   load {os.getloadavg()[0]:.1f}", flush=True)
    return row


def contest(function: Callable[[Any], Any], tasks: Callable[[str], list[Any]], count: int, jobs: int, good: Any) -> list[Row]:
    """All contestants in turn."""

    def serial(name: str) -> Row:
        return timed(name, ours(engines.Serial(), function, tasks(name)), count, good)

    rows = [serial("serial")]
    rows.append(timed("processes", ours(engines.Processes(jobs), function, tasks("processes")), count, good))
    rows.append(timed("joblib", on_joblib(function, tasks("joblib"), jobs), count, good))
    rows.append(timed("ray", on_ray(function, tasks("ray"), jobs), count, good))
    rows.append(timed("plain Ray", on_plain_ray(function, tasks("plain"), jobs), count, good))
    rows.append(serial("serial, again"))
    return rows


def real_tasks(folder: Path, count: int) -> list[Batch]:
    """`count` trials, one a task."""
    folder.mkdir(parents=True, exist_ok=True)
    return [Batch((Task(t, folder, None, "cpu"),), "off") for t in plan(TINY, {"seeds": -(-count // 10)}).trials[:count]]


def each(call: Callable[[int], object], count: int) -> float:
    """Seconds of one call on the wall, the median of ten parts of `count` calls."""
    parts = []
    for part in range(10):
        begun = time.perf_counter()
        for number in range(part * count // 10, (part + 1) * count // 10):
            call(number)
        parts.append((time.perf_counter() - begun) * 10 / count)
    return statistics.median(parts)


def folder_costs(run: Path, scratch: Path) -> dict[str, float]:
    """What a trial leaves in a run folder, and what this machine's disk takes for it."""
    trials = sorted((run / "trials").iterdir())
    files = [f for t in trials for f in t.iterdir()]
    found = {
        "files": len(files) / len(trials),
        "bytes": sum(f.stat().st_size for f in files) / len(trials),
        "blocks": sum(f.stat().st_blocks * 512 for f in files) / len(trials),
        "write": each(lambda n: write_json(scratch / "json" / f"{n}.json", {"n": n}), 500),
        "stat": each(lambda n: trials[n % len(trials)].joinpath("absent").exists(), 5000),
        "finished": each(lambda n: TrialFolder(trials[n % len(trials)]).finished(), min(1000, len(trials))),
    }
    with ThreadPoolExecutor(16) as pool:
        begun = time.perf_counter()
        list(pool.map(lambda n: write_json(scratch / "json" / f"wide-{n}.json", {"n": n}), range(500)))
        found["write, 16 at once"] = (time.perf_counter() - begun) / 500
    with Runner(scratch) as runner:

        def claimed(number: int) -> None:
            runner.claim(f"trials/{number}")
            runner.release(f"trials/{number}")

        found["claim"] = each(claimed, 500)
    paths = [t / "records.parquet" for t in trials]
    begun = time.perf_counter()
    read_records(paths)
    found["read"] = (time.perf_counter() - begun) / len(paths)
    return found


def driver_costs(many: int) -> dict[str, float]:
    """Processor seconds a trial of what the driver does before the first one runs, from `many` trials."""
    found: dict[str, float] = {}

    def clock(name: str, call: Callable[[], Any]) -> Any:
        begun = time.process_time()
        result = call()
        found[name] = (time.process_time() - begun) / many
        return result

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    planned = clock("plan", lambda: plan(TINY, {"seeds": many // 10}))
    about = clock("describe", lambda: describe(planned, [], ""))
    found["json bytes"] = len(clock("json", lambda: json.dumps(about, indent=1))) / many
    tasks = [Task(t, Path("nowhere"), None, "cpu") for t in planned.trials]
    clock("look", lambda: [trial_done(t) for t in tasks])
    clock("batches", lambda: batches(tasks, lambda t: t.kind, stack="off", jobs=MACHINES))
    found["memory"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / many
    return found


def table(rows: list[Row], jobs: int) -> list[str]:
    """A contest as a table: rates, what that is of the ideal, and the overhead a task."""
    by_name = {row.name: row for row in rows}
    alone = statistics.mean([1 / by_name["serial"].rate, 1 / by_name["serial, again"].rate])
    peers = {"processes": "joblib", "ray": "plain Ray"}
    lines = [
        "| engine | start, s | tasks a second | over serial | overhead a task, ms | over its peer |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        width = 1 if row.name.startswith("serial") else jobs
        overhead = (width / row.rate - alone) * 1000
        peer = by_name.get(peers.get(row.name, ""))
        beside = f"{row.rate / peer.rate:.2f} ({peer.name})" if peer else ""
        shown = "" if width == 1 else f"{overhead:.1f}"
        lines.append(f"| {row.name} | {row.start:.1f} | {row.rate:,.1f} | {row.rate * alone:.2f} | {shown} | {beside} |")
    return lines


def page(empty: list[Row], real: list[Row], disk: dict[str, float], driver: dict[str, float], options: argparse.Namespace) -> str:
    """The page."""
    versions = ", ".join(f"{n} {metadata.version(n)}" for n in ("ray", "joblib", "torch"))
    goes = [[row.rate for row in rows if row.name.startswith("serial")] for rows in (empty, real)]
    spread = " and ".join(f"{max(rates) / min(rates):.1f}" for rates in goes)
    head = f"""# How far it scales

Trials a second and the overhead of a trial, for each engine and for the tools that one would take otherwise. Made by
`python benchmarks/scale.py --empty {options.empty} --trials {options.trials} --out docs/science/scale.md`: tasks that do nothing, and
real trials that are as small as trials get; {options.jobs} processes of one thread, {platform.machine()}, {engines.cores()} cores shared
with other work (load {os.getloadavg()[0]:.0f} at the end), {versions}.
The serial engine's two goes differ by factors of {spread} (empty, real): ratios nearer to 1 than that say nothing.

## Empty tasks

"""
    between = """

## Real trials

Each prunes, trains and measures a network 64-4-2 on 60 digits and stores four files. "Overhead" is processes / rate less the time of
a trial in the serial engine. Where the load is above the number of cores, more processes get more of them, and it may be below 0.

"""
    return head + "\n".join(table(empty, options.jobs)) + between + "\n".join(table(real, options.jobs)) + "\n" + paper(empty, disk, driver)


def paper(empty: list[Row], disk: dict[str, float], driver: dict[str, float]) -> str:
    """10^6 trials on 1,000 machines of 32 cores, by the numbers measured."""
    rate = next(row.rate for row in empty if row.name == "ray")
    cores = MACHINES * 32
    writes = disk["files"] + 1  # trial.json is written twice
    names = 7 * writes + 6  # make the folder, create, chmod, open, sync, rename, look; a claim, its release, and looks at what is there
    wide = disk["write, 16 at once"]
    ahead = [driver[n] for n in ("plan", "describe", "json", "look", "batches")]
    served, waits, cluster = cores / rate, cores * writes * wide, cores * names / 1e4
    minutes = TRIALS / 60
    rows = [
        (
            "the driver's rate of tasks (engine ray, empty)",
            f"{rate:,.0f} a second",
            f"keeps all cores busy with trials of {served:,.0f} s or more",
        ),
        ("files of a trial", f"{disk['files']:.0f}, {disk['bytes'] / 1e3:.0f} kB", f"{disk['files'] * TRIALS / 1e6:.0f} million"),
        ("their place on the disk", f"{disk['blocks'] / 1e3:.0f} kB", f"{disk['blocks'] * TRIALS / 1e9:.0f} GB"),
        (
            "writing a file safely (beside, synced, renamed)",
            f"{disk['write'] * 1e3:.1f} ms",
            f"{writes:.0f} a trial, {names:.0f} operations on names",
        ),
        ("the same, 16 at once", f"{wide * 1e3:.1f} ms", f"all cores at once: trials of {waits:,.0f} s or more do not wait"),
        ("a claim and its release, in the driver", f"{disk['claim'] * 1e3:.2f} ms", f"{disk['claim'] * minutes:,.0f} min in all"),
        ("asking whether a trial is there; it is not", f"{disk['stat'] * 1e6:.0f} µs", f"{disk['stat'] * minutes:,.1f} min"),
        (
            "it is: its trial.json and the sum of its records",
            f"{disk['finished'] * 1e3:.2f} ms",
            f"{disk['finished'] * minutes:,.0f} min to resume",
        ),
        ("planning: trials and their hashes", f"{driver['plan'] * 1e6:.0f} µs", f"{driver['plan'] * minutes:.1f} min"),
        ("all that the driver does before the first trial", f"{sum(ahead) * 1e6:.0f} µs", f"{sum(ahead) * minutes:.1f} min"),
        ("experiment.json", f"{driver['json bytes']:.0f} bytes", f"{driver['json bytes'] * TRIALS / 1e6:,.0f} MB"),
        ("the driver's memory", f"{driver['memory'] / 1e3:.1f} kB", f"{driver['memory'] * TRIALS / 1e9:.1f} GB"),
        ("reading all records at the end", f"{disk['read'] * 1e3:.2f} ms", f"{disk['read'] * minutes:,.0f} min"),
    ]
    lines = [f"| {what} | {here} | {there} |" for what, here, there in rows]
    return f"""
## On paper: 10^6 trials on 1,000 machines

{MACHINES:,} machines of 32 cores, one trial a core: {cores:,} trials at a time. Measured here for one trial or task, and what that makes:

| what | measured here | with 10^6 trials |
| --- | ---: | ---: |
{chr(10).join(lines)}

What gives way, in this order where trials are short:

1. **The driver and the folder**, about together. One driver hands out {rate:,.0f} tasks a second here, so trials of {served:,.0f} s or more
   keep all cores busy; batches of up to 64 trials that train together divide that. The disk of this machine takes {1 / wide:,.0f} safe
   writes a second from 16 at once, so that trials of {waits:,.0f} s or more do not wait for it; a cluster's file system that does 10^4
   operations on names a second (an assumption: ask yours) keeps up with trials of {cluster:,.0f} s.
   What helps: several drivers, `--shard 1/20` to `20/20`, each with a cluster or an array job of its own, with folders of their own on
   different disks, merged afterwards by copying; or `--storage` with an object store, where files have no renames and no claims and only
   the driver writes its folder.
2. **Reading.** Resuming reads a trial.json and sums a Parquet file for every finished trial, one after another; reading all records opens
   10^6 small files. Shards divide both. A study of this size is better read from one table: `prunescope export RUN --format parquet`.
3. **Memory of the driver**, {driver["memory"] * TRIALS / 1e9:.1f} GB, and **experiment.json**,
   {driver["json bytes"] * TRIALS / 1e6:,.0f} MB, which is written twice in a run and read by all that open it: seconds.
4. **Claims** and **planning** take minutes, in a run that takes at least {TRIALS / rate / 3600:,.1f} h at the driver's rate.

What was done about it: hashes and kinds of trials are worked out once for each settings object rather than for each trial at each look
(planning, describing, looking and batching 20,000 trials went from 9.9 to 2.3 s of processor time); tasks are drawn as workers become free,
so that neither claims nor the cluster's memory hold more than is under way; the end of a task wakes the driver, which never asks all
that are under way; a dense training travels once to a machine, not once for each trial.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--empty", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--many", type=int, default=20_000, help="trials that are only planned")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="prunescope-scale-"))
    try:
        print("planning", flush=True)
        driver = driver_costs(options.many)
        print(f"{options.empty} empty tasks", flush=True)
        empty = contest(nothing, lambda name: list(range(options.empty)), options.empty, options.jobs, None)
        print(f"{options.trials} real trials", flush=True)
        real = contest(trial_batch, lambda name: real_tasks(scratch / name, options.trials), options.trials, options.jobs, [None])
        disk = folder_costs(scratch / "serial", scratch)
        text = page(empty, real, disk, driver, options)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(text)
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
