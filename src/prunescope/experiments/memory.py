"""Memory: what a worker needs for a trial, what this machine has left, and how many trials at once that allows.

The estimate is an upper bound by parts, which are told where a run is refused: the process itself, the data, weights with gradients and the
optimiser's numbers, what the backward pass keeps of the largest batch, what evaluation and the recorder hold. One small forward pass a
network measures the last two; docs/how-to/memory.md has the estimates beside measured peaks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.config import TrialConfig
from prunescope.experiments.execution import build_model, load_data
from prunescope.experiments.recorder import TRAIN_SAMPLES
from prunescope.experiments.sweep import Trial
from prunescope.measures.capture import capture
from prunescope.measures.quality import as_tensor, largest_value, loss_function, rows_at_once
from prunescope.training.arrangement import Way, arrange
from prunescope.training.loop import batch_size
from prunescope.training.optim import build as build_optimizer
from prunescope.types import ConfigError, Dataset, Split

BASE = 600_000_000  # a worker with torch, pandas, scikit-learn and duckdb imported and its first records written: 550 MB measured
SLACK = 1.25  # of all that comes and goes: the allocator keeps some of what was freed, in pieces that do not fit what comes next
TENSORS = 4  # of the largest layer's size that a pass holds at a time beside what it keeps: input, output, slopes, workspace
ROOM = 0.9  # of what is available, the rest is left to others and to what no estimate knows
ROWS = 4  # of the pass that is measured
LOADED = 4  # data sets that a worker keeps at a time
AT_ONCE = 64  # networks of a task at most
CALIBRATION = 128  # rows of a batch that criteria look at
UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}


@dataclass(frozen=True)
class Need:
    """Bytes that a worker needs: `shared` whatever it trains, `each` for every network that trains at the same time; both by part.

    `together` is how many networks would train at the same time if memory were no matter.
    """

    shared: Mapping[str, int]
    each: Mapping[str, int]
    together: int = 1

    def total(self, stack: int = 1) -> int:
        """Bytes of a worker that trains `stack` networks at once."""
        return sum(self.shared.values()) + stack * sum(self.each.values())

    @property
    def text(self) -> str:
        """The sum of one network, spelled out, largest parts first."""
        parts = sorted({**self.shared, **self.each}.items(), key=lambda part: -part[1])
        return f"{' + '.join(f'{readable(count)} {name}' for name, count in parts if count >= 10**5)} = {readable(self.total())}"


@dataclass(frozen=True)
class Fit:
    """How many workers and networks at once fit, and in one line what was made less; None where nothing had to be."""

    jobs: int
    stack: str | int
    text: str | None


def limit_of(memory: str | int | None) -> int | None:
    """The bytes that a run may take: what "8GB" says, nine tenths of what is available for "auto", None for "off".

    >>> limit_of("8GB"), limit_of("1.5 GiB"), limit_of("off")
    (8000000000, 1610612736, None)
    """
    if memory in (None, "off"):
        return None
    if memory == "auto":
        there = available()
        return None if there is None else int(ROOM * there)
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?b)?\s*", str(memory).lower())
    count = int(float(found[1]) * UNITS[found[2] or ""]) if found else 0
    if count < 1:
        raise ConfigError(f"memory {memory!r}: expected auto, off or a size such as 8GB or 500MB")
    return count


def readable(count: float) -> str:
    """Bytes in a decimal unit.

    >>> readable(520_000_000), readable(2.5e9)
    ('520 MB', '2.5 GB')
    """
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def available(root: Path = Path("/")) -> int | None:
    """Bytes that may still be taken: the least of what the kernel and the control groups (version 1 and 2) leave; None where none tells."""
    found = []
    meminfo = _text(root / "proc/meminfo")
    if kept := re.search(r"^MemAvailable:\s*(\d+) kB", meminfo, re.MULTILINE):
        found.append(int(kept[1]) << 10)
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            found += _left(root / "sys/fs/cgroup", path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            found += _left(root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    return max(0, min(found)) if found else None


def _left(mount: Path, path: str, limit: str, usage: str, cache: str) -> Iterator[int]:
    """What each group from this process's own up to the root leaves; in a container the group's own path may not be there."""
    place = mount / path.lstrip("/")
    for group in dict.fromkeys((place, *(p for p in place.parents if p.is_relative_to(mount)), mount)):
        most, used = _text(group / limit).strip(), _text(group / usage).strip()
        if most.isdigit() and used.isdigit() and int(most) < 1 << 60:
            reclaimable = re.search(rf"^{cache} (\d+)", _text(group / "memory.stat"), re.MULTILINE)
            yield int(most) - int(used) + (int(reclaimable[1]) if reclaimable else 0)


def _text(place: Path) -> str:
    try:
        return place.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def needs_of(trials: Sequence[Trial], data_dir: Path | None, *, stack: str | int = "auto") -> list[Need]:
    """What each kind of trial among `trials` needs; those that differ in rates, seeds and sparsity alone are of one kind."""
    kinds: dict[str, list[Trial]] = {}
    for trial in trials:
        own = trial.config
        told = [own.data, own.model, own.training.optimizer, own.training.batch_size, own.training.loss, own.training.momentum > 0]
        told += [own.measure.plane, own.measure.gradients, own.prune.when == "never", own.finetune.distill.alpha > 0, own.deploy.backends]
        kinds.setdefault(repr(told), []).append(trial)
    sets = len({(repr(t.config.data), t.seed if t.config.data.split == "per-seed" else 0) for t in trials})
    found = []
    for alike in kinds.values():
        first = alike[0]
        data = load_data(first.config.data, first.seed, data_dir)
        model = build_model(first, data)
        count = min(len(alike), AT_ONCE)
        try:
            one = need(first.config, data, model, build_optimizer(model, first.config.training), datasets=sets)
            plan = arrange([model] * count, [data.train] * count, first.config.training, stack=stack)
        except Exception:  # a network that cannot be run fails as a trial, with its reason
            continue
        found.append(replace(one, together=1 if plan.way is Way.ALONE else plan.size))
    return found


def need(config: TrialConfig, data: Dataset, model: nn.Module, optimizer: torch.optim.Optimizer, *, datasets: int = 1) -> Need:
    """What a worker needs for a trial of these settings; `datasets` is how many data sets of the sweep it may come to hold."""
    x = data.train.x[:ROWS]
    weights = sum(p.numel() * p.element_size() for p in [*model.parameters(), *model.buffers()])
    saved, largest = _passed(model, Split(x, data.train.y[:ROWS]), config.training.loss)
    batch = max(batch_size(len(data.train), config.training), CALIBRATION if config.prune.when != "never" else 1)
    batch = max(batch, config.deploy.batch_size if config.deploy.backends else 1)
    held = sum(_bytes(s) for s in (data.train, data.validation, data.test))
    longest = max(len(data.train), len(data.validation), len(data.test))
    curves = min(len(data.train), TRAIN_SAMPLES) * (x[0].numel() * x.element_size())
    copies = 2 + 2 * config.measure.gradients + (config.finetune.distill.alpha > 0)  # the initial weights, and one to restore or write
    scores = 3 if config.prune.when != "never" else 0  # masks, scores and their order
    return Need(
        shared={
            "for the program": BASE,
            "data": (min(datasets, LOADED) + 1) * held,  # one more while a set is made of what was read
            "evaluation": int(SLACK * TENSORS * largest * min(rows_at_once(model, data.train.x), longest)) + curves,
            "information plane": int(SLACK * _plane(config, data, model)),
        },
        each={
            "weights, gradients, optimiser and copies": int(SLACK * weights * (2 + _numbers(optimizer) + copies + scores)),
            "one batch": int(SLACK * batch * (saved + TENSORS * largest)),
        },
    )


def _numbers(optimizer: torch.optim.Optimizer) -> int:
    """Numbers that an optimiser keeps of each weight: of those that we know as it is, of others as many as Adam, to be on the safe side."""
    if isinstance(optimizer, torch.optim.SGD):
        return int(any(group["momentum"] > 0 for group in optimizer.param_groups))
    return 2


def _bytes(split: Split) -> int:
    return sum(t.numel() * t.element_size() for t in (split.x, split.y))


def _passed(model: nn.Module, few: Split, loss: str) -> tuple[int, int]:
    """Bytes a row that the backward pass keeps, and of the largest layer's values, from a pass of a few rows through the network itself."""
    known = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers(), few.x, few.y]}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in known:
            kept[place] = tensor.untyped_storage().nbytes()
        alive.append(tensor.untyped_storage())
        return tensor.detach()  # the tensor itself would keep the graph that keeps it, for ever

    alive: list[Any] = []  # so that no address is used twice
    was = model.training
    state = {name: value.clone() for name, value in model.named_buffers()}  # running statistics are put back
    with largest_value(model) as largest, torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        model.train()
        try:
            loss_function(loss)(as_tensor(model(few.x)), few.y)
        finally:
            alive.clear()
            model.train(was)
            for name, value in model.named_buffers():
                value.data.copy_(state[name])
    return sum(kept.values()) // max(1, len(few)), largest[0] // max(1, len(few))


