"""Tasks: trials and the trainings that they share, as a worker is given them: which go together, and carrying out a batch."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunescope.config import TrialConfig, once, value_hash
from prunescope.discretion import discreet
from prunescope.experiments import engines
from prunescope.experiments.broadcast import Broadcast
from prunescope.experiments.checkpoints import SECONDS, Checkpoints
from prunescope.experiments.execution import apart
from prunescope.experiments.levels import levels
from prunescope.experiments.storage import Storage
from prunescope.experiments.sweep import Trial
from prunescope.experiments.tickets import round_place, rounds
from prunescope.experiments.together import together
from prunescope.experiments.trial import Execution, Outcome, Steps, build_model, load_data, trial_steps
from prunescope.pruning import Masks
from prunescope.results.files import write_beside, write_json
from prunescope.results.store import TrialFolder, write_records
from prunescope.rng import repeatable
from prunescope.training import save_weights
from prunescope.training.arrangement import Way, arrange

AT_ONCE = 64  # trials of a task at most: what a killed worker loses, and by then a stack is as fast as it gets


@dataclass(frozen=True)
class Task:
    """What a worker needs for one trial, or for the dense training that several share."""

    trial: Trial
    folder: Path
    data_dir: Path | None
    device: str
    checkpoint: float = SECONDS  # seconds between checkpoints inside a training
    storage: str | None = None  # the URL where copies of checkpoints are kept, of a worker in a folder of its own

    @property
    def cache(self) -> Path | None:
        """The folder of the trial's dense training."""
        name = self.trial.dense_hash
        return None if name is None else self.folder / "dense" / name

    @property
    def kind(self) -> str:
        """What trials have in common that can train together: all but how they are pruned, whether masks hold, and their seed."""
        return _kind(self.trial.config)

    @property
    def dense_kind(self) -> str:
        """What dense trainings have in common that can go together."""
        return _dense_kind(self.trial.config)

    @property
    def trains(self) -> bool:
        """Whether the trial itself trains, beyond the dense training that it may share."""
        when = self.trial.config.prune.when
        return when in ("init", "during", "dynamic", "rewind") or (when != "never" and self.trial.config.finetune.epochs > 0)


@once
def _kind(config: TrialConfig) -> str:
    tuning = [config.finetune.model_dump(mode="json", exclude={"hold_masks"}), config.quantize.aware and config.quantize.model_dump()]
    rounds = config.prune.rounds if config.prune.when in ("iterative", "rewind") else 0
    return json.dumps([_dense_kind(config), tuning, config.prune.when, rounds, config.prune.rate, config.prune.rewind], sort_keys=True)


@once
def _dense_kind(config: TrialConfig) -> str:
    return json.dumps({s: getattr(config, s).model_dump(mode="json") for s in ("data", "model", "training", "measure")}, sort_keys=True)


@dataclass(frozen=True)
class Batch:
    """Tasks that one worker carries out together; `stack` is handed on to the training."""

    tasks: tuple[Task, ...]
    stack: str | int

    @property
    def label(self) -> str:
        """The first trial's label and how many more there are."""
        more = len(self.tasks) - 1
        return self.tasks[0].trial.label + (f" and {more} more" if more else "")


def trial_name(trial: Trial) -> str:
    """What checkpoints call a trial."""
    return f"trials/{trial.hash}"


def dense_name(trial: Trial) -> str:
    """What checkpoints call the training that a trial shares with others."""
    return f"dense/{trial.dense_hash}"


def rounds_name(trial: Trial) -> str:
    """What checkpoints call the rounds that a trial shares with others: the same ones may be asked for at other levels."""
    return f"rounds/{trial.rounds_hash}-{value_hash(ticket_levels(trial))}"


def trial_done(task: Task) -> bool:
    """Whether the trial is finished."""
    return _place(task).finished()


def dense_done(task: Task) -> bool:
    """Whether the training that the trial shares is there."""
    return task.cache is None or (task.cache / "records.parquet").exists()


