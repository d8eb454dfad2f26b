"""What varies behind convolutions, matrix products and attention: sums of products with weights that may be zero."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from prunescope.pruning.compact.varying import Result, Seen, Step, along, squeezed, vary, wide, zeros


@vary("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution", "_convolution")
def convolution(step: Step) -> Result:
    """An output varies when one of its inputs does through a kernel that is not zero."""
    seen, weight = step.input, step["weight"]
    dims = range(2, weight.value.ndim)
    dim = seen.value.ndim - len(dims) - 1
    flags = along(seen.varies, range(dim + 1, seen.value.ndim))
    flags = flags.expand(wide(Seen(seen.value, flags), dim)).movedim(dim, -1).reshape(-1, seen.value.shape[dim], 1)
    used = (weight.value != 0).flatten(2).any(2) if weight.fixed else torch.ones(weight.value.shape[:2], dtype=torch.bool)
    transposed = "transpose" in step.name or bool(step["transposed"])
    run = F.conv_transpose1d if transposed else F.conv1d
    found = run(flags.float(), used[:, :, None].float(), groups=step["groups"]) > 0
    if not weight.fixed:
        found = torch.ones_like(found)
    shape = [step.input.varies.shape[0]] * dim + [found.shape[1]] + [1] * len(dims)
    return squeezed(found.reshape(shape))


@vary("linear", "mm", "bmm", "matmul", "mv", "dot", "addmm", "baddbmm", "addmv", "einsum")
def contracted(step: Step) -> Result:
    """A sum of products varies with a term that does; a term with a fixed zero in it is zero."""
    operands = step.tensors[1:3] if step.name in ("addmm", "baddbmm", "addmv") else step.tensors[:2]
    if step.name == "einsum" and len(step.tensors) != 2:
        return torch.ones((1,) * len(step.shape), dtype=torch.bool)
    one, two = operands
    if step.name in ("matmul", "bmm") and one.shares and two.value.ndim > 1:
        return _averaged(one.varies, two)
    varies, present = zip(*(_indicators(step, i, t) for i, t in enumerate(operands)), strict=True)

    def run(a: Tensor, b: Tensor) -> Tensor:
        if step.name == "einsum":
            return torch.einsum(step["equation"], a, b)
        return F.linear(a, b) if step.name == "linear" else a @ b

    flags = run(varies[0], present[1]) > 0
    if not two.fixed:
        flags = flags | (run(present[0], varies[1]) > 0)
    for seen in (step["bias"] if step.name == "linear" else step.input if operands[0] is not step.input else None,):
        flags = flags if seen is None else flags | seen.varies
    return squeezed(flags)


def _indicators(step: Step, number: int, seen: Seen) -> tuple[Tensor, Tensor]:
    """(varies, is not a fixed zero) as numbers, written out along the dimension that is summed over."""
    ndim = seen.value.ndim
    summed = ndim - 1 if number == 0 or step.name == "linear" or ndim == 1 else ndim - 2
    dims = range(ndim) if step.name == "einsum" or seen.fixed else [summed]
    shape = [seen.value.shape[d] if d in dims else s for d, s in enumerate(seen.varies.shape)]
    present = (seen.value != 0) if seen.fixed else ~(zeros(seen) & ~seen.varies)
    present = along(present, [d for d in range(ndim) if shape[d] == 1])
    return seen.varies.expand(shape).float(), present.expand(shape).float()


def _averaged(weights: Tensor, values: Seen) -> Tensor:
    """Averages over the dimension before the last with shares that vary: fixed where all that is averaged is fixed and equal."""
    flags = along(values.varies, [values.value.ndim - 2])
    unequal = (values.value != values.value.narrow(-2, 0, 1)).any(-2, keepdim=True)
    shares = along(weights, [weights.ndim - 1])
    return squeezed(flags | (unequal & shares))


@vary("scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_attention_math")
def attention(step: Step) -> Result:
    """Averages of the values, with shares that vary with queries and keys."""
    query, key, value = step["query"], step["key"], step["value"]
    if step["enable_gqa"] and query.value.shape[-3] != key.value.shape[-3]:
        times = query.value.shape[-3] // key.value.shape[-3]
        flags = value.varies.expand(wide(value, value.value.ndim - 3)).repeat_interleave(times, -3)
        value = Seen(value.value.repeat_interleave(times, -3), flags)
    shares = torch.ones((1,) * value.value.ndim, dtype=torch.bool)
    flags = _averaged(shares, value)
    return flags if isinstance(step.result, Tensor) else [flags, *[torch.ones(1, dtype=torch.bool)] * (len(step.result) - 1)]
