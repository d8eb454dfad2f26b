"""Flow: the information plane of a network as it stands, layer by layer, in anybody's training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib.figure
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from prunescope.information import PlanePoint, Reference, plane_convergence, plane_points, reference
from prunescope.measures.capture import OUTPUT, Viewed, capture, natural_range, streamed
from prunescope.measures.quality import probabilities
from prunescope.types import DataError

Spec = str | Mapping[str, Any]


class InformationPlane:
    """I(X;T) and I(T;Y) of a network's layers, in bits, at every epoch that `record` is called for.

    model       any module; x (n, ...) the samples that it is shown, y (n,) their labels
    layers      module names (default: every activation, recurrent layer's last state, block's mean token, and the output; see `capture`)
    estimators  names or {"name": ..., parameters}; see `prunescope list estimators`
    input       what I(X;T) compares with: "identity" (X itself: I(X;T) = H(T) for a deterministic network at the stated resolution),
                "binned" (X cut into `input_bins` bins of `input_range`), "codes" (x holds whole numbers)
    output      "softmax": the output layer's class probabilities; "raw": what the model returns
    spatial     layers of more than one axis: "flatten", or "mean" over all positions; "NAME@maps" pools one layer (see `capture`)
    loss        tells how raw outputs become probabilities: "cross-entropy", "nll" or "binary-cross-entropy"

    Source: Tishby & Zaslavsky 2015; Shwartz-Ziv & Tishby 2017, arXiv:1703.00810.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Any,
        y: Any,
        *,
        layers: Sequence[str] | None = None,
        estimators: Sequence[Spec] = ("binning",),
        input: Literal["identity", "binned", "codes"] = "identity",
        input_bins: int = 30,
        input_range: tuple[float, float] | None = None,
        output: str = "softmax",
        spatial: Literal["flatten", "mean"] = "flatten",
        loss: str = "cross-entropy",
        seed: int = 0,
    ) -> None:
        self.spatial: Literal["flatten", "mean"] = spatial
        self.model, self.layers, self.output, self.loss = model, layers, output, loss
        self.x = x if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x))
        self.estimators, self.seed = list(estimators), seed
        options: dict[str, Any] = {"bins": input_bins, "range": input_range or "data"} if input == "binned" else {}
        codes = self.x.flatten(1).long() if input == "codes" else self.x
        # grouped once for all epochs, and once for all planes that are handed the same Reference as y
        self.reference = y if isinstance(y, Reference) else reference(y, codes, input=input, **options)
        self.points: list[tuple[float, PlanePoint]] = []

    def record(self, epoch: float) -> list[PlanePoint]:
        """Estimate all quantities for the network as it stands now and remember them under `epoch`."""
        return self.add(epoch, self.estimated(streamed(self.model, self.x, self.layers)))

    def estimated(self, values: Mapping[str, Tensor], *, replicates: bool = False) -> list[PlanePoint]:
        """All quantities of captured layers, (n, ...) or, of several networks like this one, (replicates, n, ...).

        `values` are asked for one layer after another, once (`streamed`).
        """
        values, bounds = self._prepared(values)
        return plane_points(
            values, self.reference, estimators=self.estimators, ranges=bounds, replicates=replicates, **self._reading(values)
        )

    def convergence(self, fractions: Sequence[float] = (0.25, 0.5, 1.0)) -> list[PlanePoint]:
        """All quantities in bits from the first fractions of the samples (in a seeded order), for the network as it stands now.

        A value that still moves between half of the samples and all of them is not yet an estimate of anything.
        """
        values, bounds = self._prepared(capture(self.model, self.x, self.layers))
        return plane_convergence(
            values, self.reference, fractions=fractions, estimators=self.estimators, ranges=bounds, **self._reading(values)
        )

    def _reading(self, values: Mapping[str, Tensor]) -> dict[str, Any]:
        """How layers are read: what is pooled is not what the next layer sees, so that it may hold less than a later one."""
        pooled = self.spatial == "mean" or any("@" in name for name in values)
        return {"spatial": self.spatial, "chain": not pooled, "seed": self.seed}

    def _prepared(self, values: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], dict[str, tuple[float, float]]]:
        ranges = {name: natural_range(self.model, name) for name in values}
        if self.output == "softmax" and OUTPUT in ranges:
            values = Viewed(values, lambda name, value: probabilities(value, self.loss) if name == OUTPUT else value)
            ranges[OUTPUT] = (0.0, 1.0)
        return values, {name: bound for name, bound in ranges.items() if bound is not None}

    def add(self, epoch: float, points: list[PlanePoint]) -> list[PlanePoint]:
        """Remember `points` under `epoch`. Returns them."""
        self.points += [(epoch, point) for point in points]
        return points

    def to_frame(self) -> pd.DataFrame:
        """All points so far: epoch, layer, order, quantity, value, unit, n, stderr, ceiling, estimator, resolution, flags."""
        return pd.DataFrame(
            [
                {
                    "epoch": epoch,
                    "layer": p.layer,
                    "order": p.order,
                    "quantity": p.quantity,
                    **{c: getattr(p.estimate, c) for c in ("value", "unit", "n", "stderr", "ceiling", "estimator")},
                    "resolution": p.resolution,
                    "flags": " ".join(p.estimate.flags),
                }
                for epoch, p in self.points
            ]
        )

    def plot(self, estimator: str | None = None, number: int = 0) -> matplotlib.figure.Figure:
        """The plane: I(T;Y) against I(X;T) in bits, a line through the layers of each epoch, colour = epoch.

        estimator   its name (default: the first one); number: which of those asked for by that name (two widths of bins, say), from 0
        """
        if not self.points:
            raise DataError("the information plane is empty: call record(epoch) at least once before plot()")
        table = self.to_frame()
        name = estimator or str(table["estimator"].iloc[0])
        table = table[table["estimator"] == name]
        place = table.groupby(["epoch", "order", "layer", "quantity"]).cumcount()
        if not (place == number).any():
            held = ", ".join(dict.fromkeys(self.to_frame()["estimator"]))
            raise DataError(f"the plane holds no estimator {name!r} number {number} (from 0): it holds {held}")
        table = table[place == number]
        wide = table.pivot_table(index=["epoch", "order", "layer"], columns="quantity", values="value")
        figure = matplotlib.figure.Figure(figsize=(5.5, 4.2), layout="constrained")
        axes = figure.subplots()
        epochs = wide.index.get_level_values("epoch").to_numpy()
        scale = matplotlib.colors.Normalize(epochs.min(), max(epochs.max(), epochs.min() + 1))
        for epoch in np.unique(epochs):
            points = wide[epochs == epoch]
            axes.plot(points["mi_input"], points["mi_label"], color=matplotlib.colormaps["viridis"](scale(epoch)), lw=0.6, alpha=0.6)
        marks = axes.scatter(wide["mi_input"], wide["mi_label"], c=epochs, cmap="viridis", norm=scale, s=18, zorder=3)
        figure.colorbar(marks, ax=axes, label="epoch")
        axes.set_xlabel("I(X;T) [bits]")
        axes.set_ylabel("I(T;Y) [bits]")
        first = table["resolution"].iloc[0]
        axes.set_title(f"information plane, {name}{f' ({first})' if first else ''}, n = {len(self.x):,}", fontsize=10)
        return figure
