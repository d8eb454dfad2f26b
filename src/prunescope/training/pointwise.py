"""Activations and loss heads of stacked networks: values forward and slopes backward, in place, on feature-major tensors (r, units, b).

torch's tanh spends 2.5 to 3.5 ns a number on CPUs, more than all matrix products of a small network together. Where there is AVX-512
NumPy's takes 0.4 ns and is off by 6e-8 at most; with AVX2 NumPy's takes 2.8 ns, and tanh z = 2 sigmoid(2 z) - 1 by torch 1.4 ns, off by
1.8e-7 at most. Float32 tensors in main memory go the faster way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

_aten: Any = torch.ops.aten
_MINUS_ONE = torch.tensor(-1.0)
WIDE = torch.backends.cpu.get_cpu_capability() == "AVX512"  # whose tanh is faster is a matter of the machine


class Activation(NamedTuple):
    """`forward(z, a)` writes f(z) into a; `backward(d, z, a)` multiplies d by f'(z). `in_place`: z may share a's memory."""

    forward: Callable[[Tensor, Tensor], object]
    backward: Callable[[Tensor, Tensor, Tensor], object]
    in_place: bool = True


def tanh_into(z: Tensor, a: Tensor) -> None:
    """tanh(z) into `a`, which may be `z`; absolute error at most 1.8e-7, 6e-8 where there is AVX-512.

    >>> z = torch.tensor([0.0, 1.0]); tanh_into(z, z); [round(v, 6) for v in z.tolist()]
    [0.0, 0.761594]
    """
    if z.device.type != "cpu" or z.dtype != torch.float32:
        torch.tanh(z, out=a)
    elif WIDE:
        np.tanh(z.numpy(), out=a.numpy())
    else:
        torch.mul(z, 2.0, out=a).sigmoid_()
        torch.add(_MINUS_ONE, a, alpha=2.0, out=a)


def _relu(_: nn.Module) -> Activation:
    return Activation(
        lambda z, a: torch.clamp_min(z, 0.0, out=a), lambda d, z, a: _aten.threshold_backward.grad_input(d, a, 0.0, grad_input=d)
    )


def _relu6(_: nn.Module) -> Activation:
    return Activation(
        lambda z, a: torch.clamp(z, 0.0, 6.0, out=a), lambda d, z, a: _aten.hardtanh_backward.grad_input(d, a, 0.0, 6.0, grad_input=d)
    )


def _tanh(_: nn.Module) -> Activation:
    return Activation(tanh_into, lambda d, z, a: _aten.tanh_backward.grad_input(d, a, grad_input=d))


def _sigmoid(_: nn.Module) -> Activation:
    return Activation(lambda z, a: torch.sigmoid(z, out=a), lambda d, z, a: _aten.sigmoid_backward.grad_input(d, a, grad_input=d))


def _leaky_relu(module: nn.Module) -> Activation:
    slope = float(module.negative_slope)  # type: ignore[arg-type]
    return Activation(
        lambda z, a: _aten.leaky_relu.out(z, slope, out=a),
        lambda d, z, a: _aten.leaky_relu_backward.grad_input(d, z, slope, False, grad_input=d),
        in_place=False,
    )


def _elu(module: nn.Module) -> Activation:
    alpha = float(module.alpha)  # type: ignore[arg-type]
    return Activation(
        lambda z, a: _aten.elu.out(z, alpha, out=a),
        lambda d, z, a: _aten.elu_backward.grad_input(d, alpha, 1.0, 1.0, False, z, grad_input=d),
        in_place=False,
    )


def _softplus(module: nn.Module) -> Activation:
    beta, threshold = float(module.beta), float(module.threshold)  # type: ignore[arg-type]
    return Activation(
        lambda z, a: _aten.softplus.out(z, beta, threshold, out=a),
        lambda d, z, a: _aten.softplus_backward.grad_input(d, z, beta, threshold, grad_input=d),
        in_place=False,
    )


def _softsign(_: nn.Module) -> Activation:
    def forward(z: Tensor, a: Tensor) -> None:
        torch.abs(z, out=a).add_(1.0)
        torch.div(z, a, out=a)

    # the slope 1 / (1 + |z|)^2 is (1 - |a|)^2, but that form loses digits where the unit saturates
    return Activation(forward, lambda d, z, a: d.div_(z.abs_().add_(1.0).square_()), in_place=False)


def _gelu(module: nn.Module) -> Activation:
    kind = str(module.approximate)
    return Activation(
        lambda z, a: _aten.gelu.out(z, approximate=kind, out=a),
        lambda d, z, a: _aten.gelu_backward.grad_input(d, z, approximate=kind, grad_input=d),
        in_place=False,
    )


def _silu(_: nn.Module) -> Activation:
    return Activation(
        lambda z, a: _aten.silu.out(z, out=a), lambda d, z, a: _aten.silu_backward.grad_input(d, z, grad_input=d), in_place=False
    )


def _identity(_: nn.Module) -> Activation:
    return Activation(lambda z, a: a if z is a else a.copy_(z), lambda d, z, a: d)


ACTIVATIONS: dict[type[nn.Module], Callable[[nn.Module], Activation]] = {
    nn.ReLU: _relu,
    nn.ReLU6: _relu6,
    nn.Tanh: _tanh,
    nn.Sigmoid: _sigmoid,
    nn.LeakyReLU: _leaky_relu,
    nn.ELU: _elu,
    nn.Softplus: _softplus,
    nn.Softsign: _softsign,
    nn.GELU: _gelu,
    nn.SiLU: _silu,
    nn.Identity: _identity,
}


class Head(NamedTuple):
    """What follows the last linear layer.

    slope    `slope(z, target, d)` writes into d the derivative of each network's mean loss by z; target (r, c, b) is one-hot
    loss     `loss(z, target)`: each network's mean loss in nats, shape (r,)
    """

    slope: Callable[[Tensor, Tensor, Tensor], object]
    loss: Callable[[Tensor, Tensor], Tensor]


def _mean(values: Tensor) -> Tensor:
    return values.sum(1).mean(1)


def _cross_entropy_slope(z: Tensor, target: Tensor, d: Tensor) -> None:
    torch.softmax(z, 1, out=d)
    d.sub_(target).mul_(1.0 / z.shape[2])


def _softmax_twice_slope(z: Tensor, target: Tensor, d: Tensor) -> None:
    p = torch.softmax(z, 1)
    torch.softmax(p, 1, out=d)
    d.sub_(target).mul_(1.0 / z.shape[2])
    d.sub_((d * p).sum(1, keepdim=True)).mul_(p)


def _binary_slope(z: Tensor, target: Tensor, d: Tensor) -> None:
    p = torch.sigmoid(z, out=d)
    # p - y would do but for p = 0 and p = 1, where torch's two steps give zero; what one by one does is what is wanted
    _aten.sigmoid_backward.grad_input(_aten.binary_cross_entropy_backward(_ONE.to(z), p, target, None, 0), p, grad_input=d)
    d.mul_(1.0 / z.shape[2])


def _binary_loss(z: Tensor, target: Tensor) -> Tensor:
    return _mean(nn.functional.binary_cross_entropy(z.sigmoid(), target, reduction="none"))


_ONE = torch.tensor(1.0)
_LOGITS = Head(_cross_entropy_slope, lambda z, t: -_mean(z.log_softmax(1) * t))
_HEADS: dict[tuple[type[nn.Module] | None, str], Head] = {
    (None, "cross-entropy"): _LOGITS,
    (nn.LogSoftmax, "nll"): _LOGITS,
    # cross-entropy of log-probabilities: their softmax is that of the logits, so slope and loss are too
    (nn.LogSoftmax, "cross-entropy"): _LOGITS,
    (nn.Softmax, "cross-entropy"): Head(_softmax_twice_slope, lambda z, t: -_mean(z.softmax(1).log_softmax(1) * t)),
    (nn.Sigmoid, "binary-cross-entropy"): Head(_binary_slope, _binary_loss),
}


def head(last: nn.Module | None, loss: str) -> Head | None:
    """The head for the module after the last linear layer (None: there is none) under `loss`; None where it is not known."""
    if isinstance(last, nn.Softmax | nn.LogSoftmax) and last.dim not in (-1, 1):
        return None
    return _HEADS.get((type(last) if last is not None else None, loss))
