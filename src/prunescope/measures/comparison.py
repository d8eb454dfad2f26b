"""The bench: networks side by side in size, multiply-adds and latency, on every back-end that this machine has."""

from __future__ import annotations

import copy
import json
import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prunescope.measures.backends import Call, Job, Prepared, absence, exact, prepare
from prunescope.measures.breakeven import LEVELS, BreakEven, Setting, break_evens, check_levels
from prunescope.measures.formats import FORMATS
from prunescope.measures.operations import macs_by_layer
from prunescope.measures.size import size_in_formats
from prunescope.measures.speed import batch
from prunescope.measures.timing import Timing, compared, synchroniser
from prunescope.registry import backends as registered
from prunescope.types import ConfigError, PrunescopeError

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas as pd

QUICK = ("eager", "csr", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Row:
    """A network on a back-end at a batch size: median milliseconds with their 95 % interval, and how many times faster it is than
    `reference`, the best dense back-end of the first network; error: relative difference from eager's outputs; reason: why there is
    no time."""

    model: str
    backend: str
    batch_size: int
    latency_ms: float | None = None
    low: float | None = None
    high: float | None = None
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    error: float | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""


@dataclass
class Bench:
    """What `bench` found: `sizes` (a mapping a network), `rows`, `reference` (batch size -> "network on back-end"), `break_evens`."""

    sizes: dict[str, dict[str, float]]
    rows: list[Row]
    reference: dict[int, str]
    break_evens: list[BreakEven]
    setting: dict[str, Any]

    def to_frame(self) -> pd.DataFrame:
        """One row a network, back-end and batch size."""
        import pandas as pd

        return pd.DataFrame([asdict(row) for row in self.rows])

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, fit for JSON; what is not there is None."""
        return {
            "setting": self.setting,
            "reference": {str(k): v for k, v in self.reference.items()},
            "sizes": self.sizes,
            "rows": [asdict(row) for row in self.rows],
            "break_evens": [found.to_dict() for found in self.break_evens],
        }

    def plot(self) -> matplotlib.figure.Figure:
        """Latency of every network on every back-end, one panel a batch size."""
        from prunescope.measures.comparisonfigures import latencies

        return latencies(self)

    def plot_break_even(self) -> matplotlib.figure.Figure:
        """Time of each sparse back-end over the best dense one's against sparsity, one panel a layer size."""
        from prunescope.measures.comparisonfigures import break_even_curves

        return break_even_curves(self.break_evens)

    def save(self, folder: str | Path, kinds: Sequence[str] = ("svg", "png")) -> list[Path]:
        """Write bench.json, bench.csv, and the figures in each of `kinds`; returns the paths."""
        place = Path(folder)
        try:
            place.mkdir(parents=True, exist_ok=True)
            (place / "bench.json").write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False, default=str), encoding="utf-8")
            self.to_frame().to_csv(place / "bench.csv", index=False)
            written = [place / "bench.json", place / "bench.csv"]
            figures = {"latency": self.plot()} if any(r.latency_ms is not None for r in self.rows) else {}
            if any(found.points for found in self.break_evens):
                figures["break-even"] = self.plot_break_even()
            for name, figure in figures.items():
                for kind in kinds:
                    figure.savefig(place / f"{name}.{kind}", dpi=160)
                    written.append(place / f"{name}.{kind}")
        except OSError as error:
            raise ConfigError(f"{place}: cannot be written: {error.strerror or error}; give another folder") from error
        return written


def bench(
    models: nn.Module | Mapping[str, nn.Module],
    x: Tensor | Mapping[str, Tensor],
    *,
    backends: str | Sequence[str] = "quick",
    batch_sizes: Sequence[int] = (1, 64),
    break_even: bool | None = None,
    levels: Sequence[float] = LEVELS,
    formats: Sequence[str] = FORMATS,
    threads: int = 1,
    seconds: float = 0.3,
    clock: str | Callable[[], float] = "wall",
    progress: Callable[[str], None] = lambda _: None,
) -> Bench:
    """Networks side by side: parameters, non-zeros, bytes in each format, multiply-adds, and milliseconds on each back-end.

    models       one network or name -> network; the first is what the others are compared with. They are copied and left as they are
    x            samples (n, ...), or one such tensor a network; rows are repeated to fill a batch
    backends     "quick" (eager, CSR, ONNX Runtime and OpenVINO, those that are installed), "all", or names (`prunescope list backends`)
    break_even   also find the sparsity from which on each sparse back-end pays, for every linear layer size of the first network and
                 for the whole of it (default: with backends="all"); `levels` are the sparsities tried
    clock        "wall" or "processor" (see `measures.timing.timed`); blocks of all networks and back-ends take turns

    All networks run in evaluation mode on the device they are on. A back-end that cannot run a network is a row with the reason.
    """
    networks, samples = _named(models, x)
    check_levels(levels)
    chosen, own = _chosen(backends), isinstance(backends, str)
    sizes = {}
    for name, model in networks.items():
        progress(f"size of {name}")
        sizes[name] = _sizes(model, samples[name][:1], formats)
    setting = {"threads": threads, "seconds": seconds, "clock": clock if isinstance(clock, str) else "own", **_machine()}
    found = Bench(sizes, [], {}, [], setting)
    how: dict[str, Any] = {"threads": threads, "seconds": seconds, "clock": clock}
    for size in batch_sizes:
        given = {name: batch(samples[name], size) for name in networks}
        found.rows += _timed(networks, given, chosen, size, how, found.reference, progress, hide=own and backends == "quick")
        if break_even if break_even is not None else backends == "all":
            dense = [b for b in chosen if _dense(b) and not registered.get(b).traits.get("slow")]
            sparse = [b for b in chosen if not _dense(b)]
            first = next(iter(networks))
            wanted = Setting(dense, sparse, levels, **how)
            for one in break_evens(first, networks[first], given[first], wanted):
                progress(f"break-even of {one.backend} on {one.what}, batch {size}")
                found.break_evens.append(one)
    return found


