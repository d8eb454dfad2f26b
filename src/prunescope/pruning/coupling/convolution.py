"""Convolutions, pooling and resampling: channels in dimension 1 (0 without a batch), positions in those after it."""

from __future__ import annotations

import torch
from torch import Tensor

from prunescope.pruning.coupling.channels import Label, Value, line, vector
from prunescope.pruning.coupling.contraction import added, consumed, produced
from prunescope.pruning.coupling.rules import Call, Result, rule, settled


@rule("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution", "_convolution")
def convolution(call: Call) -> Result:
    """Convolutions of any dimension, transposed and grouped ones too.

    In a grouped one the same channel of each group goes together, so that groups stay equal; a depthwise one couples inputs to outputs.
    """
    value, weight, groups = call["input"], call["weight"], call["groups"]
    transposed = "transpose" in call.name or bool(call.get("transposed"))
    dim = len(value.shape) - len(weight.shape) + 1
    inputs, outputs = _sides(call, weight, transposed)
    size = call.shape[dim]
    if groups == 1:
        consumed(call.ledger, value, dim, inputs, 1 - transposed * 1)
        ids = _ids(outputs, transposed * 1, size)
    else:
        ids = _grouped(call, value, dim, inputs, outputs, transposed)
    if ids is None:
        return added(call.ledger, Value(call.shape, (), True), _bias(call, dim))
    return added(call.ledger, produced(call.ledger, ids, call.shape, dim, data=call.data), _bias(call, dim))


def _sides(call: Call, weight: Value, transposed: bool) -> tuple[Label | None, Label | None]:
    """The labels of the weight's inputs and outputs; channels along its kernel are frozen."""
    for label in weight.labels:
        if not label.dims <= {0} and not label.dims <= {1}:
            call.ledger.freeze(label.ids, "is a position of the kernel")
    first, second = (next((n for n in weight.labels if n.dims == {d}), None) for d in (0, 1))
    return (first, second) if transposed else (second, first)


def _ids(label: Label | None, dim: int, size: int) -> Tensor | None:
    return None if label is None else vector(label, dim, size)


def _grouped(call: Call, value: Value, dim: int, inputs: Label | None, outputs: Label | None, transposed: bool) -> Tensor | None:
    groups, weight = call["groups"], call["weight"]
    per_in, per_out = value.shape[dim] // groups, call.shape[dim] // groups
    ledger = call.ledger
    taken = _taken(call, value, dim)
    if transposed:
        own = _ids(inputs, 0, groups * per_in)  # (inputs,), each group's one after another
        each = _ids(outputs, 1, per_out)
        if own is None:
            return _stuck(call, taken, outputs)
        ledger.unite(taken, own)
        if per_in == 1:
            if outputs is not None:
                ledger.freeze(outputs.ids, "is shared by the groups")
            return own.repeat_interleave(per_out)
        ledger.unite(own.view(groups, per_in)[:1], own.view(groups, per_in))
        ledger.mark(own, "consumer")
        return None if each is None else each.repeat(groups)
    if outputs is None:
        return _stuck(call, taken, inputs)
    made = vector(outputs, 0, weight.shape[0])
    if per_in == 1:  # depthwise
        return ledger.unite(made.view(groups, per_out), taken.view(groups, 1)).reshape(-1)
    if inputs is None:
        return _stuck(call, taken, outputs)
    ledger.unite(taken.view(groups, per_in), vector(inputs, 1, per_in))
    ledger.mark(inputs.ids, "consumer")
    ledger.unite(made.view(groups, per_out)[:1], made.view(groups, per_out))
    return made


def _stuck(call: Call, taken: Tensor, other: Label | None) -> Tensor | None:
    """A grouped convolution whose weight has no channels of its own on one side: nothing may go."""
    call.ledger.freeze(taken, "goes into weights that are computed or have one channel")
    if other is not None:
        call.ledger.freeze(other.ids, "belongs to weights that are computed or have one channel")
    return None


def _taken(call: Call, value: Value, dim: int) -> Tensor:
    """The channels (inputs,) that a grouped convolution takes; opaque ones where no weight makes them."""
    found = None
    for label in value.labels:
        if dim in label.dims:
            whole = call.ledger.collapse(label, label.dims - {dim})
            ids = vector(whole, dim, value.shape[dim])
            found = ids if found is None else call.ledger.unite(found, ids)
        else:
            call.ledger.freeze(label.ids, "runs along positions that the layer sums over")
    return torch.zeros(value.shape[dim], dtype=torch.int64) if found is None else found


def _bias(call: Call, dim: int) -> Value | None:
    bias = call.get("bias")
    if bias is None:
        return None
    ndim = len(call.shape)
    shape = tuple(bias.shape[0] if d == dim else 1 for d in range(ndim))
    return Value(shape, tuple(Label(line(vector(n, 0, bias.shape[0]), dim, ndim), n.state) for n in bias.labels), bias.data, bias.const)


KINDS = ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "_adaptive_avg_pool")
POOLS = [f"{kind}{d}d{more}" for kind in KINDS for d in "123" for more in ("", "_with_indices")]
SAMPLERS = [f"upsample_{kind}" for kind in ("nearest1d", "nearest2d", "nearest3d", "_nearest_exact1d", "_nearest_exact2d", "linear1d",
                                            "bilinear2d", "bicubic2d", "trilinear3d")]  # fmt: skip


@rule(*POOLS, *SAMPLERS, "_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_bilinear2d_aa", "grid_sampler",
      "grid_sampler_2d", "grid_sampler_3d", "max_unpool2d", "lp_pool2d")  # fmt: skip
def resampled(call: Call) -> Result:
    """Pooling and resampling over positions: channels along others pass; channels along positions are united over them."""
    first = len(call.input.shape) - _positions(call)
    mixing = range(first, len(call.input.shape))
    labels = [settled(call, n, mixing, "runs along positions that are pooled or resampled") for n in call.input.labels]
    return call.result(n for n in labels if n is not None)


def _positions(call: Call) -> int:
    digits = [int(c) for c in call.name if c in "123"]
    return digits[0] if digits else len(call.input.shape) - 2
