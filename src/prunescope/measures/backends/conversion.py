"""Conversion: a network as an ONNX file in memory, for the back-ends that read one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from prunescope import extras


def onnx_bytes(model: nn.Module, example: Tensor) -> bytes:
    """`model` as an ONNX file with its weights inside, for inputs of the example's shape; it takes seconds."""
    with extras.quiet():
        program: Any = torch.onnx.export(model, (example,), dynamo=True, external_data=False, verbose=False)
    return program.model_proto.SerializeToString()  # type: ignore[no-any-return]


def with_weights(content: bytes, model: nn.Module) -> bytes | None:
    """The ONNX file `content` with the parameters of `model` in the place of those of the same names; None where they are not all there.

    A conversion takes seconds, and this a hundredth of that.
    """
    import onnx

    file = onnx.load_from_string(content)
    places = {place.name: place for place in file.graph.initializer}
    for name, p in model.named_parameters():
        if name not in places or tuple(places[name].dims) != tuple(p.shape):
            return None
        places[name].CopyFrom(onnx.numpy_helper.from_array(p.detach().cpu().numpy(), name))
    return file.SerializeToString()  # type: ignore[no-any-return]
