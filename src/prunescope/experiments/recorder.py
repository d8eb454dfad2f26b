"""The recorder: an observer of training that turns what it sees into records. It changes nothing of what it looks at."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunescope import rng
from prunescope.config import MeasureConfig
from prunescope.measures.flow import InformationPlane
from prunescope.measures.quality import Measurement, evaluate
from prunescope.measures.size import flops, size
from prunescope.measures.speed import latency
from prunescope.pruning import Masks, prunable, reached
from prunescope.results.schema import Record, parameters_text
from prunescope.training import State
from prunescope.types import LN2, Dataset, Split

TRAIN_SAMPLES = 10_000  # training loss and accuracy are measured on at most this many rows (drawn once); validation and test on all
PICTURE_ENTRIES = 20_000  # masks up to this size are stored as pictures


def recorded_epochs(measure: MeasureConfig, epochs: int) -> set[int]:
    """The epochs after which is measured; 0 (before training) and the last are always among them, unless none is wanted."""
    if isinstance(measure.epochs, list):
        return {0, epochs, *(e for e in measure.epochs if 0 <= e <= epochs)}
    if measure.epochs == "none":
        return set()
    if measure.epochs == "all" or epochs <= measure.points:
        return set(range(epochs + 1))
    return {0, epochs, *np.unique(np.geomspace(1, epochs, measure.points).round().astype(int)).tolist()}


class Recorder:
    """Records of one trial: quality and information plane over training, gradients where asked, and the state at each phase's end."""

    def __init__(self, model: nn.Module, data: Dataset, measure: MeasureConfig, *, loss: str, seed: int) -> None:
        self.model, self.data, self.measure, self.loss = model, data, measure, loss
        self.records: list[Record] = []
        self.epoch_offset, self.phase = 0, "train"
        self._recorded: set[int] = set()
        self._gradients: _Gradients | None = None
        rows = torch.randperm(len(data.train), generator=rng.torch_generator(0, "train rows for curves"))[:TRAIN_SAMPLES]
        rows = rows.to(data.train.x.device)
        self._curves = {"train": Split(data.train.x[rows], data.train.y[rows]), "validation": data.validation}
        self.plane = self._plane(seed)

    def _plane(self, seed: int) -> InformationPlane | None:
        settings = self.measure.plane
        if not settings.estimators:
            return None
        split = self.data.split(settings.split)
        x, y = split.x, split.y
        if settings.samples is not None and settings.samples < len(split):
            rows = torch.randperm(len(split), generator=rng.torch_generator(0, "plane rows"))[: settings.samples].to(x.device)
            x, y = x[rows], y[rows]
        return InformationPlane(
            self.model,
            x,
            y,
            layers=settings.layers,
            estimators=settings.estimators,
            input=settings.input,
            input_bins=settings.input_bins,
            input_range=settings.input_range,
            output=settings.output,
            loss=self.loss,
            seed=seed,
        )

    def begin(self, phase: str, epoch_offset: int = 0) -> None:
        """Say which phase the next events belong to; `epoch_offset` epochs of it were done before."""
        self.phase, self.epoch_offset = phase, epoch_offset

    def start(self, state: State) -> None:
        """Before the first step."""
        self._recorded = recorded_epochs(self.measure, state.settings.epochs)
        if 0 in self._recorded and self.epoch_offset == 0:
            self._look(state)

    def epoch_start(self, state: State) -> None:
        """Gradients are summed over the epochs that end in a record."""
        wanted = self.measure.gradients and state.epoch + 1 in self._recorded
        self._gradients = _Gradients(prunable(self.model)) if wanted else None

    def gradients(self, state: State) -> None:
        """After every backward pass."""
        if self._gradients is not None:
            self._gradients.add()

    def epoch_end(self, state: State) -> None:
        """After every epoch."""
        if state.epoch in self._recorded:
            self._look(state)
            if self._gradients is not None:
                self._add(self._gradients.measurements(), state.steps, state.epoch)

    def _look(self, state: State) -> None:
        epoch = state.epoch + self.epoch_offset
        for name, split in self._curves.items():
            self._add(evaluate(self.model, split, self.loss).values(), state.steps, epoch, split=name)
        if self.plane is not None:
            self.records += plane_records(self.plane, self.phase, state.steps, epoch, self.measure.plane.split)

    def _add(
        self, measured: Iterable[Measurement], step: int = 0, epoch: float = 0, *, split: str = "", layer: str = "", phase: str = ""
    ) -> None:
        for m in measured:
            detail = dict(m.parameters)
            where = detail.pop("layer", layer)
            self.records.append(
                Record(
                    m.metric, m.value, m.unit, phase or self.phase, step, epoch, split, where, m.n, m.stderr, "", parameters_text(detail)
                )
            )

    def state_after(self, phase: str, masks: Masks | None, *, splits: tuple[str, ...] = ("train", "validation"), epoch: float = 0) -> None:
        """Quality, sparsity per layer and weight histograms as they stand now, under the name `phase`."""
        for name in splits:
            split = self._curves[name] if name in self._curves else self.data.split(name)
            self._add(evaluate(self.model, split, self.loss).values(), epoch=epoch, split=name, phase=phase)
        self._add(_sparsity(self.model, masks), epoch=epoch, phase=phase)
        if self.measure.histogram_bins:
            self._add(_histograms(self.model, self.measure.histogram_bins), epoch=epoch, phase=phase)

    def final(self, masks: Masks | None, *, epoch: float = 0) -> None:
        """The headline figures: quality on all splits, chance, size, operations, latency where asked, mask pictures."""
        self.state_after("final", masks, splits=("train", "validation", "test"), epoch=epoch)
        test = self.data.test
        share = float(test.y.bincount().max()) / len(test)
        self._add([Measurement("chance", share, "fraction", len(test))], split="test", phase="final")
        self._add([*size(self.model), *flops(self.model, test)], phase="final")
        if self.measure.latency:
            self._add(latency(self.model, test), phase="final")
        if masks is not None:
            self._add(_pictures(masks), phase="final")


