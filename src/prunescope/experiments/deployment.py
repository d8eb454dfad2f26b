"""What is made of a trained and pruned network: what is masked removed, then int8, then files; each stage is measured as it stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from prunescope.config import TrialConfig
from prunescope.experiments.execution import Execution
from prunescope.export import export_model
from prunescope.export.graphs import check_onnx
from prunescope.measures.backend_times import backend_times
from prunescope.measures.backends import absence
from prunescope.measures.quality import Measurement
from prunescope.measures.size import size
from prunescope.pruning import Masks
from prunescope.pruning.compact import compact
from prunescope.quantization import quantize, stored_bytes
from prunescope.quantization.choice import chosen
from prunescope.quantization.int8 import torchao
from prunescope.registry import backends

COMPACTED, QUANTISED = "compacted", "quantised"  # phases of the records


@dataclass(frozen=True)
class Stage:
    """A network after one step of deployment: its phase in the records, and what is to be said of its size."""

    phase: str
    model: nn.Module
    sizes: tuple[Measurement, ...]


def stages(model: nn.Module, masks: Masks | None, config: TrialConfig, *, example: Tensor, calibration: list[Any]) -> Iterator[Stage]:
    """The network after each step that `config` asks for, in order; `model` itself stays as it is."""
    if config.deploy.compact and masks is not None:
        model, report = compact(model, masks, example_inputs=example)
        said = {"how": report.how, "removable": report.removable, "error": report.error, "note": report.note}
        removed = Measurement("removed_parameters", report.removed, "count", parameters=said)
        yield Stage(COMPACTED, model, (*size(model), removed))
    own = config.quantize
    if own.weights == "int8" and chosen(model, own.exclude)[0]:
        model, done = quantize(model, activations=own.activations, exclude=own.exclude, calibration=calibration)
        detail = {"activations": own.activations, "aware": own.aware, "int8": list(done.layers), "float": done.kept}
        sizes = (
            Measurement("parameters", done.parameters, "count"),
            Measurement("int8_weights", done.weights, "count", parameters=detail),
            Measurement("bytes", stored_bytes(model), "bytes", parameters={"format": "int8"}),
        )
        yield Stage(QUANTISED, model, sizes)


def deploy(work: Execution, masks: Masks | None) -> None:
    """Carry out the stages, record each, and write the files that the config asks for into the trial's folder.

    Files are of the last stage, ONNX of the last one in floating point.
    """
    floating = last = Stage("final", work.model, ()), masks
    _timed(work, last[0])
    for stage in stages(work.model, masks, work.config, example=work.data.train.x[:2], calibration=work.calibration):
        work.recorder.stage(stage.phase, stage.model, stage.sizes)
        _timed(work, stage)
        last = stage, None if stage.phase == COMPACTED else last[1]
        floating = floating if stage.phase == QUANTISED else last
    if work.config.quantize.weights == "int8" and last[0].phase != QUANTISED:  # said, not silent: the others of the sweep may have int8
        kept = chosen(last[0].model, work.config.quantize.exclude)[1] or {"": "a graph of operations, without layers"}
        work.recorder.note(last[0].phase, [Measurement("int8_weights", 0, "count", parameters={"int8": [], "float": kept})])
    for kind in work.config.deploy.formats if work.place is not None else ():
        _write(work, *(floating if kind == "onnx" else last), kind)


def _timed(work: Execution, stage: Stage) -> None:
    """What the stage takes on each back-end that the config names."""
    own = work.config.deploy
    if own.backends:
        work.recorder.note(stage.phase, backend_times(stage.model, work.data.test.x, own.backends, batch_size=own.batch_size))


def _write(work: Execution, stage: Stage, masks: Masks | None, kind: str) -> None:
    """One file of a stage, and its bytes on disk as a record."""
    assert work.place is not None, "the caller has seen to that"
    quality = [
        {"when": r.phase, "split": r.split, "metric": r.metric, "value": r.value, "unit": r.unit, "n": r.n, "stderr": r.stderr}
        for r in work.recorder.records
        if r.phase == stage.phase and r.metric in ("accuracy", "loss") and not r.layer
    ]
    trial = work.trial
    about: dict[str, Any] = {"title": f"{trial.experiment}: {trial.label}", "trial": trial.label, "hash": trial.hash, "stage": stage.phase}
    about |= {"quality": quality}
    path, example = work.place / f"model.{kind}", work.data.train.x[:2]
    made = export_model(stage.model, path, format=kind, example_inputs=example, masks=masks, dynamic_batch=True, about=about)
    work.recorder.note(stage.phase, [Measurement(f"bytes_{kind}", made.bytes, "bytes", parameters={"format": kind, "on": "disk"})])


def check_extras(config: TrialConfig) -> None:
    """Import what the config's stages need, so that a missing extra shows before anything is trained."""
    if config.quantize.weights == "int8":
        torchao()
    if "onnx" in config.deploy.formats:
        check_onnx()
    for name in config.deploy.backends:
        if (reason := absence(backends.get(name))) is not None:
            raise reason
