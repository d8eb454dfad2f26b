"""Energy: joules of a forward pass, where the machine lets its meter be read."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import nn

from prunescope.measures.quality import Measurement
from prunescope.measures.speed import batch
from prunescope.measures.timing import threads_set
from prunescope.registry import measures
from prunescope.types import Split

POWERCAP = Path("/sys/class/powercap")


@measures("energy", needs=("data",), source="Linux powercap (RAPL): energy_uj of the processor packages, before and after")
def energy(
    model: nn.Module, split: Split, *, batch_size: int = 64, seconds: float = 2.0, threads: int = 1, root: str | None = None
) -> list[Measurement]:
    """Joules of a forward pass over `batch_size` samples, by all processor packages with whatever else runs on them ("energy").

    The meter counts the whole package, its idle draw included: compare only runs on a machine that does nothing else. Where no meter can
    be read (most virtual machines, kernels that keep it to root, GPUs) the value is NaN and the parameters say why: nothing is estimated.
    """
    folder = POWERCAP if root is None else Path(root)
    x = batch(split.x, batch_size)
    zones, reason = _zones(folder, x.device)
    if reason:
        return [Measurement("energy", float("nan"), "J", parameters={"absent": reason})]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), threads_set(threads):
            model(x)
            calls, start, before = 0, time.perf_counter(), _read(zones)
            while not calls or time.perf_counter() - start < seconds:
                model(x)
                calls += 1
            after = _read(zones)
    finally:
        model.train(was_training)
    joules = sum(_since(zone, a, b) for zone, a, b in zip(zones, before, after, strict=True)) / 1e6
    detail = {"batch_size": len(x), "threads": threads, "packages": [zone.name for zone in zones], "idle_included": True}
    return [Measurement("energy", joules / calls, "J", n=calls, parameters=detail)]


def _zones(folder: Path, device: torch.device) -> tuple[list[Path], str]:
    """The packages' folders, or why there are none."""
    if device.type != "cpu":
        return [], f"the model is on {device}, whose draw the processor's meter does not see"
    zones = sorted(folder.glob("*-rapl:*[0-9]")) if folder.is_dir() else []
    packages = [zone for zone in zones if zone.name.count(":") == 1]  # "intel-rapl:0:1" is a part of package 0
    if not packages:
        return [], f"no energy meter: {folder} holds no RAPL package"
    try:
        _read(packages)
    except (OSError, ValueError) as error:
        return [], f"{packages[0] / 'energy_uj'} cannot be read ({getattr(error, 'strerror', None) or error}): it is kept to root here"
    return packages, ""


def _read(zones: list[Path]) -> list[int]:
    """Microjoules of each package since some time in the past."""
    return [int((zone / "energy_uj").read_text()) for zone in zones]


def _since(zone: Path, before: int, after: int) -> int:
    """Microjoules between two readings; the counter starts again from zero at its range."""
    return after - before if after >= before else after - before + int((zone / "max_energy_range_uj").read_text())
