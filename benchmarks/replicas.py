"""Many networks at once: a sequential PyTorch loop, ours one by one, ours stacked, and JAX, on the same tensors in memory.

    python benchmarks/replicas.py [--repeats 5] [--case TEXT] [--jax PYTHON]

Milliseconds of processor time for one step of ALL networks of a case (what it costs on the wall where nothing else runs): medians of
rounds in which the contestants take turns, because machines drift. One process with one thread each; "x 2" are two processes that
share the networks, the time of the slower one. `--jax` names a Python that has jax, if not this one. The floor counts
multiplications at 113 GFLOP/s and one exponential a hidden tanh unit at 1.65 G/s.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import prunescope.models
from prunescope.config import TrainingConfig
from prunescope.training import train
from prunescope.training.arrangement import arrange
from prunescope.training.replicas import train_stack
from prunescope.types import Split

FLOPS, EXPONENTIALS = 113e9, 1.65e9


@dataclass(frozen=True)
class Case:
    """A contest: `count` networks `sizes` on `samples` rows."""

    name: str
    sizes: tuple[int, ...]
    activation: str
    count: int
    batch: int | str
    samples: int
    optimizer: str
    epochs: int = 1

    @property
    def rows(self) -> int:
        return self.samples if self.batch == "full" else int(self.batch)

    @property
    def steps(self) -> int:
        return self.epochs * (self.samples // self.rows)

    def settings(self) -> TrainingConfig:
        return TrainingConfig(epochs=self.epochs, batch_size=self.batch, optimizer=self.optimizer, lr=1e-3, drop_last=True)

    def data(self) -> Split:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(self.samples, self.sizes[0], generator=generator)
        return Split(x, torch.randint(0, self.sizes[-1], (self.samples,), generator=generator))

    def networks(self, count: int) -> list[nn.Module]:
        options = {"widths": list(self.sizes[1:-1]), "activation": self.activation}
        build = prunescope.models.build
        return [build("mlp", input_shape=self.sizes[:1], classes=self.sizes[-1], seed=s, options=options) for s in range(count)]

    def floor(self) -> float:
        """Milliseconds of the counted operations: three products a layer (two in the first), one exponential a hidden unit."""
        weights = [a * b for a, b in zip(self.sizes, self.sizes[1:], strict=False)]
        operations = 2 * self.count * self.rows * (3 * sum(weights) - weights[0])
        exponentials = self.count * self.rows * sum(self.sizes[1:-1]) if self.activation == "tanh" else 0
        return 1e3 * (operations / FLOPS + exponentials / EXPONENTIALS)


SMALL, LENET, LARGE = (12, 10, 7, 5, 4, 3, 2), (784, 300, 100, 10), (784, 1000, 1000, 500, 200, 10)
CASES = [
    *(
        Case(f"50 tanh nets 12-10-7-5-4-3-2, batch {batch}, {optimizer}", SMALL, "tanh", 50, batch, samples, optimizer, epochs)
        for batch, samples, epochs in ((512, 10_240, 3), (64, 10_240, 1), ("full", 10_240, 4))
        for optimizer in ("sgd", "adam")
    ),
    Case("8 LeNet-300-100, batch 64, adam", LENET, "relu", 8, 64, 1_920, "adam"),
    Case("4 large MLPs 784-1000-1000-500-200-10, batch 64, adam", LARGE, "relu", 4, 64, 640, "adam"),
]


def bare(case: Case, models: list[nn.Module], data: Split) -> None:
    """The loop anyone would write, one network after another."""
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[case.optimizer]
    for model in models:
        optimizer = kind(model.parameters(), lr=1e-3)
        for _ in range(case.epochs):
            order = torch.randperm(len(data)) if case.rows < len(data) else None
            for start in range(0, len(data) - case.rows + 1, case.rows):
                rows = slice(None) if order is None else order[start : start + case.rows]
                x, y = data.x[rows], data.y[rows]
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()


def timed(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def contest(case: Case, repeats: int) -> dict[str, float]:
    """Median milliseconds a step of all networks. One by one is timed on a few networks and multiplied out."""
    data, settings = case.data(), case.settings()
    few = max(1, min(case.count, 5))
    models, some = case.networks(case.count), case.networks(few)
    runs = {
        "sequential PyTorch loop": lambda: bare(case, some, data),
        "ours one by one": lambda: [train(m, data, settings, seed=i) for i, m in enumerate(some)],
        "ours stacked": lambda: train_stack(models, data, settings, seeds=range(case.count)),
    }
    found: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            seconds = timed(run) * (1 if name == "ours stacked" else case.count / few)
            if turn:
                found[name].append(1e3 * seconds / case.steps)
    return {name: statistics.median(times) for name, times in found.items()}


def _half(case: Case, part: int, repeats: int, gate: object, results: object) -> None:
    torch.set_num_threads(1)
    data, models = case.data(), case.networks(case.count)[part::2]
    train_stack(models, data, case.settings(), seeds=range(len(models)))
    for _ in range(repeats):
        gate.wait()
        results.put(timed(lambda: train_stack(models, data, case.settings(), seeds=range(len(models)))))
        gate.wait()


def two_processes(case: Case, repeats: int) -> float:
    """Median milliseconds a step of all networks, shared by two processes."""
    context = multiprocessing.get_context("spawn")
    gate, results, walls = context.Barrier(3), context.Queue(), []
    workers = [context.Process(target=_half, args=(case, part, repeats, gate, results)) for part in range(2)]
    for worker in workers:
        worker.start()
    for _ in range(repeats):
        gate.wait()
        gate.wait()
        walls.append(max(results.get(), results.get()))
    for worker in workers:
        worker.join()
    return 1e3 * statistics.median(walls) / case.steps


def jax_time(case: Case, python: str, repeats: int) -> float | None:
    """Milliseconds a step of all networks by JAX's vmap + scan + jit on one thread; None where it is not installed."""
    what = {"sizes": case.sizes, "count": case.count, "rows": case.rows, "samples": case.samples, "steps": case.steps}
    what |= {"optimizer": case.optimizer, "activation": case.activation, "repeats": repeats}
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    script = Path(__file__).with_name("replicas_jax.py")
    core = ["taskset", "-c", "0"] if sys.platform == "linux" else []
    done = subprocess.run([*core, python, str(script), json.dumps(what)], env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 3:
        return None
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--case", default="")
    parser.add_argument("--jax", default=sys.executable)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread a process, medians of {options.repeats}, load {os.getloadavg()[0]:.1f}")
    for case in (c for c in CASES if options.case in c.name):
        plan = arrange(case.networks(case.count), [case.data()] * case.count, case.settings())
        found = contest(case, options.repeats)
        jax = jax_time(case, options.jax, options.repeats)
        found |= {"JAX vmap + scan + jit": jax} if jax is not None else {}
        found |= {"ours stacked x 2": two_processes(case, options.repeats), "floor": case.floor()}
        first = found["sequential PyTorch loop"]
        print(f"\n{case.name}; auto: {plan.text}")
        for name, ms in found.items():
            print(f"  {name:26s} {ms:9.3f} ms   {first / ms:6.1f} x the loop")
        if jax is None:
            print("  JAX: not installed")


if __name__ == "__main__":
    main()
