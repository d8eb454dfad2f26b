"""The recorder: an observer of training that turns what it sees into records. It changes nothing of what it looks at."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunescope import rng
from prunescope.config import MeasureConfig
from prunescope.information import PlanePoint, Reference
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

    def __init__(
        self, model: nn.Module, data: Dataset, measure: MeasureConfig, *, loss: str, seed: int, twin: Recorder | None = None
    ) -> None:
        """`twin` is a recorder of another replicate with the same settings: where its data are the same, what is made of them is shared."""
        self.model, self.data, self.measure, self.loss = model, data, measure, loss
        self.records: list[Record] = []
        self.epoch_offset, self.phase = 0, "train"
        self._recorded: set[int] = set()
        self._counted: tuple[list[torch.Size], list[Measurement]] | None
        self._twin, self._counted = twin, None
        twin = twin if twin is not None and twin.data is data else None
        self.curves: dict[str, Split] = twin.curves if twin is not None else self._curve_rows()
        self.plane: InformationPlane | None = self._plane(seed, twin.plane if twin is not None else None)
        self.plane_rows: dict[str, Tensor] = twin.plane_rows if twin is not None else self._shared_rows()

    def _train_rows(self) -> Tensor:
        train = self.data.train
        return torch.randperm(len(train), generator=rng.torch_generator(0, "train rows for curves"))[:TRAIN_SAMPLES].to(train.x.device)

    def _curve_rows(self) -> dict[str, Split]:
        train, rows = self.data.train, self._train_rows()
        return {"train": Split(train.x[rows], train.y[rows]), "validation": self.data.validation}

    def _shared_rows(self) -> dict[str, Tensor]:
        """Where among the plane's samples those of a curve are, so that the network sees them once for both."""
        train, validation, where = len(self.data.train), len(self.data.validation), self.measure.plane.split
        if self.plane is None or len(self.plane.x) < len(self.data.split(where)):
            return {}
        every = {"train": self._train_rows()} if where in ("train", "all") else {}
        if where in ("validation", "all") and validation:
            start = train if where == "all" else 0
            every["validation"] = torch.arange(start, start + validation, device=self.plane.x.device)
        return every

    def _plane(self, seed: int, twin: InformationPlane | None) -> InformationPlane | None:
        settings = self.measure.plane
        if not settings.estimators:
            return None
        x, y = self._plane_rows() if twin is None else (twin.x, twin.reference)
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
            spatial=settings.spatial,
            loss=self.loss,
            seed=seed,
        )

    def _plane_rows(self) -> tuple[Tensor, Tensor]:
        settings = self.measure.plane
        split = self.data.split(settings.split)
        if settings.samples is None or settings.samples >= len(split):
            return split.x, split.y
        rows = torch.randperm(len(split), generator=rng.torch_generator(0, "plane rows"))[: settings.samples].to(split.x.device)
        return split.x[rows], split.y[rows]

    def begin(self, phase: str, epoch_offset: int = 0) -> None:
        """Say which phase the next events belong to; `epoch_offset` epochs of it were done before."""
        self.phase, self.epoch_offset = phase, epoch_offset

    def prepare(self, state: State) -> None:
        """A training begins, or is taken up again."""
        self._recorded = recorded_epochs(self.measure, state.settings.epochs)

    def due(self, state: State) -> bool:
        """Whether the network is to be recorded as it stands, at the start or at an epoch's end."""
        return state.epoch in self._recorded and (state.epoch > 0 or self.epoch_offset == 0)

    def hears_gradients(self, epoch: int) -> bool:
        """Whether gradients are to be summed over the epoch that ends as the `epoch`-th."""
        return self.measure.gradients and epoch in self._recorded

    def add_curve(self, state: State, split: str, measured: Mapping[str, Measurement]) -> None:
        """Keep the loss and accuracy on `split` at this epoch."""
        self._add(measured.values(), state.steps, state.epoch + self.epoch_offset, split=split)

    def add_points(self, state: State, points: Iterable[PlanePoint], texts: dict[Any, str] | None = None) -> None:
        """Keep the points of the information plane at this epoch; `texts` as in `plane_records`."""
        assert self.plane is not None, "points come from a plane"
        epoch, split = state.epoch + self.epoch_offset, self.measure.plane.split
        self.records += plane_records(points, self.plane.reference, self.phase, state.steps, epoch, split, texts)

    def add_gradients(self, state: State, measured: Iterable[Measurement]) -> None:
        """Keep what the gradients of this epoch were like."""
        self._add(measured, state.steps, state.epoch + self.epoch_offset)

    def _add(
        self, measured: Iterable[Measurement], step: int = 0, epoch: float = 0, *, split: str = "", layer: str = "", phase: str = ""
    ) -> None:
        for m in measured:
            detail = dict(m.parameters)
            where = detail.pop("layer", layer)
            self.records.append(
                Record(
                    m.metric, m.value, m.unit, phase or self.phase, step, epoch, split, where, m.n, m.stderr, "",
                    parameters_text(detail) if detail else "{}",
                )
            )

    def _operations(self) -> list[Measurement]:
        """Operations of a forward pass: counted once for all replicates of one architecture."""
        first = self._twin or self
        shapes = [p.shape for p in self.model.parameters()]
        if first._counted is None or first._counted[0] != shapes:
            first._counted = shapes, flops(self.model, self.data.test)
        return first._counted[1]

    def state_after(self, phase: str, masks: Masks | None, *, splits: tuple[str, ...] = ("train", "validation"), epoch: float = 0) -> None:
        """Quality, sparsity per layer and weight histograms as they stand now, under the name `phase`."""
        for name in splits:
            split = self.curves[name] if name in self.curves else self.data.split(name)
            self._add(evaluate(self.model, split, self.loss).values(), epoch=epoch, split=name, phase=phase)
        self._add(_sparsity(self.model, masks), epoch=epoch, phase=phase)
        if self.measure.histogram_bins:
            self._add(_histograms(self.model, self.measure.histogram_bins), epoch=epoch, phase=phase)

    def sparsity_now(self, state: State, masks: Masks) -> None:
        """The sparsity of each layer at this epoch, if it is one to record: for trainings in which it changes."""
        if state.epoch in self._recorded:
            self._add(_sparsity(self.model, masks), state.steps, state.epoch + self.epoch_offset)

    def final(self, masks: Masks | None, *, epoch: float = 0) -> None:
        """The headline figures: quality on all splits, chance, size, operations, latency where asked, mask pictures."""
        self.state_after("final", masks, splits=("train", "validation", "test"), epoch=epoch)
        test = self.data.test
        share = float(test.y.bincount().max()) / len(test)
        self._add([Measurement("chance", share, "fraction", len(test))], split="test", phase="final")
        self._add([*size(self.model), *self._operations()], phase="final")
        if self.measure.latency:
            self._add(latency(self.model, test), phase="final")
        if masks is not None:
            self._add(_pictures(masks), phase="final")
        if self.plane is not None and self.measure.plane.convergence:
            points, split = self.plane.convergence(), self.measure.plane.split
            self.records += plane_records(points, self.plane.reference, "convergence", 0, epoch, split)

    def stage(self, phase: str, model: nn.Module, sizes: Iterable[Measurement]) -> None:
        """Quality of what was made of the network, on validation and test, its sizes, and latency where asked; the network itself stays."""
        for name in ("validation", "test"):
            self._add(evaluate(model, self.data.split(name), self.loss).values(), split=name, phase=phase)
        self._add(sizes, phase=phase)
        if self.measure.latency:
            self._add(latency(model, self.data.test), phase=phase)

    def note(self, phase: str, measured: Iterable[Measurement]) -> None:
        """Keep some numbers more of a phase."""
        self._add(measured, phase=phase)


def plane_records(
    points: Iterable[PlanePoint], ref: Reference, phase: str, step: int, epoch: float, split: str, texts: dict[Any, str] | None = None
) -> list[Record]:
    """One record for each point of the plane, with what its reference says of the input and the labels.

    texts   parameters as text, kept from one replicate to the next: points of one look share most of them. Never for longer than the
            points live, as it is the identity of an estimate's parameters that is looked up.
    """
    found, kept = [], {} if texts is None else texts
    entropies = {"h_x": ref.input_entropy / LN2, "h_y": ref.label_entropy / LN2, "log2_n": math.log2(ref.n), "input": ref.text}
    for point in points:
        e = point.estimate
        key = (id(e.parameters), e.ceiling, e.flags, point.order, point.resolution, id(ref))
        if (text := kept.get(key)) is None:
            own = {"ceiling": e.ceiling, "flags": list(e.flags), "layer_order": point.order, "resolution": point.resolution}
            text = kept[key] = parameters_text({**e.parameters, **entropies, **own})
        found.append(Record(point.quantity, e.value, e.unit, phase, step, epoch, split, point.layer, e.n, e.stderr, e.estimator, text))
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
