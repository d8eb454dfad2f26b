"""A made-up run with the records that a real one would hold: enough physics to look like an experiment, no training."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from prunescope.results import files, schema, store

LOG2_N, H_Y = 10.0, 3.32
WIDTHS = (64, 20, 16, 12, 10)


@dataclass
class Made:
    """What the maker wants: variants map a name to (sparsities, at initialisation?)."""

    variants: dict[str, tuple[tuple[float | None, ...], bool]] = field(
        default_factory=lambda: {
            "baseline": ((None,), False),
            "weights at init": ((0.65,), True),
            "neurons at init": ((0.4,), True),
            "random at init": ((0.65,), True),
            "magnitude + fine-tuning": ((0.5, 0.8, 0.9, 0.95, 0.98), False),
            "neurons + fine-tuning": ((0.5, 0.8, 0.9), False),
        }
    )
    groups: tuple[str, ...] = ("tanh", "relu")
    seeds: int = 5
    epochs: int = 20
    finetune: int = 3
    layers: tuple[str, ...] = ("h1", "h2", "h3", "output")
    estimators: tuple[str, ...] = ("binning",)
    information: bool = True
    gradients: bool = True
    logarithmic: bool = False
    specs: tuple[dict, ...] = ()  # instead of `estimators`: tables with a name and settings, as an experiment has them
    convergence: bool = False

    def recorded(self) -> list[int]:
        """The epochs of training that are recorded: all, or 0 and then ever larger steps."""
        if not self.logarithmic:
            return list(range(self.epochs + 1))
        return [0, *np.unique(np.geomspace(1, self.epochs, 40).round().astype(int)).tolist()]


def make_run(folder: Path, made: Made | None = None, **experiment: object) -> SimpleNamespace:
    """A run like `prunescope.load` gives. `experiment` overrides entries of experiment.json."""
    made = made or Made()
    rows: list[dict] = []
    trials: list[dict] = []
    cells = [(g, v, s, init) for g in made.groups for v, (levels, init) in made.variants.items() for s in levels]
    for number, (group, variant, sparsity, init) in enumerate(cells):
        for seed in range(made.seeds):
            key = f"{number:03d}{seed:02d}"
            common = {"experiment": "fake", "trial": key, "group": group, "variant": variant, "sparsity": sparsity, "seed": seed}
            common |= {"criterion": "magnitude", "granularity": "neuron" if "neuron" in variant else "weight", "allocation": "uniform"}
            rows += [common | row for row in trial_rows(made, group, sparsity, init, np.random.default_rng(number * 100 + seed))]
            trials.append({"hash": key, "variant": variant, "group": group, "sparsity": sparsity, "seed": seed})
            trials[-1] |= {"status": "finished", "reason": "", "seconds": 4.0 + 0.1 * seed}
    about = {
        "name": "fake", "title": "A made-up run", "question": "Does pruning change what layers know?", "faults": [],
        "notes": ["Made-up numbers."], "config": {"data": {"name": "digits"}}, "toml": '[data]\nname = "digits"\n',
        "versions": {"python": "3.11", "torch": "2.13.0"}, "command": "prunescope run fake", "baseline": "baseline",
        "created": "2026-11-21T06:00:00", "schema": 1, "data_notes": ["digits: 1,797 images of 8 x 8."],
        "machine": "2 cores, 1 torch thread",
    }  # fmt: skip
    return SimpleNamespace(
        folder=folder, experiment=about | experiment, records=frame(rows), trials=pd.DataFrame(trials), problems=[]
    )


def frame(rows: list[dict]) -> pd.DataFrame:
    defaults = {"step": 0, "epoch": 0.0, "split": "", "layer": "", "unit": "", "n": None, "stderr": np.nan}
    return schema.typed(pd.DataFrame([defaults | {"estimator": "", "parameters": "{}"} | row for row in rows]))


def trial_rows(made: Made, group: str, sparsity: float | None, init: bool, rng: np.random.Generator) -> list[dict]:
    dense, sparsity = sparsity is None, sparsity or 0.0
    peak = 0.97 - 0.02 * rng.random()
    loss_of = 0.02 * sparsity + 0.8 * max(0.0, sparsity - (0.45 if init else 0.9)) ** 1.2
    final = max(0.1, peak - loss_of - 0.02 * sparsity * rng.random())
    if init and sparsity > 0.6 and rng.random() < 0.15:
        final = 0.1
    rows = [*quality("train", 0, 0.1, rng), *quality("pruned", 0, 0.1, rng)] if init else []
    for epoch in made.recorded():
        progress = 1 - np.exp(-4 * epoch / max(1, made.epochs))
        reach = 0.1 + ((final if init else peak) - 0.1) * progress
        rows += quality("train", epoch, reach, rng)
        if made.information:
            rows += plane(made, group, "train", epoch, progress, sparsity if init else 0.0, rng)
        if made.gradients and epoch > 0:
            rows += gradients(epoch, rng)
    if not init and not dense:
        cut = max(0.1, peak - 4 * max(0.0, sparsity - 0.6) ** 1.4)
        rows += quality("pruned", 0, cut, rng)
        for epoch in range(1, made.finetune + 1):
            progress = epoch / made.finetune
            rows += quality("finetune", epoch, cut + (final - cut) * progress, rng)
            if made.information:
                rows += plane(made, group, "finetune", epoch, 1.0, sparsity * 0.3, rng)
    if made.convergence:
        rows += settling(made, rng)
    return rows + last(made, sparsity, init, dense, final, rng)


def quality(phase: str, epoch: float, accuracy: float, rng: np.random.Generator) -> list[dict]:
    rows = []
    for split, gap in (("train", 0.01), ("validation", -0.01)):
        value = float(np.clip(accuracy + gap + 0.004 * rng.normal(), 0, 1))
        common = {"phase": phase, "epoch": epoch, "split": split, "n": 300}
        rows.append(common | {"metric": "accuracy", "value": value, "unit": "fraction"})
        rows.append(common | {"metric": "loss", "value": 2.3 * (1.02 - value), "unit": "nats"})
    return rows


def plane(made: Made, group: str, phase: str, epoch: float, progress: float, sparsity: float, rng: np.random.Generator) -> list[dict]:
    rows = []
    specs = made.specs or tuple({"name": name} for name in made.estimators)
    for e, spec in enumerate(specs):
        for order, layer in enumerate(made.layers):
            depth = (order + 1) / len(made.layers)
            top = LOG2_N * (1.02 - 0.75 * depth**1.5) - 1.5 * e
            squeeze = 0.25 * depth * max(0.0, progress - 0.5) if group == "tanh" else 0.0
            x = min(LOG2_N, top * (0.55 + 0.45 * progress ** (0.3 + depth) - squeeze) * (1 - 0.4 * sparsity * depth) + 0.15 * rng.normal())
            y = min(H_Y, H_Y * (1 - 0.5 * depth * (1 - progress)) * (1 - 0.3 * sparsity * depth) + 0.04 * rng.normal())
            details = {"ceiling": LOG2_N, "layer_order": order, "h_x": LOG2_N, "h_y": H_Y, "log2_n": LOG2_N}
            details |= {k: v for k, v in spec.items() if k != "name"} | {"resolution": resolution(made, spec, order)}
            common = {"phase": phase, "epoch": epoch, "split": "all", "layer": layer, "unit": "bits", "n": 1024, "estimator": spec["name"]}
            flags = {"flags": ["saturated"] if x > LOG2_N - 0.1 else []}
            rows.append(common | {"metric": "mi_input", "value": x, "parameters": json.dumps(details | flags)})
            rows.append(common | {"metric": "mi_label", "value": y, "parameters": json.dumps(details | {"ceiling": H_Y, "flags": []})})
            rows.append(common | {"metric": "entropy", "value": x, "parameters": json.dumps(details | flags)})
    return rows


def resolution(made: Made, spec: dict, order: int) -> str:
    """As of a tanh network: the output layer lies on another range than the hidden ones."""
    bins = spec.get("bins", 30)
    return f"{bins} bins on [0, 1]" if made.specs and order == len(made.layers) - 1 else f"{bins} bins on [-1, 1]"


def settling(made: Made, rng: np.random.Generator) -> list[dict]:
    """The final network's plane at a quarter, half and all of the samples: I(X;T) grows with them, I(T;Y) stands still."""
    rows = plane(made, "", "convergence", made.epochs, 1.0, 0.0, rng)
    found = []
    for n in (256, 512, 1024):
        grown = {"mi_input": np.log2(n / 1024), "entropy": np.log2(n / 1024), "mi_label": 0.0}
        found += [row | {"n": n, "value": row["value"] + grown[row["metric"]]} for row in rows]
    return found


