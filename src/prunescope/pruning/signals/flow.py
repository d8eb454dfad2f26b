"""Synaptic flow: how much of an all-ones input reaches the output along paths of absolute weights. Needs no data, only a shape."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.pruning.signals.calibration import Calibration, finite, forward, mapped, rows, tensors, undisturbed
from prunescope.pruning.structure import NORMS
from prunescope.registry import signals
from prunescope.types import PruningError

_HOME = nn.modules.activation
ACTIVATIONS = tuple(
    k
    for k in vars(_HOME).values()
    if isinstance(k, type) and k.__module__ == _HOME.__name__ and k not in (nn.MultiheadAttention, nn.GLU)  # these change the shape
)


@signals("synaptic_flow", source="Tanaka et al. 2020, arXiv:2006.05467, algorithm 1")
def synaptic_flow(calibration: Calibration) -> dict[str, Tensor]:
    """dR/d|w| of R = 1^T prod |W_l| 1, the sum of outputs for an input of ones, unitless; shape of each weight, float64, not negative.

    Computed on a float64 copy whose weights are absolute, biases zero, normalisations only their factors |gamma| (over the running
    standard deviation for BatchNorm), activation modules and embeddings passed over; so the sum of w dR/dw is the same in every layer of a
    chain. Activations called as functions stay: exact for ReLU. Query and key weights get 0, as equal tokens attend alike.
    Needs `example_inputs` or data, for the shape of one sample alone. Errors: neither came, an overflow of float64.
    """
    sample = _one_sample(calibration)
    with undisturbed(calibration):
        model = _linear_copy(calibration.model)
        with torch.enable_grad():
            total = sum((t.sum() for t in _floating(forward(model, sample))), torch.zeros((), dtype=torch.float64))
            names = [t.name for t in calibration.targets]
            weights = dict(model.named_parameters())
            found = torch.autograd.grad(total, [weights[n] for n in names], materialize_grads=True)
    return finite("synaptic_flow", {n: g.detach() for n, g in zip(names, found, strict=True)})


def _one_sample(calibration: Calibration) -> Any:
    given = calibration.extra.get("example_inputs")
    if given is None and calibration.batches:
        given = calibration.batches[0][0]
    if given is None:
        raise PruningError("signal 'synaptic_flow' needs the shape of an input and none came: pass example_inputs= (or data=)")
    device = next(calibration.model.parameters()).device
    lengths = {len(t) for t in tensors(given) if t.ndim}
    one = rows(given, slice(0, 1)) if len(lengths) == 1 else given
    return mapped(one, lambda t: torch.ones_like(t, dtype=torch.float64, device=device) if t.is_floating_point() else t.to(device))


def _floating(outputs: Any) -> list[Tensor]:
    first = getattr(outputs, "logits", outputs)
    found = [t for t in tensors(first) if t.is_floating_point()]
    return found[:1]


def _linear_copy(model: nn.Module) -> nn.Module:
    twin: nn.Module = copy.deepcopy(model).double().eval()
    twin.requires_grad_(True)
    with torch.no_grad():
        for name, p in twin.named_parameters():
            p.copy_(torch.zeros_like(p) if "bias" in name.rpartition(".")[2] else p.abs())
    originals = dict(model.named_modules())
    inner: list[tuple[str, nn.Module]] = list(twin.named_modules())
    for name, module in inner:
        if isinstance(module, NORMS) or type(module).__name__.endswith("RMSNorm"):
            module.register_forward_hook(_scaled_by(originals[name]))
        elif isinstance(module, ACTIVATIONS):
            module.register_forward_hook(lambda _m, inputs, _o: inputs[0])
        elif isinstance(module, nn.Embedding):
            module.register_forward_hook(lambda _m, _i, output: torch.ones_like(output))
    return twin


def _scaled_by(norm: nn.Module) -> Any:
    """A hook that replaces a normalisation by its factors on the input: no means, and for BatchNorm the running deviation."""
    scale = getattr(norm, "weight", None)
    factor = torch.ones((), dtype=torch.float64) if scale is None else scale.detach().double().abs()
    if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_var is not None:
        factor = factor / (norm.running_var.double() + norm.eps).sqrt()
    last = isinstance(norm, nn.LayerNorm) or not isinstance(norm, NORMS)

    def hook(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> Tensor:
        x = inputs[0]
        shape = factor.shape if last or not factor.ndim else (1, -1, *([1] * (x.ndim - 2)))
        return x * factor.reshape(shape).to(x.device)

    return hook
