"""torch itself: eager, as the model stands, and compiled."""

from __future__ import annotations

import os
import shutil
from typing import Any

import torch

from prunescope.measures.backends.preparation import Job, Run
from prunescope.registry import backends
from prunescope.types import ConfigError, PrunescopeError


@backends("eager", source="torch.nn.Module.forward under no_grad")
def eager(job: Job) -> Run:
    """The model's own forward pass; zeros in its dense weights are multiplied like any other number."""
    return job.model


def _no_compiler(device: torch.device) -> PrunescopeError | None:
    if device.type != "cpu":
        return None  # triton brings its own
    wanted = [c for c in (os.environ.get("CXX"), "g++", "clang++", "cl") if c]
    if any(shutil.which(c) for c in wanted):
        return None
    return ConfigError(f"torch.compile needs a C++ compiler: none of {', '.join(wanted)} is on the path; install one or leave compile out")


@backends("compile", source="torch.compile (Ansel et al. 2024, PyTorch 2)", absent=_no_compiler, slow=True)
def compiled(job: Job) -> Run:
    """torch.compile with its default settings for this batch size; compiling takes up to a minute."""
    made: Any = torch.compile(job.model, dynamic=False)
    with torch._dynamo.config.patch(recompile_limit=256):  # by default it silently runs the ninth network of one class eagerly
        made(job.example)
    return made  # type: ignore[no-any-return]
