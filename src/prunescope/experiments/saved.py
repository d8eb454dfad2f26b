"""Networks that are stored: a finished trial of a run folder, or a safetensors file that prunescope wrote, as the network it was."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from prunescope import models
from prunescope.config import ModelConfig, TrialConfig, allowing, check_allowed, validated
from prunescope.experiments.deployment import COMPACTED, QUANTISED, stages
from prunescope.experiments.execution import Execution
from prunescope.experiments.finding import known, parted, planned
from prunescope.experiments.sweep import Trial
from prunescope.export import read_weights
from prunescope.pruning import Masks
from prunescope.quantization import restore
from prunescope.registry import unknown
from prunescope.results.files import read_json
from prunescope.results.store import Run, TrialFolder
from prunescope.training import load_weights
from prunescope.types import ConfigError, StoreError

FINAL = "final"
STAGES = (FINAL, COMPACTED, QUANTISED)
LISTED = 12
SAMPLE = 1 << 28  # numbers of a sample, and classes, that a file's header may state at most


@dataclass(frozen=True)
class Saved:
    """A stored network in evaluation mode, its masks (None without, or where they are built in), an example, and facts for its card."""

    model: nn.Module
    masks: Masks | None
    example: Tensor
    about: Mapping[str, Any]
    name: str
    place: Path  # what it was read from: the trial's folder, or the file
    samples: Tensor | None = None  # the trial's training samples (n, ...)


def open_saved(where: str, *, stage: str | None = None, data_dir: Path | None = None, allow: Sequence[str] = ()) -> Saved:
    """The network that `where` names: "RUN", "RUN:HASH" (or its first digits), "RUN/trials/HASH", "RUN:best", or a safetensors FILE
    that prunescope wrote.

    A run with one finished trial needs no hash; "best" has the highest accuracy on the validation split. `stage`: "final" as trained and
    pruned, "compacted", "quantised"; by default the last one that the trial's config asks for. `allow`: functions of one's own
    ("module:function", or modules) that the run's config or the file's header may name.
    Raises StoreError with the candidates where several trials could be meant, ConfigError for a stage that is none.
    """
    if stage is not None and stage not in STAGES:
        raise ConfigError(unknown("stage", stage, list(STAGES)))
    if Path(where).is_file():
        return _from_file(Path(where), stage, allow)
    folder, wanted = parted(where) or (Path(where), "")
    run = Run(folder)
    return _from_trial(run, _chosen(run, wanted), stage, data_dir, allow)


def _chosen(run: Run, wanted: str) -> str:
    """The hash of the one trial that is meant."""
    done = run.trials[run.trials["status"] == "finished"]
    if wanted == "best":
        scores = _scores(run).reindex(done["hash"]).dropna()
        if scores.empty:
            raise StoreError(f"{run.folder}: no finished trial has an accuracy on the validation split: name one by its hash")
        return str(scores.index[int(scores.to_numpy().argmax())])
    found = done[done["hash"].str.startswith(wanted)] if len(done) else done
    if len(found) == 1:
        return str(found["hash"].iloc[0])
    if wanted and not len(found) and wanted in set(run.trials["hash"].str[: len(wanted)]):
        command = run.experiment.get("command", "prunescope run")
        raise StoreError(f"{run.folder}: trial {wanted} is not finished: `{command}` goes on with it")
    what = f"{len(found)} finished trials" + (f" begin with {wanted}" if wanted else "")
    raise StoreError(f"{run.folder}: {what}: name one as RUN:HASH, or RUN:best.\n" + _candidates(run, found if len(found) else done))


def _scores(run: Run) -> pd.Series:
    """Accuracy on validation at the end, by trial."""
    records = run.records
    mine = records[(records["phase"] == "final") & (records["metric"] == "accuracy") & (records["split"] == "validation")]
    return mine.drop_duplicates("trial", keep="last").set_index("trial")["value"]


def _candidates(run: Run, trials: pd.DataFrame) -> str:
    scores = _scores(run)
    listed = trials.assign(score=trials["hash"].map(scores)).sort_values("score", ascending=False, kind="stable")
    lines = []
    rows: list[Any] = listed.head(LISTED).to_dict("records")
    for row in rows:
        level = "" if pd.isna(row["sparsity"]) else f" {100 * float(row['sparsity']):g} %"
        score = "" if pd.isna(row["score"]) else f", validation accuracy {row['score']:.4f}"
        lines.append(f"  {row['hash']}  {', '.join(t for t in (row['group'], row['variant']) if t)}{level}, seed {row['seed']}{score}")
    more = [f"  and {len(listed) - LISTED} more"] if len(listed) > LISTED else []
    return "\n".join([*lines, *more])


def _from_trial(run: Run, name: str, stage: str | None, data_dir: Path | None, allow: Sequence[str]) -> Saved:
    trial = known(run, planned(run, allow), name)
    work = Execution(trial, data_dir=data_dir, device="cpu")
    place = TrialFolder(run.folder / "trials" / name)
    load_weights(work.model, place.weights_file)
    stored = Masks.load(place.masks_file, work.model)
    masks = stored if len(stored) and trial.config.finetune.hold_masks else None
    example = work.data.train.x[:2]
    config, last = _as_asked(trial.config, stage)
    model: nn.Module = work.model.eval()
    found, left = FINAL, masks
    for made in stages(model, masks, config, example=example, calibration=work.calibration):
        model, found, left = made.model, made.phase, None if made.phase == COMPACTED else left
    if last is not None and found != last:
        why = "has no masks, so there is nothing to compact" if last == COMPACTED else "has no layer that torchao makes int8 of"
        raise ConfigError(f"trial {name} {why}: its last stage is {found!r}")
    about = {**_facts(run, trial, place, found), "stage": found, "activations": config.quantize.activations}
    if config.deploy.compact is False:
        about["builder"] = {
            "model": trial.config.model.model_dump(mode="json"),
            "input_shape": list(example.shape[1:]),
            "classes": work.data.classes,
        }
    return Saved(model, left, example, about, f"{trial.experiment}-{name[:8]}", place.folder, work.data.train.x)


def _as_asked(config: TrialConfig, stage: str | None) -> tuple[TrialConfig, str | None]:
    """The config whose stages end with the one asked for."""
    if stage is None:
        return config, None
    compact = config.deploy.compact if stage == QUANTISED else stage == COMPACTED
    weights = "int8" if stage == QUANTISED else "float"
    changed = {
        "deploy": config.deploy.model_copy(update={"compact": compact}),
        "quantize": config.quantize.model_copy(update={"weights": weights}),
    }
    return config.model_copy(update=changed), stage


def _quality(run: Run, trial: Trial, stage: str) -> list[dict[str, Any]]:
    """Loss and accuracy as recorded for the stage; those of the whole network, which say so, where the stage was not part of the run."""
    records = run.records
    mine = records[(records["trial"] == trial.hash) & records["metric"].isin(["accuracy", "loss"]) & (records["layer"] == "")]
    phase = stage if stage in set(mine["phase"]) else FINAL
    rows = mine[mine["phase"] == phase].drop_duplicates(["split", "metric"], keep="last")
    told = rows.rename(columns={"phase": "when"})[["when", "split", "metric", "value", "unit", "n", "stderr"]].astype(object)
    return [{str(k): v for k, v in row.items()} for row in told.where(told.notna(), None).to_dict("records")]


def _facts(run: Run, trial: Trial, place: TrialFolder, stage: str) -> dict[str, Any]:
    status = read_json(place.status_file)
    return {
        "title": f"{run.experiment.get('title') or trial.experiment}: {trial.label}",
        "run": str(run.folder.name),
        "trial": trial.label,
        "hash": trial.hash,
        "command": run.experiment.get("command"),
        "created": run.experiment.get("created"),
        "versions": run.experiment.get("versions"),
        "seconds": status.get("seconds"),
        "settings": status.get("values"),
        "data_notes": run.experiment.get("data_notes"),
        "quality": _quality(run, trial, stage),
    }


def _from_file(path: Path, stage: str | None, allow: Sequence[str]) -> Saved:
    if path.suffix != ".safetensors":
        raise ConfigError(
            f"{path}: expected a run folder or a .safetensors file written by prunescope; other files may run code when they are read"
        )
    tensors, description = read_weights(path)
    about = description.get("about") or {}
    builder = about.get("builder")
    if not isinstance(builder, dict):
        raise StoreError(f"{path}: holds weights and no recipe of the network: build it and call ps.export_model on it")
    if stage not in (None, about.get("stage")):
        raise ConfigError(f"{path} holds the stage {about.get('stage')!r}: others are made from the run, with --stage {stage}")
    config, shape, classes = _recipe(builder, str(path))
    check_allowed({"model": config.model_dump()}, allowing(allow), str(path))
    model = models.build(config.name, input_shape=shape, classes=classes, seed=0, options=config.options)
    model = restore(model, tensors, activations=str(about.get("activations", "dynamic")))
    masks_file = path.with_name(path.name + ".masks")
    masks = Masks.load(masks_file, model) if masks_file.exists() else None
    return Saved(model, masks, torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)), about, path.stem, path)


def _recipe(builder: Mapping[str, Any], path: str) -> tuple[ModelConfig, tuple[int, ...], int]:
    """The model's section, the shape of a sample and the classes that a file's header states."""
    config = validated(TrialConfig, {"model": builder.get("model")}, source=path).model
    shape, classes = builder.get("input_shape"), builder.get("classes", 0)
    if not isinstance(shape, list) or not all(type(n) is int and n > 0 for n in [*shape, classes]) or math.prod([*shape, classes]) > SAMPLE:
        raise StoreError(f"{path}: its header states input_shape {shape!r} and {classes!r} classes: expected whole numbers of at least 1")
    return config, tuple(shape), int(classes)
