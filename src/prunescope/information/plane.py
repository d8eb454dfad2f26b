"""The information plane: I(X; T), I(T; Y) and H(T) of every layer, in bits, from activations that somebody recorded."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

import prunescope.information.binning  # noqa: F401  (registers the default estimator)
from prunescope.information.estimate import ceiling_flags, fits, mutual_information
from prunescope.information.raw import Raw
from prunescope.information.reduce import reduced
from prunescope.information.reference import InputMode, Reference, reference
from prunescope.registry import Entry, estimators
from prunescope.rng import torch_generator
from prunescope.types import LN2, ConfigError, Estimate, EstimateError, PrunescopeError, Unit

Quantity = Literal["mi_input", "mi_label", "entropy"]
Spatial = Literal["flatten", "mean"]
Spec = str | Mapping[str, Any]
Bounds = tuple[float, float]

LABELS = {"ksg": "ross", "ksg-lnc": "ross"}  # the estimator that stands in for one of continuous pairs when T is paired with labels
OVER = 0.01  # bits by which a later layer may exceed an earlier one before it is marked


@dataclass(frozen=True)
class PlanePoint:
    """One value of one layer: `estimate` of `quantity` (bits unless nats were asked for), `resolution` says what it speaks about.

    order       position of the layer among those given, from 0
    replicate   which of several networks, None where there was one
    """

    layer: str
    order: int
    quantity: Quantity
    estimate: Estimate
    resolution: str
    replicate: int | None = None


def plane_points(
    activations: Mapping[str, Tensor],
    y: Any,
    *,
    x: Any = None,
    estimators: Iterable[Spec] = ("binning",),
    ranges: Mapping[str, Bounds] | None = None,
    input: InputMode | Mapping[str, Any] = "identity",
    spatial: Spatial = "flatten",
    replicates: bool = False,
    chain: bool = True,
    unit: Unit = "bits",
    seed: int = 0,
) -> list[PlanePoint]:
    """Points of the information plane (bits): I(X; T) "mi_input", I(T; Y) "mi_label" and, where the estimator has it, H(T) "entropy".

    activations   layer name -> (n, ...) numbers in the order of the forward pass; (replicates, n, ...) with replicates=True
    y             labels (n,), or a `Reference` made once for many epochs (then x and input are not needed)
    x, input      the network's input and how it counts, as in `reference`; {"mode": "binned", "bins": 30, "range": (0, 1)} gives options
    estimators    names or tables: {"name": "binning", "bins": 30, "range": (-1, 1) | "data" | "quantile" | "auto"}, or "width": 0.07;
                  "reduce": {"name": "pca", "dimensions": 10} on any of them is a named step before
    ranges        layer -> natural range for range="auto" (tanh [-1, 1], sigmoid [0, 1]), or one found over all units and epochs
    spatial       what to do with (n, channels, ...) maps: "flatten", or "mean" over all but the channels
    chain         whether the layers follow each other: a value above an earlier layer's is then flagged "exceeds-earlier-layer"
    A value that cannot be had (activations not finite, estimator refuses) is a point of value nan with a flag and, in `parameters`, why.

    >>> t = torch.tensor([[-0.9], [-0.8], [0.8], [0.9]])
    >>> [(p.quantity, round(p.estimate.value, 9)) for p in plane_points({"fc1": t}, [0, 0, 1, 1], ranges={"fc1": (-1, 1)})]
    [('entropy', 2.0), ('mi_label', 1.0), ('mi_input', 2.0)]
    """
    ref = y if isinstance(y, Reference) else _reference(y, x, input)
    tasks = [_Task.of(spec, ref, unit, seed) for spec in estimators]
    made: list[list[PlanePoint]] = [[] for _ in tasks]
    for order, (layer, values) in enumerate(activations.items()):  # once: a layer may be captured when it is asked for, and be gone then
        t, shape_text = _rows(layer, values, ref.n, spatial, replicates)
        for task, points in zip(tasks, made, strict=True):
            found = task.layer(layer, order, t, shape_text, (ranges or {}).get(layer))
            points += [p if replicates else replace(p, replicate=None) for p in found]
    return [p for points in made for p in (_marked(points) if chain else points)]


def _reference(y: Any, x: Any, input: InputMode | Mapping[str, Any]) -> Reference:
    if isinstance(input, str):
        return reference(y, x, input=input)
    options = dict(input)
    return reference(y, x, input=options.pop("mode", "binned"), **options)


def _rows(layer: str, values: Tensor, n: int, spatial: Spatial, replicates: bool) -> tuple[Tensor, str]:
    """A layer's activations as (B, n, d) floating numbers, and what was done to maps."""
    if spatial not in ("flatten", "mean"):
        raise ConfigError(f"spatial={spatial!r}: expected 'flatten' or 'mean'")
    t = values.detach() if replicates else values.detach()[None]
    if t.ndim < 2 or t.shape[1] != n:
        raise EstimateError(f"layer {layer!r}: expected {n} samples as in y, got activations of shape {tuple(values.shape)}")
    text = ""
    if t.ndim > 3:
        if spatial == "mean":  # images are (channels, height, width), token sequences (tokens, features)
            t, text = (t.flatten(3).mean(-1), "mean over positions") if t.ndim > 4 else (t.mean(2), "mean over tokens")
        else:
            text = "flattened"
    return t.flatten(2) if t.ndim > 2 else t[..., None], text


