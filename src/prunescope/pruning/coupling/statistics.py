"""Normalisations, reductions and softmax: operations that look at many places at once."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from prunescope.pruning.coupling.channels import Label, State, Value
from prunescope.pruning.coupling.movement import run
from prunescope.pruning.coupling.pointwise import merged
from prunescope.pruning.coupling.rules import Call, Result, at_least, rule, settled


def _scaled(call: Call, value: Value, weight: Value | None, bias: Value | None) -> Result:
    """The normalised `value` with the affine terms, which go with the channels along their own dimensions."""
    labels = value.labels
    if weight is not None:
        labels = tuple(merged(call.ledger, [value.with_labels(labels), weight], value.shape, lambda v: v[0] * v[1]))
    if bias is not None:
        labels = tuple(merged(call.ledger, [value.with_labels(labels), bias], value.shape, sum))
    return call.result(labels)


def _at_channels(term: Value | None, ndim: int, dim: int = 1) -> Value | None:
    """A term (channels,) seen as a tensor with the channels in dimension `dim`."""
    if term is None:
        return None
    shape = [1] * ndim
    shape[dim] = term.shape[0]
    labels = tuple(replace(n, ids=n.ids.view([-1 if d == dim else 1 for d in range(ndim)])) for n in term.labels)
    return Value(tuple(shape), labels, term.data, term.const)


@rule("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit", "instance_norm",
      "cudnn_batch_norm")  # fmt: skip
def batch_norm(call: Call) -> Result:
    """Normalisation of each channel by itself; running statistics belong to the channel."""
    value, ndim = call["input"], len(call["input"].shape)
    for name in ("running_mean", "running_var"):
        statistic = _at_channels(call.get(name), ndim)
        if statistic is not None and statistic.labels:
            merged(call.ledger, [value, statistic], value.shape, lambda v: v[0])
    if call.name == "instance_norm" or call.get("running_mean") is None:
        labels = (settled(call, n, range(2, ndim), "runs along positions that are normalised") for n in value.labels)
        value = value.with_labels(n for n in labels if n is not None)
    else:
        value = value.with_labels(at_least(n, State.CONST) for n in value.labels)
    return _scaled(call, value, _at_channels(call.get("weight"), ndim), _at_channels(call.get("bias"), ndim))


@rule("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")
def layer_norm(call: Call) -> Result:
    """Normalisation over the last dimensions: their channels share its statistics."""
    value = call["input"]
    over = set(range(len(value.shape) - len(call["normalized_shape"]), len(value.shape)))
    rms = "rms" in call.name
    labels = []
    for label in value.labels:
        inside = label.dims & over
        if inside:
            if _statistics_read(call):
                call.ledger.freeze(label.ids, "shares statistics that the network reads")
            if label.dims - over:  # values of heads that are normalised by themselves: the head stays or goes as a whole
                labels.append(call.ledger.collapse(label, inside))
                continue
            call.ledger.mix(label, "shares the statistics of a norm")
        state = label.state if rms and label.state is State.ZERO else State.VARY if inside else at_least(label, State.CONST).state
        labels.append(replace(label, state=state))
    return _scaled(call, value.with_labels(labels), call.get("weight"), call.get("bias"))


def _statistics_read(call: Call) -> bool:
    """Whether the norm gives its mean or deviation to somebody, as CompactNorm's does."""
    node = call.ledger.node
    return node is not None and any(u.target is operator.getitem and u.args[1] != 0 and u.users for u in node.users)


@rule("group_norm", "native_group_norm")
def group_norm(call: Call) -> Result:
    """Normalisation over groups of channels, which share its statistics."""
    value = call["input"]
    labels = []
    for label in value.labels:
        whole = settled(call, label, range(2, len(value.shape)), "runs along positions that are normalised")
        if whole is not None and 1 in whole.dims:
            call.ledger.mix(whole, "shares the statistics of a norm")
            whole = replace(whole, state=State.VARY)
        labels += [whole] if whole is not None else []
    ndim = len(value.shape)
    return _scaled(call, value.with_labels(labels), _at_channels(call.get("weight"), ndim), _at_channels(call.get("bias"), ndim))


