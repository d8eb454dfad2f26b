"""The compacted network in the user's own classes: a copy with smaller parameters and the attributes that say their sizes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.pruning.compact.intakes import arguments
from prunescope.pruning.compact.layout import layout
from prunescope.pruning.compact.norms import CompactNorm, statistics
from prunescope.pruning.compact.plan import Norm, Plan
from prunescope.pruning.coupling.walk import rule_of


class UnfitError(Exception):
    """The user's classes cannot hold the smaller parameters."""


def own_classes(model: nn.Module, plan: Plan) -> nn.Module:
    """A copy of `model` (masked, in double precision) without what the plan removes. UnfitError where a class has no room for it."""
    old = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    small = copy.deepcopy(model)
    tensors = dict(small.named_parameters()) | dict(small.named_buffers())
    new: dict[int, Tensor] = {}
    for name in sorted({n for n, _ in plan.kept} | set(plan.changed)):
        new[id(tensors[name])] = _shrunk(plan, name, plan.changed.get(name, tensors[name]), tensors[name])
    _biases(small, plan, tensors, new)
    for module in small.modules():
        for store in (module._parameters, module._buffers):
            for last, tensor in store.items():
                if tensor is not None and id(tensor) in new:
                    store[last] = new[id(tensor)]  # type: ignore[assignment]
    sizes = {n: tuple(t.shape) for n, t in old.items()}
    _norms(small, plan)
    for path, module in small.named_modules():
        _resized(path, module, sizes)
    _guessed(small, plan, sizes)
    return small


def sliced(plan: Plan, name: str, tensor: Tensor) -> Tensor:
    """What stays of the tensor `name`."""
    for dim in range(tensor.ndim):
        if (name, dim) in plan.kept:
            tensor = tensor.index_select(dim, plan.kept[name, dim].to(tensor.device))
    return tensor


def _shrunk(plan: Plan, name: str, values: Tensor, like: Tensor) -> Tensor:
    found = sliced(plan, name, values.detach()).contiguous().clone()
    return nn.Parameter(found, like.requires_grad) if isinstance(like, nn.Parameter) else found


def biases(plan: Plan) -> Iterator[tuple[str, str | None, Tensor]]:
    """(weight, its bias or None, what is added to the outputs that stay), for every layer that took constants in."""
    for weight, delta in plan.added.items():
        intake = next(i for i in plan.study.intakes.values() if i.weight == weight)
        kept = plan.kept.get((weight, intake.outputs))
        if intake.outputs == 1 and intake.groups > 1:
            kept = None
        yield weight, intake.bias, delta if kept is None else delta[kept]


def _biases(small: nn.Module, plan: Plan, tensors: dict[str, Tensor], new: dict[int, Tensor]) -> None:
    for weight, bias, delta in biases(plan):
        if not bool(delta.any()):
            continue
        if bias is not None:
            held = tensors[bias]
            new[id(held)] = nn.Parameter(new.get(id(held), held).detach() + delta, held.requires_grad)
            continue
        path, _, last = weight.rpartition(".")
        owner = small.get_submodule(path)
        layers = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
        if not isinstance(owner, layers) or last != "weight" or owner.bias is not None:
            raise UnfitError(f"{path} has no bias that could take the constants of removed inputs")
        owner.bias = nn.Parameter(delta.clone(), owner.weight.requires_grad)


def _norms(small: nn.Module, plan: Plan) -> None:
    made: dict[str, Norm] = {}
    for norm in plan.norms:
        path = norm_path(norm, plan)
        if path is None:
            raise UnfitError("a norm without a module of its own lost channels")
        if (before := made.get(path)) is not None and not torch.equal(before.values, norm.values):
            raise UnfitError(f"{path} is used at two places that lost different constants")
        made[path] = norm
    _means(small, plan)
    for path, norm in made.items():
        module = small.get_submodule(path)
        if not isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.RMSNorm):
            raise UnfitError(f"{path} ({type(module).__name__}) normalises in a way of its own")
        bias = getattr(module, "bias", None)
        eps, member, counts, removed = settings(norm)
        dim = 1 if norm.groups is not None else -1
        made_norm = CompactNorm(module.weight, bias, eps, dim, member, counts, removed, rms=isinstance(module, nn.RMSNorm))
        made_norm.train(module.training)
        _put(small, module, made_norm)


EPSILONS = ("variance_epsilon", "eps", "epsilon")


def _means(small: nn.Module, plan: Plan) -> None:
    """RMS norms that the user's modules spell out: a mean of m squares where n were, of which the others were zeros.

    x / sqrt(m/n mean_m + eps) = sqrt(n/m) x / sqrt(mean_m + n/m eps): the weight and eps take the factor.
    """
    done: set[str] = set()
    for node in plan.coupling.ledger.meetings:
        if node is None or rule_of(node.target)[0] != "mean":
            continue
        source = node.args[0]
        value, dim = plan.coupling.values[source], len(plan.coupling.values[source].shape) - 1
        kept = layout(plan, value).get(dim)
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        path = str(stack[-1][0]).removeprefix("L['self']").lstrip(".") if stack else ""
        if kept is None or not path or path in done:
            continue
        module = small.get_submodule(path)
        name = next((n for n in EPSILONS if isinstance(getattr(module, n, None), float)), None)
        weight = getattr(module, "weight", None)
        if name is None or not isinstance(weight, nn.Parameter) or weight.ndim != 1:
            continue
        done.add(path)
        factor = value.shape[dim] / len(kept)
        weight.data = weight.data * factor**0.5
        setattr(module, name, getattr(module, name) * factor)


