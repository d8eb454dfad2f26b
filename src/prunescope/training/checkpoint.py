"""Checkpoints: weights as safetensors under their own state-dict names, never a pickle."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import nn

from prunescope.types import StoreError


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write the parameters and buffers of `model`; tensors that are shared are stored once."""
    try:
        safetensors.torch.save_model(model, str(path))
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{path}: the weights could not be written: {error}") from error


def load_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """Read weights written by `save_weights` into `model`, in place. Returns the model."""
    try:
        safetensors.torch.load_model(model, str(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise StoreError(f"{path}: cannot be read as weights of {type(model).__name__}: {str(error).splitlines()[0]}") from error
    return model
