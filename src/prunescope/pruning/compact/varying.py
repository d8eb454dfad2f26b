"""What an input can change: for every tensor of a traced network, which places hold the same number whatever goes in.

`Seen.varies` is a boolean tensor that broadcasts to the tensor's shape (size 1 where all places along a dimension are alike). It errs on
the safe side: False is a proof, from the masks and values of the weights, that no input changes the place. The number that stands there
is then read off one run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prunescope.pruning.coupling import movement
from prunescope.pruning.coupling.channels import CONSTANT, OPAQUE, Label, Ledger, Value
from prunescope.pruning.coupling.pointwise import pointwise as placewise
from prunescope.pruning.coupling.rules import Call
from prunescope.pruning.coupling.walk import rule_of


@dataclass(eq=False)
class Seen:
    """One tensor of the run: its `value`, what `varies` in it, and whether its places along the last dimension are >= 0 and sum to 1."""

    value: Tensor
    varies: Tensor
    shares: bool = False

    @property
    def fixed(self) -> bool:
        """Whether no place depends on the inputs."""
        return not bool(self.varies.any())


Result = Any
VaryRule = Callable[["Step"], Result]
VARY: dict[str, VaryRule] = {}


@dataclass
class Step:
    """One operation at work: its arguments by the schema's names (tensors as `Seen`), and what it gave."""

    target: Any
    name: str
    arguments: dict[str, Any]
    result: Any
    tensors: list[Seen]

    def __getitem__(self, name: str) -> Any:
        return self.arguments.get(name)

    @property
    def input(self) -> Seen:
        """The first tensor."""
        return self.tensors[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the result, of the first where there are several."""
        first = self.result if isinstance(self.result, Tensor) else next(r for r in self.result if isinstance(r, Tensor))
        return tuple(first.shape)


def vary(*names: str) -> Callable[[VaryRule], VaryRule]:
    """Register what an operation makes of places that vary, by its ATen names."""

    def register(function: VaryRule) -> VaryRule:
        VARY.update(dict.fromkeys(names, function))
        return function

    return register


def squeezed(flags: Tensor) -> Tensor:
    """The flags with size 1 along every dimension along which they do not change."""
    for dim in range(flags.ndim):
        if flags.shape[dim] > 1 and bool((flags == flags.narrow(dim, 0, 1)).all()):
            flags = flags.narrow(dim, 0, 1)
    return flags


def along(flags: Tensor, dims: Sequence[int]) -> Tensor:
    """The flags with any place along `dims` standing for all, sizes 1 there."""
    for dim in dims:
        if flags.shape[dim] > 1:
            flags = flags.any(dim, keepdim=True)
    return flags


def zeros(seen: Seen) -> Tensor:
    """Where the tensor is zero whatever goes in: flags that broadcast to its shape."""
    if bool(seen.varies.all()):
        return ~seen.varies
    zero = seen.value == 0
    if seen.varies.any() or zero.numel() > 1 << 22:
        for dim, size in enumerate(seen.varies.shape):
            if size == 1 and zero.shape[dim] > 1:
                zero = zero.all(dim, keepdim=True)
    return squeezed(zero & ~seen.varies)


def settle(step: Step) -> Any:
    """The result as `Seen` (in a list where there are several), by the operation's rule."""
    name = step.name
    if all(t.fixed for t in step.tensors):
        drawn = torch.Tag.nondeterministic_seeded in getattr(step.target, "tags", ()) and name not in MOVING
        return _alike(step.result, drawn)
    rule = VARY.get(name) or VARY.get(name.rstrip("_"))
    if rule is None and name in MOVING:
        rule = moved
    if rule is None and rule_of(step.target)[1] is placewise:
        rule = pointwise
    if rule is None:
        return _alike(step.result, True)
    try:
        found = rule(step)
    except (RuntimeError, ValueError, TypeError, LookupError, StopIteration):  # a form of the operation that its rule misses
        return _alike(step.result, True)
    return _checked(step.result, found)


def _alike(result: Any, varies: bool) -> Any:
    if isinstance(result, Tensor):
        return Seen(result, torch.full((1,) * result.ndim, varies))
    if isinstance(result, tuple | list):
        return [_alike(r, varies) for r in result]
    return result


def _checked(result: Any, found: Any) -> Any:
    """Flags beside values; flags that do not fit the value's shape count as varying."""
    if isinstance(result, Tensor):
        if isinstance(found, Seen):
            return Seen(result, found.varies, found.shares)
        fits = found.ndim == result.ndim and all(a in (1, b) for a, b in zip(found.shape, result.shape, strict=True))
        return Seen(result, found if fits else torch.ones((1,) * result.ndim, dtype=torch.bool))
    if isinstance(found, list | tuple) and len(found) == len(result):
        return [_checked(r, f) for r, f in zip(result, found, strict=True)]
    return _alike(result, True)


MOVING = {
    "clone", "contiguous", "detach", "alias", "lift_fresh_copy", "to", "_to_copy", "type_as", "dropout", "feature_dropout", "alpha_dropout",
    "native_dropout", "lift_fresh", "view_as", "reshape_as", "view", "reshape", "_unsafe_view", "flatten", "unflatten", "ravel",
    "_reshape_alias", "permute", "transpose", "t", "movedim", "moveaxis", "swapaxes", "swapdims", "numpy_T", "mT", "adjoint",
    "permute_copy", "unsqueeze", "squeeze", "squeeze_copy", "unsqueeze_copy", "expand", "expand_as", "broadcast_to", "expand_copy", "slice",
    "select", "narrow", "split", "split_with_sizes", "chunk", "unbind", "tensor_split", "flip", "roll", "slice_copy", "select_copy",
    "unbind_copy", "split_copy", "split_with_sizes_copy", "repeat", "tile", "repeat_interleave", "pixel_shuffle", "pixel_unshuffle",
    "channel_shuffle", "native_channel_shuffle", "unfold", "im2col", "diagonal", "rot90", "unfold_copy", "constant_pad_nd", "pad",
}  # fmt: skip
KEEPING = {"clone", "contiguous", "detach", "alias", "to", "_to_copy", "dropout", "expand", "type_as"}


def moved(step: Step) -> Result:
    """Values that move and do not change: done on the flags, by the coupling's own rule."""
    seen = step.input
    shapes = _shapes(step.result)
    value = Value(tuple(seen.value.shape), (Label(torch.where(seen.varies, OPAQUE, CONSTANT)),), True)
    arguments = {n: (value if a is seen else a) for n, a in step.arguments.items()}
    name, rule = rule_of(step.target)
    call = Call(Ledger(), step.target, arguments, shapes, name.rstrip("_") if step.target._schema.is_mutable else name, [value])
    assert rule is not None
    result = rule(call)
    if isinstance(result, Value):
        return Seen(step.result, squeezed(result.labels[0].ids == OPAQUE), seen.shares and name in KEEPING)
    return [squeezed(r.labels[0].ids == OPAQUE) for r in result]


def _shapes(result: Any) -> Any:
    return tuple(result.shape) if isinstance(result, Tensor) else [_shapes(r) for r in result]


@vary("add", "sub", "rsub", "where", "masked_fill", "clamp", "lerp", "maximum", "minimum", "pow", "prelu", "_prelu_kernel")
def pointwise(step: Step) -> Result:
    """A place varies when it varies in any operand."""
    found = torch.zeros((1,) * len(step.shape), dtype=torch.bool)
    for seen in step.tensors:
        flags = seen.varies
        if step.name in ("prelu", "_prelu_kernel") and seen is not step.input:
            flags = along(flags, range(flags.ndim)).flatten()
        found = found | flags
    return squeezed(found)


@vary("mul", "multiply")
def product(step: Step) -> Result:
    """Zero times anything is zero."""
    if len(step.tensors) == 1:
        return pointwise(step) if step["other"] != 0 else torch.zeros((1,) * len(step.shape), dtype=torch.bool)
    one, two = step.tensors
    return squeezed((one.varies & ~zeros(two)) | (two.varies & ~zeros(one)))


@vary("div", "true_divide")
def quotient(step: Step) -> Result:
    """Zero divided by anything is zero."""
    if len(step.tensors) == 1:
        return pointwise(step)
    one, two = step.tensors
    return squeezed(one.varies | (two.varies & ~zeros(one)))


@vary("cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack", "column_stack")
def joined(step: Step) -> Result:
    """Tensors side by side: written out along the dimension where they meet."""
    dim, names = step["dim"] or 0, {"hstack": 1, "vstack": 0, "dstack": 2, "column_stack": 1}
    dim = names.get(step.name, dim) % len(step.shape)
    parts = [t for t in step.tensors if t.value.ndim > 0 and (t.value.ndim > 1 or len(step.shape) == 1 or t.value.numel())]
    flags = [t.varies for t in parts]
    if step.name == "stack":
        flags = [f.unsqueeze(dim) for f in flags]
        sizes = [1] * len(flags)
    else:
        sizes = [t.value.shape[dim] for t in parts]
    most = [max(f.shape[d] for f in flags) for d in range(len(step.shape))]
    wide = [f.expand([n if d == dim else most[d] for d in range(len(most))]) for f, n in zip(flags, sizes, strict=True)]
    return squeezed(torch.cat(wide, dim))


@vary("slice_scatter", "select_scatter", "copy")
def overwritten(step: Step) -> Result:
    """A part replaced: done on flags that are written out."""
    flags = [t.varies.expand(t.value.shape).to(torch.uint8) for t in step.tensors]
    standing = dict(zip(map(id, step.tensors), flags, strict=True))
    arguments = {n: standing.get(id(a), a) for n, a in step.arguments.items()}
    return squeezed(movement.run(step.target, arguments).bool())


@vary("embedding")
def embedding(step: Step) -> Result:
    """A column is fixed when all rows agree in it."""
    weight = step["weight"]
    if not weight.fixed:
        return along(weight.varies, [0]).view([1] * (len(step.shape) - 1) + [-1])
    differs = (weight.value != weight.value[:1]).any(0)
    return differs.view([1] * (len(step.shape) - 1) + [-1])


@vary("index", "index_select", "gather")
def looked_up(step: Step) -> Result:
    """Places picked by a fixed index: done on the flags where small, else anything of the tensor counts for all."""
    seen, others = step.input, [t for t in step.tensors if t is not step.input]
    if any(not t.fixed for t in others):
        return torch.ones((1,) * len(step.shape), dtype=torch.bool)
    flags = seen.varies.expand(seen.value.shape)
    values = dict(zip(map(id, others), [t.value for t in others], strict=True))
    arguments = {n: flags if a is seen else _plain(a, values) for n, a in step.arguments.items()}
    return squeezed(movement.run(step.target, arguments))


def _plain(argument: Any, values: dict[int, Tensor]) -> Any:
    if isinstance(argument, list | tuple):
        return [_plain(a, values) for a in argument]
    return values.get(id(argument), argument)


@vary("mean", "sum", "var", "std", "var_mean", "std_mean", "norm", "linalg_vector_norm", "nansum", "amax", "amin", "max", "min",
      "logsumexp", "prod", "any", "all", "argmax", "argmin", "median", "aminmax", "mode")  # fmt: skip
def reduced(step: Step) -> Result:
    """A reduction varies with any place that it takes in."""
    if step.name in ("max", "min") and len(step.tensors) > 1:
        return pointwise(step)
    ndim = step.input.value.ndim
    dims = step["dim"]
    over = list(range(ndim)) if dims is None or dims == [] else [d % ndim for d in ([dims] if isinstance(dims, int) else dims)]
    flags = along(step.input.varies, over)
    if not step["keepdim"]:
        flags = flags.reshape([s for d, s in enumerate(flags.shape) if d not in over])
    return flags if isinstance(step.result, Tensor) else [flags for _ in step.result]


@vary("softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax", "cumsum", "cumprod", "sort", "topk", "logcumsumexp")
def whole_line(step: Step) -> Result:
    """Every place along the dimension depends on all of them."""
    ndim = step.input.value.ndim
    dim = (-1 if step["dim"] is None else step["dim"]) % ndim
    flags = along(step.input.varies, [dim])
    shares = step.name in ("softmax", "_softmax", "_safe_softmax") and dim == ndim - 1
    return Seen(step.result, flags, shares) if isinstance(step.result, Tensor) else [flags for _ in step.result]


@vary("glu")
def glu(step: Step) -> Result:
    """The first half times the sigmoid of the second."""
    seen, dim = step.input, step["dim"] % step.input.value.ndim
    one, two = seen.varies.expand(wide(seen, dim)).chunk(2, dim)
    first = Seen(seen.value.chunk(2, dim)[0], one)
    return squeezed(one | (two & ~zeros(first)))


def wide(seen: Seen, dim: int) -> list[int]:
    """The shape of the flags, written out along `dim`."""
    return [seen.value.shape[d] if d == dim else s for d, s in enumerate(seen.varies.shape)]


@vary("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training", "instance_norm", "cudnn_batch_norm")
def batch_norm(step: Step) -> Result:
    """Each channel by itself; one whose weight is zero holds its bias."""
    seen = step.input
    flags = seen.varies
    if step.name == "instance_norm" or step["running_mean"] is None:
        flags = along(flags, range(2, flags.ndim))
    flags = flags & _nonzero(step["weight"], [-1 if d == 1 else 1 for d in range(flags.ndim)])
    return squeezed(flags) if isinstance(step.result, Tensor) else [squeezed(flags), *[torch.ones(1, dtype=torch.bool)] * 2]


def _nonzero(weight: Seen | None, view: list[int]) -> Tensor:
    return torch.ones(1, dtype=torch.bool) if weight is None else (weight.varies | (weight.value != 0)).reshape(view)


@vary("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")
def layer_norm(step: Step) -> Result:
    """All places that share statistics vary together, but those whose weight is zero hold their bias."""
    seen, size = step.input, len(step["normalized_shape"])
    ndim = seen.value.ndim
    flags = along(seen.varies, range(ndim - size, ndim))
    if step["weight"] is not None:
        flags = flags & _nonzero(step["weight"], [1] * (ndim - size) + list(step["weight"].value.shape))
    return squeezed(flags) if isinstance(step.result, Tensor) else [squeezed(flags), *[torch.ones((1,) * ndim, dtype=torch.bool)] * 2]


@vary("group_norm", "native_group_norm")
def group_norm(step: Step) -> Result:
    """As a layer norm, over the channels of each group and all positions."""
    seen = step.input
    groups = step["num_groups"] or step["group"]
    flags = along(seen.varies, range(2, seen.value.ndim)).expand(wide(Seen(seen.value, along(seen.varies, range(2, seen.value.ndim))), 1))
    each = flags.reshape(flags.shape[0], groups, -1).any(2, keepdim=True).expand(-1, -1, flags.shape[1] // groups)
    flags = each.reshape(flags.shape) & _nonzero(step["weight"], [1, -1, *[1] * (flags.ndim - 2)])
    return squeezed(flags) if isinstance(step.result, Tensor) else [squeezed(flags), *[torch.ones((1, 1), dtype=torch.bool)] * 2]


def _positions(step: Step) -> int:
    digits = [int(c) for c in step.name if c in "123"]
    return digits[0] if digits else step.input.value.ndim - 2


def resampled(step: Step) -> Result:
    """Pooling and resampling: any position of a channel counts for all of them."""
    ndim = step.input.value.ndim
    flags = along(step.input.varies, range(ndim - _positions(step), ndim))
    return flags if isinstance(step.result, Tensor) else [flags for _ in step.result]


KINDS = ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "_adaptive_avg_pool", "lp_pool", "upsample_linear",
         "upsample_nearest", "_upsample_nearest_exact", "upsample_bilinear", "upsample_trilinear", "upsample_bicubic",
         "reflection_pad", "replication_pad", "_upsample_bilinear")  # fmt: skip
VARY.update({f"{kind}{d}d{more}": resampled for kind in KINDS for d in "123" for more in ("", "_with_indices", "_aa")})
