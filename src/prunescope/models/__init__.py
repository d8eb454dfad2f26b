"""Models: named networks with seeded weights, and any nn.Module of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from prunescope.models import (  # noqa: F401 (importing them registers their models)
    cnn,
    convolutional,
    densenet,
    external,
    lenet,
    mlp,
    mobilenet,
    recurrent,
    resnet,
    transformer,
    unet,
    vgg,
)
from prunescope.models.activations import ACTIVATIONS
from prunescope.models.initialisation import INITIALISATIONS, initialise
from prunescope.registry import Entry, models
from prunescope.rng import stream_seed, torch_generator
from prunescope.types import ConfigError, PrunescopeError

__all__ = ["ACTIVATIONS", "INITIALISATIONS", "build", "initialise"]


def build(
    name: str, *, input_shape: tuple[int, ...], classes: int, seed: int, options: Mapping[str, Any] | None = None
) -> nn.Module:
    """The model called `name` (or "module:function") for samples of `input_shape`, its weights decided by `seed` alone.

    A function of the user's own gets those of input_shape, classes and generator that its signature names, beside `options`;
    torch's global CPU generator is seeded for it and put back afterwards. ConfigError where no nn.Module comes back.

    >>> build("mlp", input_shape=(4,), classes=2, seed=0, options={"widths": [3]}).output.weight.shape
    torch.Size([2, 3])
    """
    entry = models.get(name)
    if any(size < 1 for size in input_shape) or not input_shape or classes < 1:
        raise ConfigError(f"model {name!r}: input shape {input_shape} and {classes} classes: expected sizes of at least 1")
    context = {"input_shape": tuple(input_shape), "classes": classes, "generator": torch_generator(seed, "init")}
    if "reference" in entry.traits:
        context["reference"] = entry.traits["reference"]
    arguments = entry.arguments(context, options or {})
    model = _own(entry, arguments, seed) if entry.traits.get("own") else entry.function(**arguments)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model {name!r} returned a {type(model).__name__}: expected a torch.nn.Module, so return one")
    return model


def _own(entry: Entry, arguments: Mapping[str, Any], seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(seed, "init"))
        try:
            return entry.function(**arguments)
        except PrunescopeError:
            raise
        except Exception as error:  # the user's code may raise anything
            raise ConfigError(f"model {entry.name!r} raised {type(error).__name__}: {error}: mend the function") from error