def plane_records(plane: InformationPlane, phase: str, step: int, epoch: float, split: str) -> list[Record]:
    """One record for each layer, quantity and estimator of the plane as the network stands now."""
    found = []
    ref = plane.reference
    entropies = {"h_x": ref.input_entropy / LN2, "h_y": ref.label_entropy / LN2, "log2_n": math.log2(ref.n), "input": ref.text}
    for point in plane.record(epoch):
        e = point.estimate
        own = {"ceiling": e.ceiling, "flags": list(e.flags), "order": point.order, "resolution": point.resolution}
        detail = {**e.parameters, **entropies, **own}
        text = parameters_text(detail)
        found.append(Record(point.quantity, e.value, e.unit, phase, step, epoch, split, point.layer, e.n, e.stderr, e.estimator, text))
    return found


class _Gradients:
    """Mean and standard deviation over an epoch's batches of each weight's gradient, as norms per layer (Shwartz-Ziv & Tishby 2017)."""

    def __init__(self, parameters: dict[str, nn.Parameter]) -> None:
        self._parameters, self._count = parameters, 0
        self._sums = {n: torch.zeros_like(p) for n, p in parameters.items()}
        self._squares = {n: torch.zeros_like(p) for n, p in parameters.items()}

    def add(self) -> None:
        self._count += 1
        for name, p in self._parameters.items():
            if p.grad is not None:
                self._sums[name] += p.grad
                self._squares[name].addcmul_(p.grad, p.grad)

    def measurements(self) -> list[Measurement]:
        found = []
        for name in self._parameters if self._count > 1 else ():
            mean = self._sums[name].double() / self._count
            spread = (self._squares[name].double() / self._count - mean.square()).clamp_min(0)
            norm, deviation = float(mean.norm()), float(spread.sum().sqrt())
            values = {"gradient_mean": norm, "gradient_sd": deviation}
            if deviation > 0:
                values["gradient_snr"] = norm / deviation
            found += [Measurement(m, v, "", self._count, parameters={"layer": name}) for m, v in values.items()]
        return found


def _sparsity(model: nn.Module, masks: Masks | None) -> list[Measurement]:
    """The fraction of weights that are exactly zero: what is there, whatever the masks say."""
    zeros = {n: (p.numel() - int(p.detach().count_nonzero()), p.numel()) for n, p in prunable(model).items()}
    removed = reached(model, masks) if masks is not None else zeros
    total = sum(n for _, n in zeros.values())
    overall = Measurement("sparsity", sum(z for z, _ in zeros.values()) / total, "fraction", total)
    return [
        overall,
        *(
            Measurement("sparsity", z / n, "fraction", n, parameters={"layer": name, "masked": removed[name][0]})
            for name, (z, n) in zeros.items()
        ),
    ]


def _histograms(model: nn.Module, bins: int) -> list[Measurement]:
    found = []
    for name, p in prunable(model).items():
        values = p.detach().float().cpu().numpy().ravel()
        if not np.isfinite(values).all():
            continue
        counts, edges = np.histogram(values, bins=bins)
        detail = {"layer": name, "edges": [float(f"{e:.6g}") for e in edges], "counts": counts.tolist()}
        found.append(Measurement("weight_histogram", float((values == 0).mean()), "fraction zero", values.size, parameters=detail))
    return found


def _pictures(masks: Masks) -> list[Measurement]:
    return [
        Measurement("mask", float(m.float().mean()), "fraction kept", m.numel(), parameters={"layer": n, **_packed(m)})
        for n, m in masks.items()
        if m.ndim >= 2 and m.numel() <= PICTURE_ENTRIES
    ]


def _packed(mask: Tensor) -> dict[str, Any]:
    table = mask.flatten(1).cpu().numpy()
    return {"shape": list(table.shape), "kept": base64.b64encode(np.packbits(table).tobytes()).decode()}