@dataclass(frozen=True)
class _Task:
    """One estimator on every layer: its entry, its parameters, the step before it and what it compares with."""

    entry: Entry
    parameters: Mapping[str, Any]
    step: Any
    ref: Reference
    unit: Unit
    seed: int

    @staticmethod
    def of(spec: Spec, ref: Reference, unit: Unit, seed: int) -> _Task:
        options: dict[str, Any] = {"name": spec} if isinstance(spec, str) else dict(spec)
        if "name" not in options:
            raise ConfigError(f"estimator {spec!r}: expected a name or a table with one, as in {{name = 'binning', bins = 30}}")
        step: Any = options.pop("reduce", None)
        entry = estimators.get(str(options.pop("name")))
        if isinstance(options.get("range"), list):
            options["range"] = tuple(options["range"])
        return _Task(entry, options, step, ref, unit, seed)

    def layer(self, layer: str, order: int, t: Tensor, shape_text: str, bounds: Bounds | None) -> list[PlanePoint]:
        """The points of one layer (B, n, d)."""
        if not self.entry.traits.get("codes") and t.dtype not in (torch.float32, torch.float64):
            t = t.to(torch.float32)
        t, step_text = reduced(t, self.step)
        texts = (shape_text, step_text)
        rows = self._own(t, bounds) if "plane" in self.entry.traits else self._verb(t)
        return [
            PlanePoint(layer, order, quantity, estimate, said[replicate % len(said)], replicate)
            for quantity, estimates, resolutions in rows
            for said in [[", ".join(filter(None, (*texts, r))) for r in resolutions]]
            for replicate, estimate in enumerate(estimates)
        ]

    def _own(self, t: Tensor, bounds: Bounds | None) -> Rows:
        """Values from the estimator's own function for planes, which shares work between the quantities."""
        function = self.entry.traits["plane"]
        options = dict(self.parameters)
        if "generator" in inspect.signature(function).parameters:
            options["generator"] = torch_generator(self.seed, "plane", self.entry.name)
        if "bounds" in inspect.signature(function).parameters:
            options["bounds"] = bounds
        try:
            raws: Mapping[Any, Raw] = function(t, self.ref, **options)
        except EstimateError as error:
            if len(t) > 1:
                return _aligned([self._own(one[None], bounds) for one in t])
            refused = self._refused(error, t)
            return [("mi_label", [refused], [self._stated()]), ("mi_input", [refused], [self._stated()])]
        return [(q, self._estimates(raw), self._resolutions(raw)) for q, raw in raws.items()]

    def _resolutions(self, raw: Raw) -> list[str]:
        """The resolution of all replicates, or of each."""
        found = raw.detail.get("resolution", self._stated())
        return [str(r) for r in found] if isinstance(found, list) else [str(found)]

    def _estimates(self, raw: Raw) -> list[Estimate]:
        values = raw.value.reshape(-1).tolist()
        errors = [None] * len(values) if raw.stderr is None else raw.stderr.reshape(-1).tolist()
        ceiling = math.log(self.ref.n) if raw.ceiling is None else float(raw.ceiling)
        stated = {**self.parameters, **{k: v for k, v in raw.detail.items() if k != "resolution"}}
        n, name, own, factor = self.ref.n, self.entry.name, tuple(raw.flags), 1 / LN2 if self.unit == "bits" else 1.0
        flags = [_flags(own, v, ceiling) for v in values]
        return [
            Estimate(v * factor, self.unit, n, name, stated, None if e is None else e * factor, None, ceiling * factor, f)
            for v, e, f in zip(values, errors, flags, strict=True)
        ]

    def _verb(self, t: Tensor) -> Rows:
        """Values from the verb, for estimators that know nothing of planes: T with the labels, and with the input where there is one."""
        label = estimators.get(LABELS.get(self.entry.name, self.entry.name))
        able = fits(label, "continuous", "discrete")
        other = self.ref.labels if able else torch.nn.functional.one_hot(self.ref.label_ids).to(torch.float32)
        stated = self._stated(label.name) + ("" if able else ", labels as one-hot columns")
        rows: Rows = [("mi_label", self._verbs(label, t, other), [stated])]
        if self.ref.input_values is not None:
            text = f"{self._stated()}; finite-sample value, for a deterministic network the truth is infinite or H(X)"
            rows.append(("mi_input", self._verbs(self.entry, t, self.ref.input_values), [text]))
        return rows

    def _verbs(self, entry: Entry, t: Tensor, other: Tensor) -> list[Estimate]:
        options = {k: v for k, v in self.parameters.items() if entry is self.entry or k in entry.options}
        estimates = []
        for one in t:
            try:
                found = mutual_information(one, other.to(t.device), entry.name, unit=self.unit, uncertainty=None, seed=self.seed, **options)
            except EstimateError as error:
                found = self._refused(error, one)
            several = found if isinstance(found, list) else [found]
            estimates += [replace(e, estimator=self.entry.name) for e in several]
        return estimates

    def _refused(self, error: PrunescopeError, t: Tensor) -> Estimate:
        flag = "refused" if bool(torch.isfinite(t).all()) else "not-finite"
        stated = {**self.parameters, "why": str(error)}
        return Estimate(math.nan, self.unit, self.ref.n, self.entry.name, stated, flags=(flag,))

    def _stated(self, name: str = "") -> str:
        return ", ".join((name or self.entry.name, *(f"{k}={v}" for k, v in self.parameters.items())))