def settings(norm: Norm) -> tuple[float, Tensor, Tensor, Tensor]:
    """(eps, group of each kept channel, channels that each group had, what went) of a norm."""
    eps = arguments(norm.node)["eps"]
    if eps is None:
        eps = torch.finfo(norm.node.meta["val"].dtype).eps
    return (float(eps), *statistics(norm.kept, norm.values, norm.width, norm.groups))


def norm_path(norm: Norm, plan: Plan) -> str | None:
    """The path of the module that a norm stands in."""
    stack = list((norm.node.meta.get("nn_module_stack") or {}).values())
    weight = arguments(norm.node).get("weight")
    if weight is not None and weight.name in plan.coupling.trace.tensors:
        return plan.coupling.trace.tensors[weight.name].rpartition(".")[0]
    return str(stack[-1][0]).removeprefix("L['self']").lstrip(".") if stack else None


def _put(root: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for module in root.modules():
        for name, child in module._modules.items():
            if child is old:
                module._modules[name] = new


def _resized(path: str, module: nn.Module, sizes: dict[str, tuple[int, ...]]) -> None:
    """The attributes of torch's own layers that say their sizes."""
    weight = getattr(module, "weight", None)
    shape = tuple(weight.shape) if isinstance(weight, Tensor) else None
    if isinstance(module, nn.Linear) and shape:
        module.out_features, module.in_features = shape
    elif isinstance(module, nn.modules.conv._ConvNd) and shape:
        _convolution(module, shape, sizes.get(f"{path}.weight".lstrip("."), shape))
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        held = next((t for t in (module.weight, module.running_mean) if t is not None), None)
        module.num_features = module.num_features if held is None else len(held)
    elif (isinstance(module, nn.LayerNorm) and shape) or (isinstance(module, nn.RMSNorm) and shape):
        module.normalized_shape = shape
    elif isinstance(module, nn.GroupNorm) and shape:
        module.num_channels = shape[0]
    elif isinstance(module, nn.Embedding) and shape:
        module.num_embeddings, module.embedding_dim = shape
    elif isinstance(module, nn.PReLU) and shape:
        module.num_parameters = shape[0]
    elif isinstance(module, nn.RNNBase):
        _recurrent(module)
    elif isinstance(module, nn.RNNCellBase):
        cell: Any = module
        cell.hidden_size, cell.input_size = cell.weight_hh.shape[1], cell.weight_ih.shape[1]
    elif type(module).__name__ == "Conv1D" and shape and hasattr(module, "nf"):  # transformers' linear layer, turned round
        turned: Any = module
        turned.nx, turned.nf = shape


def _convolution(module: Any, shape: tuple[int, ...], old: tuple[int, ...]) -> None:
    first, second = shape[:2]
    per_group = old[0] // module.groups if module.transposed else old[1]
    if module.groups > 1 and per_group == 1:
        module.groups = first if module.transposed else first // (old[0] // module.groups)
    inputs, outputs = (first, second * module.groups) if module.transposed else (second * module.groups, first)
    module.in_channels, module.out_channels = inputs, outputs


def _recurrent(module: Any) -> None:
    again = [getattr(module, n) for names in module._all_weights for n in names if n.startswith("weight_hh")]
    gates = {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
    widths = {(w.shape[0] // gates, w.shape[1]) for w in again}
    if len(widths) > 1:
        raise UnfitError("a stack of recurrent layers would have layers of unequal width")
    module.hidden_size, out = widths.pop()
    if module.proj_size:
        module.proj_size = out
    module.input_size = module.weight_ih_l0.shape[1]
    module._init_flat_weights()


def _guessed(small: nn.Module, plan: Plan, sizes: dict[str, tuple[int, ...]]) -> None:
    """Whole numbers that the user's modules keep: one that was a size of the parameters below, or the number of heads, follows it."""
    heads: dict[Any, Any] = {}  # every tensor that holds heads -> (how many there were, how many stay)
    for family in plan.coupling.families:
        if family.heads:
            left = (family.pieces, family.pieces - int(plan.removed[family.sets].sum()))
            heads.update((p.tensor, left) for p in family.parts)
    for path, module in small.named_modules():
        if type(module).__module__.startswith("torch.nn.modules"):
            continue
        before = path + "." if path else ""
        now = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
        changes: dict[int, set[int]] = {}
        for name, tensor in now.items():
            if name.count(".") <= 1:
                for a, b in zip(sizes.get(before + name, ()), tensor.shape, strict=False):
                    changes.setdefault(a, set()).add(b)
        near = [n for n in heads if n.startswith(before) and n.removeprefix(before).count(".") <= 1]
        counts = dict(heads[n] for n in near)
        for attribute, value in list(vars(module).items()):
            if attribute.startswith("_") or type(value) is not int or value == 0:
                continue
            if "head" in attribute and "dim" not in attribute and "size" not in attribute:
                _heads(module, attribute, value, counts)
            elif len(found := changes.get(value, set())) == 1 and (new := next(iter(found))) != value:
                setattr(module, attribute, new)


def _heads(module: nn.Module, attribute: str, value: int, counts: dict[int, int]) -> None:
    for old, new in counts.items():
        if new < old and value % old == 0:
            setattr(module, attribute, value // old * new)
            return
