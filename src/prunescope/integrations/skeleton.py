"""A transformers model without its blocks' weights: what comes before the blocks for real, each block made when its turn comes."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.integrations.checkpoints import Shards
from prunescope.models.external import plain_attention
from prunescope.types import ConfigError, DataError, MissingExtraError


class _Reached(Exception):
    """The first block was called: its inputs are known."""


class _Catcher(nn.Module):
    """Stands for the first block and keeps what it is called with; other attributes are the block's."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.__dict__["block"] = block
        self.called: list[dict[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["block"], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Keep the arguments by name and stop the model."""
        bound = inspect.signature(self.__dict__["block"].forward).bind(*args, **kwargs)
        named = dict(bound.arguments)
        self.__dict__["called"].append({**named, **named.pop("kwargs", {})})
        raise _Reached


class Skeleton:
    """The architecture of a checkpoint: where its blocks are, and one of them at a time with its weights.

    `prefix` is the name of the list of blocks ("model.layers"), `count` how many there are, `first` the name of a block's first
    argument. MissingExtraError without transformers, ConfigError for an architecture whose blocks are not alike.
    """

    def __init__(self, folder: Path) -> None:
        transformers = _transformers()
        found = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        self.config = plain_attention(found, str(folder))
        self.config.use_cache = False
        kinds = getattr(self.config, "layer_types", None)
        if kinds and len(set(kinds)) > 1:
            raise ConfigError(f"{folder}: its blocks are of several kinds ({', '.join(sorted(set(kinds)))}): only alike ones are supported")
        self.kind = _architecture(transformers, self.config, folder)
        with torch.device("meta"):
            self.whole = self.kind(self.config)
        self.prefix, blocks = _blocks(self.whole, folder)
        self.count, self.pattern = len(blocks), blocks[0]
        self.first = next(iter(inspect.signature(blocks[0].forward).parameters))

    def names(self, source: Shards, module: nn.Module, prefix: str) -> dict[str, str]:
        """{name in `module`: name in the checkpoint} for all stored tensors of the module called `prefix`."""
        found = {}
        for name in module.state_dict():
            full = f"{prefix}.{name}" if prefix else name
            short = full.removeprefix(f"{self.whole.base_model_prefix}.")
            stored = next((n for n in (full, short) if n in source.files), None)
            if stored is not None:
                found[name] = stored
        return found

    def block(self, source: Shards, number: int) -> tuple[nn.Module, dict[str, str]]:
        """Block `number` in evaluation mode with its weights, and where each of them is stored."""
        made = _made(type(self.pattern), self.config, number)
        names = self.names(source, made, f"{self.prefix}.{number}")
        missing = [n for n, p in made.named_parameters() if n not in names]
        if missing:
            raise DataError(f"{source.folder}: block {number} has no weights for {', '.join(missing[:3])}: is the checkpoint complete?")
        made.load_state_dict(source.read(names), strict=False, assign=True)
        return made.eval().requires_grad_(False), names

    def before_blocks(self, source: Shards) -> nn.Module:
        """The model with its embeddings and without blocks, in evaluation mode: what the first block's inputs come from."""
        short = copy.deepcopy(self.config)
        short.num_hidden_layers = 0
        if getattr(short, "layer_types", None):
            short.layer_types = []
        model: nn.Module = self.kind(short)
        names = self.names(source, model, "")
        model.load_state_dict(source.read(names), strict=False, assign=True)
        model.tie_weights()  # type: ignore[operator]
        short.num_hidden_layers = 1
        model.eval().requires_grad_(False)
        return model

    @torch.no_grad()
    def inputs(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Any]:
        """What the first block is called with for a batch of the model's inputs, by argument name."""
        catcher = _Catcher(self.pattern)
        parent = model.get_submodule(self.prefix.rpartition(".")[0])
        parent.register_module(self.prefix.rpartition(".")[2], nn.ModuleList([catcher]))
        try:
            model(**batch)
        except _Reached:
            return {n: v for n, v in catcher.__dict__["called"][0].items() if v is not None}
        raise ConfigError(f"{type(model).__name__} never called its blocks {self.prefix}: this architecture is not supported")


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("hf: models need the package transformers: pip install 'prunescope[hf]'") from error
    return transformers


def _architecture(transformers: Any, config: Any, folder: Path) -> Any:
    named = (getattr(config, "architectures", None) or [""])[0]
    found = getattr(transformers, named, None)
    if found is None:
        raise ConfigError(f"{folder}/config.json: architecture {named!r} is none that the installed transformers knows")
    return found


def _blocks(model: nn.Module, folder: Path) -> tuple[str, nn.ModuleList]:
    """The list of blocks: the one with most parameters, whose members are of one class."""
    lists = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) and len({type(b) for b in m}) == 1]
    if not lists:
        raise ConfigError(f"{folder}: {type(model).__name__} has no list of like blocks: prune it in memory with prunescope.prune")
    return max(lists, key=lambda pair: sum(p.numel() for p in pair[1].parameters()))


def _made(kind: type[nn.Module], config: Any, number: int) -> nn.Module:
    """A block for real: its buffers (rotary frequencies, causal masks) are computed, its weights are about to be replaced."""
    named = inspect.signature(kind.__init__).parameters
    with torch.random.fork_rng(devices=[]):
        return kind(config, layer_idx=number) if "layer_idx" in named else kind(config)
