"""Running statistics of batch normalisation, computed anew without training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def recalibrate(model: nn.Module, x: Tensor, batch_size: int) -> int:
    """Set running means and variances of every batch normalisation to those over samples `x` (n, ...); returns how many modules there were.

    Batches are weighted by their size: the mean is that of all samples, the variance the mean of the batches' (unbiased) variances, and
    layers behind a normalisation see what its batch statistics give, as in training. All else of the model is in evaluation mode
    meanwhile, and weights and modes stay what they were.
    """
    found = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not found or len(x) < 2:
        return 0
    modes = {m: m.training for m in model.modules()}
    momenta = {m: m.momentum for m in found}
    try:
        model.eval()
        for norm in found:
            norm.train()
            norm.reset_running_stats()
        seen = 0
        for rows in x.split(batch_size):
            if len(rows) == 1:
                continue  # one sample has no variance
            seen += len(rows)
            for norm in found:
                norm.momentum = len(rows) / seen
            model(rows)
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
    return len(found)
