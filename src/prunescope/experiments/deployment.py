"""What is made of a trained and pruned network: what is masked removed, then int8, then files; each stage is measured as it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from prunescope.config import TrialConfig
from prunescope.experiments.execution import Execution
from prunescope.export import export_model
from prunescope.measures.quality import Measurement
from prunescope.measures.size import size
from prunescope.pruning import Masks
from prunescope.quantization import quantize, stored_bytes

COMPACTED, QUANTISED = "compacted", "quantised"  # phases of the records


@dataclass(frozen=True)
class Stage:
    """A network after one step of deployment: its phase in the records, and what is to be said of its size."""

    phase: str
    model: nn.Module
    sizes: tuple[Measurement, ...]
    detail: Mapping[str, Any]


def stages(model: nn.Module, masks: Masks | None, config: TrialConfig, *, example: Tensor, calibration: list[Any]) -> Iterator[Stage]:
    """The network after each step that `config` asks for, in order; `model` itself stays as it is."""
    if config.deploy.compact and masks is not None:
        from prunescope.pruning.compact import compact

        model, report = compact(model, masks, example_inputs=example)
        yield Stage(COMPACTED, model, tuple(size(model)), {"report": str(report)})
    if config.quantize.weights == "int8":
        own = config.quantize
        model, done = quantize(model, activations=own.activations, exclude=own.exclude, calibration=calibration)
        detail = {"activations": own.activations, "aware": own.aware, "int8": list(done.layers), "float": done.kept}
        sizes = (
            Measurement("parameters", done.parameters, "count"),
            Measurement("int8_weights", done.weights, "count", parameters=detail),
            Measurement("bytes", stored_bytes(model), "bytes", parameters={"format": "int8"}),
        )
        yield Stage(QUANTISED, model, sizes, detail)


def deploy(work: Execution, masks: Masks | None) -> None:
    """Carry out the stages, record each, and write the files that the config asks for into the trial's folder."""
    model, phase, left = work.model, "final", masks
    for stage in stages(work.model, masks, work.config, example=work.data.train.x[:2], calibration=work.calibration):
        model, phase, left = stage.model, stage.phase, None if stage.phase == COMPACTED else left
        work.recorder.stage(phase, model, stage.sizes)
    if work.place is None:
        return
    about: dict[str, Any] = {"title": work.trial.label, "trial": work.trial.label, "hash": work.trial.hash, "stage": phase}
    about["quality"] = [
        {"when": phase, "split": r.split, "metric": r.metric, "value": r.value, "unit": r.unit, "n": r.n, "stderr": r.stderr}
        for r in work.recorder.records
        if r.phase == phase and r.metric in ("accuracy", "loss")
    ]
    for kind in work.config.deploy.formats:
        path, example = work.place / f"model.{kind}", work.data.train.x[:2]
        made = export_model(model, path, format=kind, example_inputs=example, masks=left, dynamic_batch=True, about=about)
        work.recorder.note(phase, [Measurement(f"bytes_{kind}", made.bytes, "bytes", parameters={"format": kind, "on": "disk"})])