def _named(models: Any, x: Any) -> tuple[dict[str, nn.Module], dict[str, Tensor]]:
    """Copies in evaluation mode, and the samples of each."""
    given = {"model": models} if isinstance(models, nn.Module) else dict(models)
    if not given:
        raise ConfigError("no network to measure: expected at least one")
    for name, model in given.items():
        if not isinstance(model, nn.Module):
            raise ConfigError(f"network {name!r} is a {type(model).__name__}: expected a torch.nn.Module")
    networks = {name: copy.deepcopy(model).eval().requires_grad_(False) for name, model in given.items()}
    samples = {name: x if isinstance(x, Tensor) else x[name] for name in networks}
    return networks, samples


def _chosen(wanted: str | Sequence[str]) -> list[str]:
    if wanted == "quick":
        return list(QUICK)
    if wanted == "all":
        return registered.names()
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    return [registered.get(name).name for name in names]


def _sizes(model: nn.Module, x: Tensor, formats: Sequence[str]) -> dict[str, float]:
    layers = macs_by_layer(model, x).values()
    products = {"macs": sum(m.dense for m in layers), "macs_nonzero": sum(m.nonzero for m in layers)}
    return {m.metric: m.value for m in size_in_formats(model, formats=formats)} | products


def _machine() -> dict[str, Any]:
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    return {"torch": torch.__version__, "processor": platform.machine(), "cores": os.cpu_count(), "load": load}


def _timed(
    networks: Mapping[str, nn.Module],
    given: Mapping[str, Tensor],
    chosen: Sequence[str],
    size: int,
    how: Mapping[str, Any],
    reference: dict[int, str],
    progress: Callable[[str], None],
    *,
    hide: bool,
) -> list[Row]:
    """The rows of one batch size; everything that can run is prepared first, then timed in turns. `hide` what is not installed here."""
    ready: dict[tuple[str, str], Prepared] = {}
    reasons: dict[tuple[str, str], str] = {}
    for name, model in networks.items():
        job = Job(model, given[name], int(how["threads"]))
        for backend in chosen:
            if hide and absence(registered.get(backend), given[name].device) is not None:
                continue
            progress(f"{name} on {backend}, batch {size}")
            try:
                ready[name, backend] = prepare(backend, job)
            except PrunescopeError as error:
                reasons[name, backend] = str(error)
    calls = {f"{n}\n{b}": Call(p, given[n]) for (n, b), p in ready.items()}
    with torch.no_grad():
        times = compared(calls, synchronise=synchroniser(next(iter(given.values())).device), **how) if calls else {}
    best = _best(next(iter(networks)), times)
    if best is not None:
        reference[size] = best.replace("\n", " on ")
    rows = [_row(n, b, size, p, times[f"{n}\n{b}"], times[best] if best else None) for (n, b), p in ready.items()]
    return rows + [Row(n, b, size, reason=reason) for (n, b), reason in reasons.items()]


def _best(first: str, times: Mapping[str, Timing]) -> str | None:
    """The fastest dense back-end of the first network that computes the same function."""
    able = [k for k in times if k.startswith(f"{first}\n") and _dense(k.partition("\n")[2]) and exact(k.partition("\n")[2])]
    return min(able, key=lambda k: times[k].median) if able else None


def _dense(backend: str) -> bool:
    return not registered.get(backend).traits.get("sparse")


def _row(name: str, backend: str, size: int, ready: Prepared, time: Timing, best: Timing | None) -> Row:
    speed: tuple[float | None, float | None, float | None] = best.over(time) if best is not None else (None, None, None)
    error = ready.error if math.isfinite(ready.error) else None
    return Row(name, backend, size, time.median, *time.interval, *speed, error, dict(ready.notes))