def rounds_done(task: Task) -> bool:
    """Whether the rounds that the trial shares are there, the last of them."""
    wanted = ticket_levels(task.trial)
    return not wanted or task.cache is None or (round_place(task.cache, task.trial, wanted) / "records.parquet").exists()


def batches(
    tasks: Sequence[Task],
    kind: Callable[[Task], str | None],
    *,
    stack: str | int,
    jobs: int,
    before: Sequence[Collection[str]] = (),
    name: Callable[[Trial], str] = trial_name,
    apart: Callable[[TrialConfig], str | None] = apart,
) -> tuple[list[Batch], list[str]]:
    """`tasks` in batches of one kind each (None: alone), small enough to keep `jobs` workers busy; and how each kind is trained.

    before   what `name` calls the trials that trained together when the run was killed: they go on together, so that the same numbers come
    apart    says why trials of these settings cannot train together, if so
    """
    groups: dict[str, list[Task]] = {}
    for number, task in enumerate(tasks):
        groups.setdefault(kind(task) or f"alone {number}", []).append(task)
    found, texts = [], []
    for group in groups.values():
        size = 1
        if len(group) > 1 and stack != "off":
            together, text = _fitting(group[0], len(group), stack, apart(group[0].trial.config))
            texts.append(f"{group[0].trial.label} and {len(group) - 1} more: {text}")
            size = min(AT_ONCE, -(-len(group) // jobs)) if together else 1
        for names in before if size > 1 else ():
            if old := tuple(t for t in group if name(t.trial) in names):
                found.append(Batch(old, stack))
                group = [t for t in group if t not in old]
        found += [Batch(tuple(group[i : i + size]), stack) for i in range(0, len(group), size)]
    return found, texts


def _fitting(task: Task, count: int, stack: str | int, apart: str | None) -> tuple[bool, str]:
    """Whether `count` trials like `task` are best trained together, and how."""
    if (when := task.trial.config.prune.when) in ("during", "dynamic"):
        return False, f'one by one: with prune.when = "{when}" masks change while training'
    data = load_data(task.trial.config.data, task.trial.seed, task.data_dir)
    model = build_model(task.trial, data)
    count = min(count, AT_ONCE)
    plan = arrange([model] * count, [data.train] * count, task.trial.config.training, stack=stack, apart=apart)
    return plan.way is not Way.ALONE, plan.text


def _executions(batch: Batch, listener: Any) -> list[Execution]:
    """One for each task; the first brings the listener and lends the others what is made of the data."""
    found: list[Execution] = []
    for task in batch.tasks:
        listeners = [listener] if listener and not found else []
        twin = found[0] if found else None
        place = _place(task).folder
        found.append(Execution(task.trial, data_dir=task.data_dir, device=task.device, listeners=listeners, twin=twin, place=place))
    return found


def _broadcast(batch: Batch, works: Sequence[Execution], name: Callable[[Trial], str]) -> Broadcast:
    return Broadcast(batch.tasks[0].folder, {name(t.trial): t.trial for t in batch.tasks}, works)


def _checkpoints(batch: Batch, works: Sequence[Execution], names: Sequence[str]) -> Checkpoints:
    first = batch.tasks[0]
    storage = None if first.storage is None else Storage(first.storage)
    found = Checkpoints(first.folder, {id(w.model): n for w, n in zip(works, names, strict=True)}, first.checkpoint, storage)
    found.begin()
    return found


def dense_batch(batch: Batch, listener: Any = None) -> list[Exception | None]:
    """Carry out the dense trainings that trials share; the error of each, or None."""
    works = _executions(batch, listener)
    checkpoints = _checkpoints(batch, works, [dense_name(t.trial) for t in batch.tasks])
    steps = [w.dense(t.cache) for w, t in zip(works, batch.tasks, strict=True)]
    broadcast = _broadcast(batch, works, dense_name)
    with repeatable(batch.tasks[0].device):
        errors = together(steps, stack=batch.stack, checkpoints=checkpoints, watchers=[broadcast])
    broadcast.done()
    if not any(errors):
        checkpoints.done()
    return errors


def deepest(tasks: Sequence[Task]) -> list[Task]:
    """Of the trials that share rounds of pruning and rewinding, the one that goes furthest: it does the rounds for all of them."""
    found: dict[str, Task] = {}
    for task in tasks:
        if task.trial.config.prune.when == "rewind":
            found.setdefault(task.trial.rounds_hash, task)
            best = found[task.trial.rounds_hash].trial
            if len(ticket_levels(task.trial)) > len(ticket_levels(best)):
                found[task.trial.rounds_hash] = task
    return list(found.values())


def ticket_levels(trial: Trial) -> list[float]:
    """The levels of the rounds that a trial shares: for a control all but the last, which it trains on its own."""
    found = levels(trial.config.prune, trial.sparsity or 0.0)
    return found if trial.config.prune.tickets == "winning" else found[:-1]


def rounds_batch(batch: Batch, listener: Any = None) -> list[Exception | None]:
    """Carry out the rounds that trials share; the error of each, or None."""

    def steps(work: Execution, task: Task) -> Steps[None]:
        yield from work.dense(task.cache)
        yield from rounds(work, task.cache, ticket_levels(task.trial))

    works = _executions(batch, listener)
    checkpoints = _checkpoints(batch, works, [rounds_name(t.trial) for t in batch.tasks])
    broadcast = _broadcast(batch, works, rounds_name)
    chains = [steps(w, t) for w, t in zip(works, batch.tasks, strict=True)]
    with repeatable(batch.tasks[0].device):
        errors = together(chains, stack=batch.stack, checkpoints=checkpoints, watchers=[broadcast])
    broadcast.done()
    if not any(errors):
        checkpoints.done()
    return errors


def trial_batch(batch: Batch, listener: Any = None) -> list[Exception | None]:
    """Carry out trials and store them; the error of each, or None."""
    began = time.perf_counter()
    for task in batch.tasks:
        _place(task).sweep()
        write_json(_place(task).status_file, _status(task, "running"))
    works = _executions(batch, listener)
    checkpoints = _checkpoints(batch, works, [trial_name(t.trial) for t in batch.tasks])
    steps = [trial_steps(work, task.cache) for work, task in zip(works, batch.tasks, strict=True)]
    broadcast = _broadcast(batch, works, trial_name)
    with repeatable(batch.tasks[0].device):
        outcomes = together(steps, stack=batch.stack, checkpoints=checkpoints, watchers=[broadcast])
    seconds = (time.perf_counter() - began) / len(batch.tasks)
    errors = [_stored(task, outcome, seconds) for task, outcome in zip(batch.tasks, outcomes, strict=True)]
    broadcast.done()
    if not any(errors):
        checkpoints.done()
    return errors


def _stored(task: Task, outcome: Outcome | Exception, seconds: float) -> Exception | None:
    """Write what a trial leaves; trial.json comes last and says that it is finished."""
    if isinstance(outcome, Exception):
        return outcome
    place = _place(task)
    write_beside(place.weights_file, lambda p: save_weights(outcome.model, p))
    write_beside(place.masks_file, (outcome.masks or Masks({})).save)
    write_records(place.records_file, outcome.records)
    write_json(place.status_file, {**_status(task, "finished"), "seconds": round(seconds, 3), "files": place.seal()})
    return None


def fail(task: Task, error: Exception) -> None:
    """Store why a trial failed."""
    told = {"reason": discreet(engines.reason(error)), "traceback": discreet("".join(traceback.format_exception(error)))}
    write_json(_place(task).status_file, {**_status(task, "failed"), **told})


def _place(task: Task) -> TrialFolder:
    return TrialFolder(task.folder / "trials" / task.trial.hash)


def _status(task: Task, status: str) -> dict[str, Any]:
    return {"status": status, "trial": task.trial.label, "values": task.trial.values}