def _plane(config: TrialConfig, data: Dataset, model: nn.Module) -> int:
    """Values of all layers of the plane for its samples, those of the largest again as the estimators take them, and their pairs."""
    own = config.measure.plane
    if not own.estimators:
        return 0
    whole = sum(len(s) for s in (data.train, data.validation, data.test)) if own.split == "all" else len(data.split(own.split))
    samples = min(own.samples or whole, whole)
    with torch.random.fork_rng(devices=[]):
        values = capture(model, data.train.x[:ROWS], own.layers)
    rows = [v[0].numel() for v in values.values()]
    inputs = data.train.x[0].numel()
    return samples * (4 * 2 * sum(rows) + 8 * 3 * max([*rows, inputs]))


def fit(needs: Sequence[Need], limit: int | None, *, jobs: int, stack: str | int, trials: int) -> Fit:
    """Workers and networks at once that fit into `limit` bytes: the stack is made smaller first, then the workers fewer.

    ConfigError, with the sum spelled out, where not even one network in one worker fits.
    """
    jobs = max(1, min(jobs, trials))
    if limit is None or not needs:
        return Fit(jobs, stack, None)
    worst = max(needs, key=Need.total)
    if worst.total() > limit:
        raise ConfigError(
            f"one trial alone needs about {worst.text}, and {readable(limit)} may be taken: use less data, a smaller network, batch or "
            "plane, or state the limit yourself with --memory SIZE (--memory off: none)"
        )
    share = limit // jobs
    fitting = {id(n): (share - sum(n.shared.values())) // max(1, sum(n.each.values())) for n in needs}
    wanted = {id(n): max(1, min(n.together, -(-trials // jobs))) for n in needs}
    if all(fitting[name] >= wanted[name] for name in wanted):
        return Fit(jobs, stack, None)
    size, workers = min(fitting.values()), jobs
    if size < 1:
        size, workers = 1, max(1, limit // worst.total())
    less = [f"at most {size} networks train together" if size > 1 else "networks train one by one"] if max(wanted.values()) > size else []
    less += [f"{workers} of {jobs} workers"] if workers < jobs else []
    text = f"memory: {', '.join(less)}, to stay within {readable(limit)} (one trial: {worst.text}); --memory SIZE or off changes it"
    return Fit(workers, ("off" if size == 1 else size) if max(wanted.values()) > size else stack, text)
