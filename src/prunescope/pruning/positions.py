"""How often a network uses each of its weights for one sample: what a weight costs in multiplications."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from prunescope.pruning.signals.calibration import forward


@torch.no_grad()
def positions(model: nn.Module, inputs: Any) -> dict[str, float]:
    """How often each module uses each of its weights for one sample: output values a unit (1 for a plain linear layer, pixels, tokens).

    One forward pass in eval mode; the model's mode is put back.
    """
    used: dict[str, float] = {}
    handles = []

    def hook(name: str, module: nn.Module) -> Any:
        def count(_: nn.Module, __: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            weight = getattr(module, "weight", None)
            if isinstance(first, Tensor) and isinstance(weight, Tensor) and weight.ndim > 1 and len(first):
                transposed = isinstance(module, nn.modules.conv._ConvTransposeNd) or type(module).__name__ == "Conv1D"
                units = getattr(module, "out_channels", None) or weight.shape[1 if transposed else 0]
                used[name] = used.get(name, 0.0) + first.numel() / (len(first) * units)

        return count

    training = {m: m.training for m in model.modules()}
    try:
        model.eval()
        handles = [m.register_forward_hook(hook(n, m)) for n, m in model.named_modules()]
        forward(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
    return used