def gradients(epoch: float, rng: np.random.Generator) -> list[dict]:
    rows = []
    for number in range(len(WIDTHS) - 1):
        mean, sd = np.exp(0.2 * rng.normal(size=2)) * (0.5 / epoch, 0.3 / (1 + number))
        common = {"phase": "train", "epoch": epoch, "layer": f"layers.{number}.weight", "n": 7}
        values = {"gradient_mean": mean, "gradient_sd": sd, "gradient_snr": mean / sd}
        rows += [common | {"metric": metric, "value": float(value)} for metric, value in values.items()]
    return rows


def last(made: Made, sparsity: float, init: bool, dense: bool, accuracy: float, rng: np.random.Generator) -> list[dict]:
    rows: list[dict] = []
    for split, gap in (("train", 0.01), ("validation", 0.0), ("test", -0.005)):
        value = float(np.clip(accuracy + gap, 0, 1))
        rows.append({"phase": "final", "split": split, "metric": "accuracy", "value": value, "unit": "fraction", "n": 360})
        rows.append({"phase": "final", "split": split, "metric": "loss", "value": 2.3 * (1.02 - value), "unit": "nats", "n": 360})
    rows.append({"phase": "final", "split": "test", "metric": "chance", "value": 0.1, "unit": "fraction", "n": 360})
    weights = [np.random.default_rng(0).normal(0, 1 / np.sqrt(a), a * b) + 0.02 * rng.normal(size=a * b) for a, b in pairwise(WIDTHS)]
    total = sum(w.size for w in weights)
    kept = total - sum(round(sparsity * w.size) for w in weights)
    sizes = {"parameters": total + 58, "nonzero": kept + 58, "bytes": 4 * (total + 58), "flops": 2 * total}
    for metric, value in (sizes | {"latency_ms": 0.021 + 0.001 * rng.random()}).items():
        rows.append({"phase": "final", "metric": metric, "value": float(value)})
    for phase in ("train", "final") if dense else ("train", "pruned", "final") if init else ("train", "pruned", "finetune", "final"):
        cut = 0.0 if phase == "train" else sparsity
        epoch = made.epochs if phase == "train" and not init else made.finetune if phase == "finetune" else 0
        rows.append({"phase": phase, "metric": "sparsity", "value": cut, "n": total})
        for number, w in enumerate(weights):
            w = w * (1.3 if phase in ("finetune", "final") else 1.0)
            w = np.where(np.abs(w) <= np.quantile(np.abs(w), cut), 0.0, w) if cut else w
            counts, edges = np.histogram(w, 40, range=(-0.9, 0.9))
            layer, zero = f"layers.{number}.weight", float((w == 0).mean())
            bins = json.dumps({"edges": edges.round(6).tolist(), "counts": counts.tolist()})
            common = {"phase": phase, "layer": layer, "value": zero, "n": w.size}
            rows.append(common | {"epoch": epoch, "metric": "weight_histogram", "parameters": bins})
            if phase != "train":
                rows.append(common | {"metric": "sparsity"})
    return rows


def write_run(folder: Path, made: Made | None = None, **experiment: object) -> Path:
    """The made-up run as a run folder on disk, as `prunescope run` leaves it; returns the folder."""
    run = make_run(folder, made, **experiment)
    trials = run.trials.to_dict("records")
    planned = [{key: trial[key] for key in ("hash", "group", "variant", "sparsity", "seed")} for trial in trials]
    files.write_json(folder / "experiment.json", run.experiment | {"trials": planned})
    for trial in trials:
        place = folder / "trials" / trial["hash"]
        store.write_records(place / "records.parquet", run.records[run.records["trial"] == trial["hash"]])
        files.write_json(place / "trial.json", {key: trial[key] for key in ("status", "reason", "seconds")})
    return folder