Rows = list[tuple[Quantity, list[Estimate], list[str]]]  # quantity, a value a replicate, the resolution of all or of each


def _aligned(replicates: list[Rows]) -> Rows:
    """Rows of single replicates as rows of all of them; one that was refused says so under every quantity that others have."""
    values = [{q: (found[0], texts[0]) for q, found, texts in rows} for rows in replicates]
    found = [(q, [v.get(q, v["mi_label"]) for v in values]) for q in dict.fromkeys(q for rows in replicates for q, _, _ in rows)]
    return [(q, [e for e, _ in both], [text for _, text in both]) for q, both in found]


def _flags(own: Sequence[str], value: float, ceiling: float) -> tuple[str, ...]:
    return (*own, *ceiling_flags(value, ceiling))


def _marked(points: list[PlanePoint]) -> list[PlanePoint]:
    """Points of one estimator, those flagged whose value exceeds an earlier layer's: the data-processing inequality forbids it."""
    least: dict[tuple[str, int | None], Estimate] = {}
    marked = []
    for p in points:
        key, e = (p.quantity, p.replicate), p.estimate.to("bits")
        before = least.get(key)
        if before is None:
            if not math.isnan(e.value):
                least[key] = e
        elif e.value < before.value:
            least[key] = e
        elif e.value > before.value + OVER and e.value > before.value + OVER + 2 * math.hypot(e.stderr or 0, before.stderr or 0):
            p = replace(p, estimate=replace(p.estimate, flags=(*p.estimate.flags, "exceeds-earlier-layer")))
        marked.append(p)
    return marked


def plane_convergence(
    activations: Mapping[str, Tensor], y: Any, *, fractions: Sequence[float] = (0.25, 0.5, 1.0), seed: int = 0, **options: Any
) -> list[PlanePoint]:
    """Points of the plane (bits) at several sample counts: a value still moving between n / 2 and n is not yet an estimate of anything.

    The samples of a smaller count are the first of one seeded order; `options` are those of `plane_points`.
    """
    ref = y if isinstance(y, Reference) else _reference(y, options.pop("x", None), options.pop("input", "identity"))
    order = torch.randperm(ref.n, generator=torch_generator(seed, "convergence"))
    axis = 1 if options.get("replicates") else 0
    points = []
    for fraction in fractions:
        rows = order[: round(fraction * ref.n)].sort().values
        part = {name: t.index_select(axis, rows.to(t.device)) for name, t in activations.items()}
        points += plane_points(part, ref.take(rows), seed=seed, **options)
    return points