@rule("_weight_norm", "_weight_norm_interface")
def weight_norm(call: Call) -> Result:
    """A weight as direction and length: a channel along the dimension that is not summed cannot go, for 0 / 0 is no direction."""
    direction, length = call["v"], call["g"]
    for label in direction.labels:
        if call["dim"] % len(direction.shape) in label.dims:
            call.ledger.freeze(label.ids, "has a direction, which zeros have not: remove the weight norm first")
        else:
            call.ledger.mix(label, "shares the length of a weight")
    return call.result(merged(call.ledger, [direction, length], direction.shape, lambda v: v[0] * v[1]))


def _over(call: Call, dims: Any) -> list[int]:
    ndim = len(call.input.shape)
    if dims is None or (isinstance(dims, list | tuple) and not dims):
        return list(range(ndim))
    return [d % ndim for d in ([dims] if isinstance(dims, int) else dims)]


@rule("mean", "sum", "var", "std", "var_mean", "std_mean", "norm", "linalg_vector_norm", "nansum")
def summed(call: Call) -> Result:
    """Sums and statistics that zeros leave as they are: channels along the summed dimensions end in a mixture."""
    return _reduced(call, mixture=True)


@rule("amax", "amin", "max", "min", "logsumexp", "prod", "any", "all", "argmax", "argmin", "median", "aminmax", "mode")
def chosen(call: Call) -> Result:
    """Reductions in which every place has a say: channels along the reduced dimensions are frozen."""
    if call.name in ("max", "min") and len(call.tensors) > 1:
        return call.result(merged(call.ledger, call.tensors, call.shape, lambda v: run(call.target, {"self": v[0], "other": v[1]})))
    return _reduced(call, mixture=False)


def _reduced(call: Call, *, mixture: bool) -> Result:
    over = _over(call, call.get("dim"))
    keep = bool(call.get("keepdim"))
    labels = []
    for label in call.input.labels:
        inside = label.dims & set(over)
        whole: Label | None = label
        if inside and not label.dims - inside:
            if mixture:
                call.ledger.mix(label, f"is reduced by {call.name}")
            else:
                call.ledger.freeze(label.ids, f"is reduced by {call.name}")
            whole = None
        elif inside:
            whole = call.ledger.collapse(label, inside)
        if whole is not None:
            ids = whole.ids if keep else whole.ids.reshape([s for d, s in enumerate(whole.ids.shape) if d not in over])
            zero = call.name in ("mean", "sum", "norm", "linalg_vector_norm", "amax", "amin", "max", "min", "nansum", "std", "var")
            labels.append(Label(ids, whole.state if zero else at_least(whole, State.CONST).state))
    return call.result(labels)


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax", "cumsum", "cumprod", "sort", "argsort", "topk", "logcumsumexp",
      "linalg_qr", "renorm")  # fmt: skip
def along(call: Call) -> Result:
    """Operations along one dimension that keep it: channels along it are frozen, others pass."""
    dim = call.get("dim")
    dim = (-1 if dim is None else dim) % len(call.input.shape)
    labels = []
    for label in call.input.labels:
        whole = settled(call, label, [dim], f"goes through {call.name} with the others")
        labels += [at_least(whole, State.CONST)] if whole is not None else []
    return call.result(labels)


@rule("glu")
def glu(call: Call) -> Result:
    """The first half times the sigmoid of the second."""
    value, dim = call.input, call["dim"] % len(call.input.shape)
    half = value.shape[dim] // 2
    halves = []
    for start in (0, half):
        labels = tuple(replace(n, ids=n.ids.narrow(dim, start, half) if dim in n.dims else n.ids) for n in value.labels)
        halves.append(Value(call.shape, labels, value.data))
    return call.result(merged(call.ledger, halves, call.shape, lambda v: v[0] * torch.sigmoid(v[1])))


def shapes_of(result: Any) -> Any:
    """The shape of a traced result: a tuple, a list of tuples, or None for what is no tensor."""
    if isinstance(result, torch.Tensor):
        return tuple(int(s) for s in result.shape)
    if isinstance(result, Sequence) and not isinstance(result, str):
        return [shapes_of(r) for r in result]
    return None
