"""Pruning in Lightning's Trainer. The callback is duck-typed: Lightning is neither imported nor needed until you have a Trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunescope.integrations.looping import LoopPruning, nothing
from prunescope.pruning.wrapping import distributed
from prunescope.types import ConfigError


class LightningPruning(LoopPruning):
    """A callback for `lightning.Trainer(callbacks=[...])` that prunes the module while it is trained.

    module   the name of the part to prune ("net"), where the LightningModule itself has no `forward`; default: all of it
    log      the sparsity reached is logged after every epoch as "sparsity"

    Further keywords as in LoopPruning: sparsity or masks, plane, plane_every and those of `ps.Pruner`. Optimiser steps count, so that
    accumulated gradients and mixed precision need nothing. Masks and the schedule's place go into Lightning's checkpoints, with the
    plane's points, and come back with `trainer.fit(..., ckpt_path=...)`. The module's state-dict keys stay as they are.

    >>> LightningPruning(sparsity=0.9, criterion="magnitude").reached()
    0.0
    """

    def __init__(self, *, module: str = "", log: bool = True, **pruning: Any) -> None:
        super().__init__(**pruning)
        self.module, self.log = module, log

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):  # Lightning calls every hook of every callback
            return nothing
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def state_key(self) -> str:
        """What Lightning calls the callback in a checkpoint."""
        return f"prunescope.LightningPruning{{{self.module!r}}}"

    _legacy_state_key = state_key

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Nothing: the optimisers are not there yet."""

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Nothing is held that `on_train_end` has not let go."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """The optimisers are there, and a checkpoint has been read."""
        whole = trainer.model if trainer.model is not None else pl_module
        if self.module and distributed(whole) is not None:
            raise ConfigError(f"module={self.module!r}: with DistributedDataParallel the processes agree on the whole module: leave it out")
        model = pl_module.get_submodule(self.module) if self.module else whole
        self.begin(model, trainer.optimizers, trainer.estimated_stepping_batches)
        self.record(trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """After every epoch."""
        if self.log:
            pl_module.log("sparsity", self.reached())
        self.record(trainer.current_epoch + 1)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """After the last step."""
        self.finish()

    def state_dict(self) -> dict[str, Any]:
        """What Lightning puts into its checkpoints."""
        return self.state()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Called by Lightning with what a checkpoint holds."""
        self.restore(state_dict)
