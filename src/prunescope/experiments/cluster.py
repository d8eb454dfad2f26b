"""The engine "ray": tasks on the machines of a Ray cluster (extra `ray`), begun again elsewhere when a worker or its machine is lost.

    driver                                      worker, on any machine
    draws a task, sends it with an Errand  ->   sees the run folder: works in it
                                                does not: works in a folder of its own, and hands over what is finished
    writes what came, trial.json last      <-   through the cluster, or through a storage that both reach (`--storage`)

Only as many tasks are drawn as the cluster has room for, and a few more: 10^6 of them need not be in memory.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from prunescope import extras
from prunescope.config import ResourcesConfig
from prunescope.experiments import checkpoints
from prunescope.experiments.engines import Watcher, WorkerDiedError, cores
from prunescope.experiments.storage import Storage, contents, unpacked
from prunescope.experiments.tasks import Batch, Task
from prunescope.experiments.transport import Delivery, Errand, carried, sendable, versions
from prunescope.results.files import write_beside
from prunescope.results.store import TrialFolder
from prunescope.types import ConfigError

T = TypeVar("T")
R = TypeVar("R")

DEATHS = 4  # of a task's workers, its own fault perhaps; lost machines are not
LOSSES = 20  # of machines under one task
ANSWER = 10.0  # seconds that a cluster has to answer
CAPACITY = 2.0  # seconds between looks at what the cluster has room for
WRITERS = 16  # threads that write what comes: each file waits for the disk or the network most of the time
STORE = 256 * 2**20  # bytes of a local cluster's memory for what tasks hand over, which is little where all see the same disk


@dataclass
class _Job:
    """A task that is under way: how often its worker or machine was lost."""

    task: Any
    deaths: int = 0
    losses: int = 0


class Cluster:
    """Tasks on a Ray cluster that this process has joined; `jobs` of them at a time at most (None: what there is room for)."""

    here = False

    def __init__(self, ray: Any, *, threads: int, resources: ResourcesConfig, jobs: int | None = None, storage: str | None = None) -> None:
        self._ray, self._resources, self._most, self._storage = ray, resources, jobs, storage
        self._errand = Errand(threads=threads, place=os.getcwd(), versions=versions(), storage=storage)
        options = {"num_cpus": resources.cpus, "num_gpus": resources.gpus, "memory": resources.memory}
        self._remote = ray.remote(_on_worker).options(max_retries=0, runtime_env=environment(threads), **options)
        self._tokens: dict[Path, str] = {}
        self._parcels: dict[Path, Any] = {}
        self._blind = False  # whether some worker does not see the run folder
        self._slots, self._looked = 0, float("-inf")

    @property
    def jobs(self) -> int:
        """How many tasks the cluster has room for now."""
        now = time.monotonic()
        if now - self._looked > CAPACITY:
            self._slots, self._looked = sum(room(node, self._resources) for node in self._ray.nodes()), now
        return max(1, self._slots if self._most is None else min(self._slots, self._most))

    def map(
        self, function: Callable[[T], R], tasks: Iterable[T], *, label: Callable[[T], str], watcher: Watcher
    ) -> Iterator[tuple[T, R | Exception]]:
        """`function` of every task as they end; one whose worker or machine is lost is begun again on what is left."""
        source, waiting, ended = iter(tasks), deque[_Job](), SimpleQueue[tuple[_Job, Any]]()
        flying: dict[int, tuple[_Job, Any]] = {}
        more, bringing = True, 0
        with ThreadPoolExecutor(WRITERS, "prunescope results") as writers:
            try:
                while True:
                    while len(flying) < self._ahead() and bringing < 4 * WRITERS and (waiting or more):
                        if waiting:
                            job = waiting.popleft()
                        elif (drawn := next(source, _END)) is _END:
                            more = False
                            continue
                        else:
                            job = _Job(drawn)
                            watcher.started(label(job.task))
                        flying[id(job)] = job, self._send(function, job, ended)
                    if not flying and not bringing:
                        return
                    with contextlib.suppress(Empty):
                        job, came = ended.get(timeout=CAPACITY)
                        if flying.pop(id(job), None) is None:  # it had arrived before, and is written now
                            bringing, result = bringing - 1, came.exception() or came.result()
                        else:
                            result = self._arrived(job, came)
                        if result is _AGAIN:
                            waiting.append(job)
                        elif isinstance(result, Delivery):
                            bringing += 1
                            writing = writers.submit(self._bring, job.task.tasks[0].folder, result)
                            writing.add_done_callback(lambda future, job=job: ended.put((job, future)))  # type: ignore[misc]
                        else:
                            watcher.ended(label(job.task))
                            yield job.task, result
            finally:
                for _, reference in flying.values():
                    with contextlib.suppress(Exception):
                        self._ray.cancel(reference, force=True)

    def _ahead(self) -> int:
        """How many tasks are handed to the cluster: a few more than it has room for, so that no worker waits for the driver."""
        return self.jobs + (0 if self._most is not None else max(2, self.jobs // 4))

    def _send(self, function: Callable[[Any], Any], job: _Job, ended: SimpleQueue[tuple[_Job, Any]]) -> Any:
        errand, task = replace(self._errand, again=bool(job.deaths or job.losses)), job.task
        if isinstance(task, Batch):
            folder = task.tasks[0].folder.absolute()
            task = replace(task, tasks=tuple(_absolute(t) for t in task.tasks))
            parcels = self._packed(task.tasks) if self._blind else None
            errand = replace(errand, folder=folder, token=self._token(folder), parcels=parcels)
        reference = self._remote.remote(function, task, errand)
        reference.future().add_done_callback(lambda future: ended.put((job, future)))
        return reference

    def _arrived(self, job: _Job, future: Any) -> Any:
        """What a task came to: its result or exception, a Delivery that has to be brought into the run folder first, or _AGAIN."""
        error = future.exception()
        if error is not None:
            return self._lost(job, error)
        delivery: Delivery = future.result()
        if delivery.lacking:
            self._blind = True
            return _AGAIN
        return delivery if delivery.files or delivery.stored else delivery.result

    def _bring(self, folder: Path, delivery: Delivery) -> Any:
        """Write what came into the run folder; the task's result."""
        unpacked(folder, delivery.files)
        if delivery.stored and self._storage is not None:
            Storage(self._storage).fetch_all(folder, delivery.stored)
        return delivery.result

    def _lost(self, job: _Job, error: BaseException) -> Any:
        kinds = self._ray.exceptions
        if isinstance(error, kinds.RayTaskError) or not isinstance(error, kinds.RayError):
            cause = getattr(error, "cause", None) or error
            return WorkerDiedError(f"the worker could not begin: {_short(cause)}; install the same prunescope on all machines")
        if isinstance(error, kinds.NodeDiedError | kinds.ObjectLostError):
            job.losses += 1
        else:
            job.deaths += 1
        if job.deaths < DEATHS and job.losses < LOSSES:
            return _AGAIN
        many = f"{job.deaths} of its workers died" + (f" and {job.losses} machines were lost" if job.losses else "")
        return WorkerDiedError(f"{many} while at it (killed, or out of memory: {type(error).__name__})")

    def _token(self, folder: Path) -> str:
        """The name of a file in the run folder that tells those who see it from those who have another folder of that name."""
        if folder not in self._tokens:
            name = f".seen-{secrets.token_hex(16)}"
            write_beside(folder / name, lambda p: p.write_bytes(b""))
            self._tokens[folder] = name
        return self._tokens[folder]

    def _packed(self, tasks: Sequence[Task]) -> dict[str, Any]:
        """The dense trainings of `tasks` in the cluster's memory, once each."""
        found = {}
        for cache in {t.cache for t in tasks} - {None}:
            assert cache is not None
            files = {p.name for p in cache.rglob("*")}
            if "records.parquet" in files:
                known, reference = self._parcels.get(cache, (None, None))
                if known != files:  # rounds of pruning and rewinding are added to it
                    reference = self._ray.put(contents(cache.parent.parent, f"dense/{cache.name}"))
                    self._parcels[cache] = files, reference
                found[cache.name] = reference
        return found

    def fetch(self, tasks: Sequence[Task]) -> int:
        """Bring what the storage has of `tasks` into the run folder, where it is not there yet; how many folders came.

        Checkpoints come too: they say who trained together when a run was killed, and will again.
        """
        if self._storage is None or not tasks:
            return 0
        storage, folder = Storage(self._storage), tasks[0].folder
        for name in storage.names(checkpoints.FOLDER):
            if name.endswith(".safetensors") and not (folder / name).exists():
                storage.bring(folder, name)
        trials, dense = storage.names("trials"), storage.names("dense")
        missing = [t for t in tasks if f"trials/{t.trial.hash}" in trials and not TrialFolder(folder / "trials" / t.trial.hash).finished()]
        came = storage.fetch_all(folder, [f"trials/{t.trial.hash}" for t in missing])
        caches = {t.cache for t in tasks if t.cache is not None and not TrialFolder(folder / "trials" / t.trial.hash).finished()}
        wanted = [f"dense/{c.name}" for c in caches if c is not None and not (c / "records.parquet").exists()]
        return came + storage.fetch_all(folder, [name for name in wanted if name in dense])

    def forget(self) -> None:
        """Remove the checkpoints in the storage: a training that is done anew must not go on from one."""
        if self._storage is not None:
            storage = Storage(self._storage)
            for name in storage.names(checkpoints.FOLDER):
                storage.drop(name)

    def close(self) -> None:
        """Take back what was put into run folders."""
        for folder, name in self._tokens.items():
            with contextlib.suppress(OSError):
                (folder / name).unlink(missing_ok=True)


