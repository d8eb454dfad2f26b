"""Stacked multi-layer perceptrons: r networks in feature-major batched matrix products, forward and backward by hand.

    z = b + W a        (r, out, n) = (r, out, 1) + (r, out, in) @ (r, in, n)

The samples of a batch lie next to each other, so that the few units of a small layer are never the short inner side of a product.
Backward by hand takes a third of autograd's calls and writes every gradient where the optimiser reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunescope.training.flat import FlatParameters
from prunescope.training.pointwise import ACTIVATIONS, Activation, Head, head


@dataclass(frozen=True)
class Layer:
    """A linear layer by name, its sizes, and the module after it, which is "" where there is none."""

    name: str
    inputs: int
    outputs: int
    bias: bool
    follower: str
    activation: Activation


@dataclass(frozen=True)
class Blueprint:
    """A plain multi-layer perceptron: its layers in order, what follows the last one, and the loss head (None: not asked for)."""

    layers: tuple[Layer, ...]
    tail: nn.Module | None
    head: Head | None


def blueprint(model: nn.Module, sample_shape: tuple[int, ...], loss: str | None) -> Blueprint | str:
    """The plan of `model` as a plain multi-layer perceptron under `loss`, or the clause that says why it is none."""
    leaves = list(_leaves(model, ""))
    flat = len(sample_shape) == 1
    if leaves and type(leaves[0][1]) is nn.Flatten and (leaves[0][1].start_dim, leaves[0][1].end_dim) == (1, -1):
        leaves, flat = leaves[1:], True
    groups: list[list[tuple[str, nn.Module]]] = []
    for name, module in leaves:
        if type(module) is nn.Linear:
            groups.append([(name, module)])
        elif groups and len(groups[-1]) == 1:
            groups[-1].append((name, module))
        else:
            return f"{name or 'the model'} ({type(module).__name__}) is no layer of a plain multi-layer perceptron"
    if not groups or not flat:
        return "it has no linear layer" if not groups else f"its samples of shape {sample_shape} are not flattened first"
    layers = _layers(groups)
    return layers if isinstance(layers, str) else _with_head(layers, groups[-1][1][1] if len(groups[-1]) > 1 else None, loss)


def _leaves(model: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    if type(model) is not nn.Sequential:
        yield name, model
        return
    for key, child in model.named_children():
        yield from _leaves(child, f"{name}.{key}" if name else key)


def _layers(groups: list[list[tuple[str, nn.Module]]]) -> tuple[Layer, ...] | str:
    layers: list[Layer] = []
    for group in groups:
        (name, linear), follower = group[0], group[1] if len(group) > 1 and group is not groups[-1] else ("", nn.Identity())
        assert isinstance(linear, nn.Linear)
        if type(follower[1]) not in ACTIVATIONS:
            return f"{follower[0]} ({type(follower[1]).__name__}) has no slope written by hand"
        if layers and layers[-1].outputs != linear.in_features:
            return f"{name} takes {linear.in_features} values where {layers[-1].outputs} come"
        made = ACTIVATIONS[type(follower[1])](follower[1])
        layers.append(Layer(name, linear.in_features, linear.out_features, linear.bias is not None, follower[0], made))
    return tuple(layers)


def _with_head(layers: tuple[Layer, ...], tail: nn.Module | None, loss: str | None) -> Blueprint | str:
    found = head(tail, loss) if loss is not None else None
    if loss is not None and found is None:
        return f"{type(tail).__name__ if tail is not None else 'no module'} at the end with loss {loss!r} has no slope written by hand"
    if loss == "binary-cross-entropy" and layers[-1].outputs != 1:
        return f"binary cross-entropy of {layers[-1].outputs} outputs has no slope written by hand"
    return Blueprint(layers, tail, found)


class _Workspace:
    """The tensors of one batch size: values before and after each activation, and two slopes that take turns."""

    def __init__(self, plan: Blueprint, r: int, n: int, like: Tensor) -> None:
        self.z = [like.new_empty(r, layer.outputs, n) for layer in plan.layers]
        self.a = [z if layer.activation.in_place else torch.empty_like(z) for z, layer in zip(self.z, plan.layers, strict=True)]
        widest = max(layer.outputs for layer in plan.layers)
        turns = [like.new_empty(r * widest * n) for _ in range(2)]
        self.d = [turns[i % 2][: r * z.shape[1] * n].view(z.shape) for i, z in enumerate(self.z)]
        self.transposed = [a.transpose(1, 2) for a in self.a]


class StackedPerceptrons:
    """r multi-layer perceptrons whose parameters are `flat`: mean losses and gradients of a batch for each."""

    def __init__(self, plan: Blueprint, flat: FlatParameters) -> None:
        assert plan.head is not None, "training needs a loss"
        self.plan, self._head, self._flat = plan, plan.head, flat
        names = [layer.name for layer in plan.layers]
        self._weights = [flat.weights[f"{n}.weight"] for n in names]
        self._biases = [flat.weights[f"{n}.bias"].unsqueeze(2) if x.bias else None for n, x in zip(names, plan.layers, strict=True)]
        self._weight_slopes = [flat.gradients[f"{n}.weight"] for n in names]
        self._bias_slopes = [flat.gradients[f"{n}.bias"] if x.bias else None for n, x in zip(names, plan.layers, strict=True)]
        self._transposed = [w.transpose(1, 2) for w in self._weights]
        self._spaces: dict[int, _Workspace] = {}
        self._last: tuple[Tensor, Tensor] | None = None

    def backward(self, x: Tensor, target: Tensor) -> None:
        """Write each network's gradient of its mean loss; `x` (r, n, in), `target` (r, outputs, n) one-hot."""
        space = self._spaces.get(x.shape[1]) or self._spaces.setdefault(
            x.shape[1], _Workspace(self.plan, x.shape[0], x.shape[1], self._flat.values)
        )
        a = x.transpose(1, 2)
        for weight, bias, layer, z, out in zip(self._weights, self._biases, self.plan.layers, space.z, space.a, strict=True):
            torch.bmm(weight, a, out=z) if bias is None else torch.baddbmm(bias, weight, a, out=z)
            layer.activation.forward(z, out)
            a = out
        d = space.d[-1]
        self._head.slope(a, target, d)
        self._last = (a, target)
        for i in range(len(space.z) - 1, -1, -1):
            torch.bmm(d, space.transposed[i - 1] if i else x, out=self._weight_slopes[i])
            if (bias_slope := self._bias_slopes[i]) is not None:
                torch.sum(d, 2, out=bias_slope)
            if i:
                d = torch.bmm(self._transposed[i], d, out=space.d[i - 1])
                self.plan.layers[i - 1].activation.backward(d, space.z[i - 1], space.a[i - 1])

    def losses(self) -> Tensor:
        """Each network's mean loss on the batch of the last `backward`, shape (r,)."""
        assert self._last is not None, "backward comes first"
        return self._head.loss(*self._last)
