"""Compacted networks in files: safetensors with the sizes beside them for the user's own classes, torch.export's .pt2 for graphs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from prunescope.pruning.compact.norms import CompactNorm
from prunescope.pruning.coupling.trace import call_arguments, exported
from prunescope.types import StoreError

FORMAT = "prunescope-compact-1"


def save_compact(module: nn.Module, path: str | Path, example_inputs: Any = None) -> Path:
    """Write a compacted network to `path` and return it: FILE.safetensors for own classes, FILE.pt2 for a graph module.

    The safetensors file carries, as JSON in its header, the whole numbers and tuples that the modules keep as their sizes; `load_compact`
    puts them and the weights into a fresh, large network. A graph needs `example_inputs` to be exported with, and needs no class to load.
    StoreError where the ending does not fit or the file cannot be written.
    """
    path = Path(path)
    if isinstance(module, torch.fx.GraphModule):
        if path.suffix != ".pt2" or example_inputs is None:
            raise StoreError(f"{path}: a graph module needs a name that ends in .pt2, and example_inputs to export it with")
        args, kwargs = call_arguments(example_inputs)
        try:
            program = exported(module, args, kwargs, resizable=True)
        except Exception:  # a size that cannot stay open
            program = exported(module, args, kwargs)
        torch.export.save(program, path)
        return path
    if path.suffix != ".safetensors":
        raise StoreError(f"{path}: expected a name that ends in .safetensors")
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    seen: dict[int, str] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) in seen:
            aliases[name] = seen[id(tensor)]
        else:
            seen[id(tensor)] = name
            tensors[name] = tensor.detach().contiguous().cpu()
    described = {
        "format": FORMAT, "class": type(module).__name__, "aliases": aliases,
        "attributes": {path: _sizes(m) for path, m in module.named_modules() if not isinstance(m, CompactNorm)},
        "norms": {path: [m.eps, m.dim, m.rms] for path, m in module.named_modules() if isinstance(m, CompactNorm)},
        "parameters": [n for n, _ in module.named_parameters()],
    }  # fmt: skip
    try:
        safetensors.torch.save_file(tensors, str(path), metadata={"prunescope": json.dumps(described)})
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def _sizes(module: nn.Module) -> dict[str, Any]:
    """The plain numbers and tuples of whole numbers among a module's attributes."""
    found: dict[str, Any] = {}
    for name, value in vars(module).items():
        whole = isinstance(value, tuple) and value and all(type(v) is int for v in value)
        if not name.startswith("_") and name != "training" and (type(value) in (int, float) or whole):
            found[name] = list(value) if isinstance(value, tuple) else value
    return found


def load_compact(model: nn.Module | None, path: str | Path, *, trust: bool = False) -> nn.Module:
    """The compacted network in `path`, written by `save_compact`; masks are not needed.

    model   a fresh network as it was before compaction (it stays as it is); None for a graph (.pt2)
    trust   a .pt2 is read by torch.export.load, which runs what the file says: True for a file of somebody whom you trust with that.
            A .safetensors file holds numbers alone and needs no trust

    StoreError where the file is not one of ours or does not fit the model, and for a .pt2 without `trust`.
    """
    path = Path(path)
    if path.suffix == ".pt2":
        if not trust:
            raise StoreError(f"{path}: torch.export.load runs code that a .pt2 file names: pass trust=True if you trust whoever wrote it")
        return _graph(path)
    described, tensors = _read(path)
    if model is None or type(model).__name__ != described.get("class"):
        raise StoreError(
            f"{path}: holds a {described.get('class')}, got {type(model).__name__}: give the network as it was before compaction, freshly "
            "made"
        )
    made = copy.deepcopy(model)
    try:
        _norms(made, described["norms"], tensors)
        for owner, sizes in described["attributes"].items():
            _resize(made.get_submodule(owner), sizes)
        _fill(made, tensors, described)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise StoreError(f"{path}: does not fit this {type(model).__name__}: {error}") from error
    return made


def _resize(module: nn.Module, sizes: dict[str, Any]) -> None:
    """Put the file's numbers in the place of the module's own, and nothing else: a file must not replace what a module does."""
    own = _sizes(module)
    for name, value in sizes.items():
        found = tuple(value) if isinstance(value, list) else value
        if name not in own or not isinstance(found, type(own[name]) if not isinstance(own[name], list) else tuple):
            raise ValueError(f"{name} = {value!r} is no size of a {type(module).__name__}")
        setattr(module, name, found)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            described = json.loads((file.metadata() or {}).get("prunescope", "{}"))
            tensors = {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise StoreError(f"{path}: cannot be read as a compacted network: {error}") from error
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise StoreError(f"{path}: is not a compacted network of prunescope ({FORMAT}): write one with save_compact")
    return described, tensors


def _norms(model: nn.Module, norms: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    for name, (eps, dim, rms) in norms.items():
        weight, bias = tensors.get(f"{name}.weight"), tensors.get(f"{name}.bias")
        terms = (tensors[f"{name}.{n}"] for n in ("member", "counts", "removed"))
        owner, _, last = name.rpartition(".")
        setattr(model.get_submodule(owner), last, CompactNorm(weight, bias, eps, dim, *terms, rms=rms))


def _fill(model: nn.Module, tensors: dict[str, Tensor], described: dict[str, Any]) -> None:
    parameters = set(described["parameters"])
    held: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        owner, _, last = name.rpartition(".")
        module = model.get_submodule(owner)
        before = getattr(module, last, None)
        if name in parameters:
            grad = not isinstance(before, nn.Parameter) or before.requires_grad
            module._parameters[last] = nn.Parameter(tensor, grad)
            held[name] = module._parameters[last]  # type: ignore[assignment]
        else:
            module._buffers[last] = tensor
            held[name] = tensor
    for name, first in described["aliases"].items():
        owner, _, last = name.rpartition(".")
        store = model.get_submodule(owner)
        tensor = held[first]
        if isinstance(tensor, nn.Parameter):
            store._parameters[last] = tensor
        else:
            store._buffers[last] = tensor
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module._init_flat_weights()


def _graph(path: Path) -> nn.Module:
    try:
        module = torch.export.load(path).module(check_guards=False)
    except Exception as error:  # whatever torch finds wrong with the file
        raise StoreError(f"{path}: cannot be read as a torch.export program: {' '.join(str(error).split())[:200]}") from error
    return torch.fx.GraphModule(module, module.graph, "CompactModule")