_END, _AGAIN = object(), object()


def _on_worker(function: Callable[[Any], Any], task: Any, errand: Errand) -> Delivery:
    ray = importlib.import_module("ray")
    delivery = carried(function, task, errand, ray.get, ray.get_runtime_context().get_node_id()[:8])
    return replace(delivery, result=sendable(delivery.result))


def _absolute(task: Task) -> Task:
    return replace(task, folder=task.folder.absolute(), data_dir=None if task.data_dir is None else task.data_dir.absolute())


def environment(threads: int) -> dict[str, dict[str, str]]:
    """What workers are started with: as many threads in every library, and where data lie by default."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    places = {name: os.environ[name] for name in ("PRUNESCOPE_DATA",) if name in os.environ}
    return {"env_vars": {**dict.fromkeys(names, str(threads)), **places}}


def room(node: Any, resources: ResourcesConfig) -> int:
    """How many workers a machine has room for.

    >>> room({"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0, "memory": 10e9}}, ResourcesConfig(cpus=2, gpus=1, memory=10**9))
    2
    """
    if not node["Alive"]:
        return 0
    asked = {"CPU": resources.cpus, "GPU": resources.gpus, "memory": resources.memory}
    return int(min(node["Resources"].get(name, 0.0) // wanted for name, wanted in asked.items() if wanted))


@contextlib.contextmanager
def joined(
    address: str | None, *, threads: int, resources: ResourcesConfig, jobs: int | None = None, storage: str | None = None
) -> Iterator[Cluster]:
    """The cluster at `address` (HOST:PORT or "auto"), or a local one started for the while (None).

    A connection that this process has already (`ray.init`) is used and stays. Raises MissingExtraError without Ray, ConfigError where
    nothing answers, where the versions differ, and where no machine has the resources.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = extras.load("ray", extra="ray", purpose="--engine ray")
    if jobs is not None and jobs < 1:
        raise ConfigError(f"jobs {jobs}: expected at least 1")
    ours = not ray.is_initialized()
    if ours:
        _begin(ray, address, (jobs or max(1, cores() // resources.cpus)) * resources.cpus)
        jobs = jobs if address else None  # a local cluster is as large as that, and may have a few tasks waiting
    elif address not in (None, "auto", found := str(ray.get_runtime_context().gcs_address)):
        raise ConfigError(f"--engine ray={address}: this process is connected to another cluster, {found}: ray.shutdown() ends that")
    try:
        _roomy(ray, resources, wait=address is not None)
        cluster = Cluster(ray, threads=threads, resources=resources, jobs=jobs, storage=storage)
        try:
            yield cluster
        finally:
            cluster.close()
    finally:
        if ours:
            with extras.quiet():
                ray.shutdown()


def _begin(ray: Any, address: str | None, cpus: int) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    with contextlib.suppress(AttributeError, ImportError):  # Ray prints a paragraph for each worker that dies; we count them
        setattr(importlib.import_module("ray._private.worker"), "print_to_stdstream", lambda *a, **k: None)  # noqa: B010
    if address is None:
        ray.init("local", num_cpus=cpus, include_dashboard=False, object_store_memory=STORE, **quiet)
        return
    if address != "auto":
        answering(address)
    try:
        ray.init(address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        hint = "start one with `ray start --head`, or give its address" if isinstance(error, ConnectionError) else ""
        raise ConfigError(f"--engine ray={address}: {_short(error)} {hint}".rstrip()) from error


def answering(address: str, seconds: float = ANSWER) -> None:
    """Raise ConfigError unless a program that speaks as Ray's does answers at HOST:PORT; Ray itself would try for minutes, then exit."""
    host, colon, port = address.rpartition(":")
    if "//" in address or not colon or not port.isdigit():
        raise ConfigError(f"--engine ray={address}: expected HOST:PORT of the cluster's head (port 6379 unless it was changed) or auto")
    hint = f"is the head there, started with `ray start --head --port={port}`, and reachable from here?"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=seconds) as line:
            if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
                return
            line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))  # gRPC is HTTP/2: hello, no settings
            answer = line.recv(9)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--engine ray={address}: nobody answers ({_short(error)}): {hint}") from error
    if len(answer) < 4 or answer[3] != 4:
        raise ConfigError(f"--engine ray={address}: what answers there is no Ray cluster: {hint}")


def _roomy(ray: Any, resources: ResourcesConfig, *, wait: bool) -> None:
    """Refuse resources that no machine has; a cluster that somebody else runs may be about to grow, so there it is only said."""
    nodes = ray.nodes()
    if any(room(node, resources) for node in nodes):
        return
    most = {n: max((node["Resources"].get(n, 0.0) for node in nodes if node["Alive"]), default=0.0) for n in ("CPU", "GPU", "memory")}
    has = f"{most['CPU']:g} cores, {most['GPU']:g} GPUs and {most['memory'] / 1e9:.1f} GB"
    asked = f"resources.cpus = {resources.cpus}, gpus = {resources.gpus:g}, memory = {(resources.memory or 0) / 1e9:g} GB"
    if not wait:
        raise ConfigError(f"{asked}: no machine of the cluster has all that at once; the most that one has is {has}")
    logging.getLogger("prunescope").warning("%s: no machine has that yet (the most is %s); waiting for one that does", asked, has)


def _short(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def address_of(engine: str) -> str | None:
    """The address in "ray=ADDRESS", None for a local cluster ("ray"). Raises ConfigError where it is empty.

    >>> address_of("ray"), address_of("ray=head:6379")
    (None, 'head:6379')
    """
    _, equals, address = engine.partition("=")
    if equals and not address.strip():
        raise ConfigError(f"engine {engine!r}: expected ray, or ray=HOST:PORT of a cluster that is running, or ray=auto")
    return address.strip() or None
