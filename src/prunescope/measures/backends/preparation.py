"""Preparation: from a network and an example to a callable that a back-end runs, with its outputs compared with eager torch's.

A back-end is a function `(job) -> run` or `(job) -> (run, notes)` registered with the traits

    absent      function (device) -> None, or the PrunescopeError that says why the back-end cannot be used
    sparse      whether its time depends on zeros in the weights
    tolerance   largest relative difference from eager's outputs, |a - b| / |b| over the whole batch; above EXACT it is another function
    pattern     the sparsity and structure that it is made for ("2:4"), where it is made for one only
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.measures.backends.conversion import onnx_bytes, with_weights
from prunescope.measures.timing import threads_set
from prunescope.registry import Entry, backends
from prunescope.types import ConfigError, DataError, MissingExtraError, PrunescopeError

EXACT = 1e-4  # sums in another order; int8 is 100 times as far
Run = Callable[[Tensor], Tensor]


class BackendError(PrunescopeError, RuntimeError):
    """A back-end that cannot run this network, or that runs it to other outputs."""


@dataclass(frozen=True)
class Prepared:
    """A network that is ready to run: `run(x)` for batches shaped as the example, under `torch.no_grad()`.

    error   relative difference of its outputs from eager torch's on the example; notes: what the back-end did
    """

    backend: str
    run: Run = field(repr=False)
    error: float
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One pass of `x` through a prepared network, to be timed."""

    ready: Prepared
    x: Tensor

    def __call__(self) -> Tensor:
        return self.ready.run(self.x)


class Job:
    """What a back-end works with: `model` (in evaluation mode, to be left as it is), the `example` batch, and the `threads` to use.

    Conversions that several back-ends share are made once: `onnx`. `like` is the job of the same network with other weights, whose
    conversion can be used again.
    """

    def __init__(self, model: nn.Module, example: Tensor, threads: int = 1, *, like: Job | None = None, **options: Any) -> None:
        if threads < 1:
            raise ConfigError(f"threads {threads!r}: expected at least 1")
        self.model = copy.deepcopy(model).eval() if model.training else model
        self.example, self.threads, self.like, self.options = example, threads, like, options

    @functools.cached_property
    def expected(self) -> Tensor:
        """Eager torch's outputs for the example."""
        with torch.no_grad():
            out = self.model(self.example)
        if not isinstance(out, Tensor):
            kind = type(out).__name__
            raise DataError(f"the model returns a {kind}: back-ends take models of one tensor to one tensor, so wrap it in one that does")
        return out

    @functools.cached_property
    def onnx(self) -> bytes:
        """The network as an ONNX file for batches of the example's shape."""
        again = with_weights(self.like.onnx, self.model) if self.like is not None else None
        return onnx_bytes(self.model, self.example) if again is None else again


def prepare(name: str, job: Job) -> Prepared:
    """The callable that back-end `name` runs the job's network by, after a check of its outputs on the example.

    Raises ConfigError or MissingExtraError where the back-end cannot be used here, BackendError where it fails on this network or gives
    outputs that differ from eager torch's by more than its tolerance.
    """
    entry = backends.get(name)
    if (reason := absence(entry, job.example.device)) is not None:
        raise reason
    expected = job.expected
    options = entry.arguments({"job": job}, {k: v for k, v in job.options.items() if k in inspect.signature(entry.function).parameters})
    try:
        with torch.no_grad(), threads_set(job.threads):  # compiled code is bound to both
            made = entry.function(**options)
            run, notes = made if isinstance(made, tuple) else (made, {})
            found = run(job.example)
    except PrunescopeError:
        raise
    except Exception as error:  # converters and compilers raise what they like
        raise BackendError(f"{name} does not run this model: {_short(error)}") from error
    difference, allowed = agreement(found, expected), float(entry.traits.get("tolerance", EXACT))
    if not difference <= allowed:
        apart = f"{difference:.2g} of their size, more than {allowed:g}"
        raise BackendError(f"{name}: its outputs differ from eager torch's by {apart}: not used")
    return Prepared(name, run, difference, notes)


def agreement(found: Tensor, expected: Tensor) -> float:
    """The relative difference |found - expected| / |expected| over all entries; NaN or infinity where the shapes or values are no match.

    >>> agreement(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0]))
    0.1
    """
    if found.shape != expected.shape:
        return float("inf")
    a, b = found.detach().cpu().double(), expected.detach().cpu().double()
    size = float(b.norm())
    return float((a - b).norm()) / size if size else float((a - b).norm())


def absence(entry: Entry, device: torch.device | str = "cpu") -> PrunescopeError | None:
    """Why a back-end cannot be used here for a model on `device`; None if it can."""
    reason: PrunescopeError | None = entry.traits["absent"](torch.device(device)) if "absent" in entry.traits else None
    return reason


def exact(name: str) -> bool:
    """Whether a back-end computes the same function as eager torch, to rounding."""
    return float(backends.get(name).traits.get("tolerance", EXACT)) <= EXACT


def missing(packages: tuple[str, ...], extra: str, what: str) -> PrunescopeError | None:
    """The sentence that names the extra, where one of `packages` is not installed."""
    lacking = [p for p in packages if importlib.util.find_spec(p) is None]
    return MissingExtraError(f"{what} needs {' and '.join(lacking)}: pip install 'prunescope[{extra}]'") if lacking else None


def on_cpu(device: torch.device, what: str) -> PrunescopeError | None:
    """The sentence for a back-end that is used on the CPU only."""
    return None if device.type == "cpu" else ConfigError(f"{what} runs on the CPU here, and the model is on {device}: move it there")


def _short(error: Exception) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text[:200]}"
