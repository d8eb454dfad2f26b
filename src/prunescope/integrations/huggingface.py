"""Pruning in transformers' Trainer. The callback is duck-typed: transformers is neither imported nor needed until you have a Trainer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from safetensors import SafetensorError

from prunescope.integrations.looping import LoopPruning, flat_tensors, joined, nothing, plain_values
from prunescope.results.files import write_beside
from prunescope.types import StoreError

FILE = "prunescope.safetensors"


class TrainerPruning(LoopPruning):
    """A callback for `transformers.Trainer(callbacks=[...])` that prunes the model while it is trained.

    resume   a checkpoint folder to go on from; default: the checkpoint of the Trainer's own output folder that its step tells
    log      the sparsity reached is added to each entry of the Trainer's log history as "sparsity"

    Further keywords as in LoopPruning: sparsity or masks, plane, plane_every and those of `ps.Pruner`. Calibration batches for criteria
    that look at data are pairs: ({"input_ids": ..., "attention_mask": ...}, labels). Masks, the schedule's place and the plane's points
    are written to `checkpoint-N/prunescope.safetensors` beside the model and read again when the Trainer resumes; weights in the
    checkpoint have their zeros and their own names, so that from_pretrained reads them without prunescope.

    >>> TrainerPruning(sparsity=0.5, criterion="magnitude").reached()
    0.0
    """

    def __init__(self, *, resume: str | Path | None = None, log: bool = True, **pruning: Any) -> None:
        super().__init__(**pruning)
        self.resume, self.log = resume, log

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):  # the Trainer calls every event of every callback
            return nothing
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any, optimizer: Any, **_: Any) -> None:
        """The optimiser is there, and a checkpoint has been read."""
        if state.global_step > 0:
            self.restore(read_state(self._folder(args, state.global_step)))
        self.begin(model, [optimizer], float(state.max_steps))
        self.record(int(state.epoch or 0))

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After every epoch."""
        self.record(round(state.epoch))

    def on_log(self, args: Any, state: Any, control: Any, *, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Add the sparsity to what is logged, and to the history that the Trainer keeps."""
        for entry in (logs, state.log_history[-1] if state.log_history else None) if self.log else ():
            if entry is not None:
                entry["sparsity"] = self.reached()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A checkpoint was written: ours goes into its folder."""
        if state.is_world_process_zero:
            write_state(Path(args.output_dir) / f"checkpoint-{state.global_step}", self.state())

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After the last step."""
        self.finish()

    def _folder(self, args: Any, step: int) -> Path:
        if self.resume is not None:
            return Path(self.resume)
        named = getattr(args, "resume_from_checkpoint", None)
        own = Path(args.output_dir) / f"checkpoint-{step}"
        return Path(named) if isinstance(named, str) and Path(named).is_dir() and not (own / FILE).is_file() else own


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write a callback's state as safetensors: tensors under joined names, the rest as JSON in the header."""
    tensors = {n: t.detach().cpu().contiguous() for n, t in flat_tensors(state)}
    header = {"prunescope": json.dumps(plain_values(state))}
    write_beside(folder / FILE, lambda p: safetensors.torch.save_file(tensors, p, header))


def read_state(folder: Path) -> dict[str, Any]:
    """What `write_state` wrote. StoreError where the checkpoint has none or it cannot be read."""
    path = folder / FILE
    if not path.is_file():
        raise StoreError(f"{path}: not there, so the masks to go on with are not known: give the checkpoint's folder as resume=FOLDER")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            values = json.loads((file.metadata() or {})["prunescope"])
            return joined(values, {n: file.get_tensor(n) for n in file.keys()})  # noqa: SIM118 (not a dictionary)
    except (OSError, SafetensorError, KeyError, IndexError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise StoreError(f"{path}: cannot be read as the state of a TrainerPruning: {error}") from error
