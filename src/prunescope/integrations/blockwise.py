"""Pruning a transformers checkpoint block by block: memory for one block, its inputs and its signals; stopped runs go on.

    embeddings -> inputs of block 0
    for each block:   read its weights, score and prune them on its inputs, run it as pruned for the next block's inputs, write its shard
    what is not in a block is copied; the folder loads with transformers like the one it came from
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.config import value_hash
from prunescope.integrations.checkpoints import Shards, config_of, copy_companions, parts, read_shard, write_index, write_shard
from prunescope.integrations.skeleton import Skeleton
from prunescope.pruning import prunable, prune
from prunescope.registry import criteria
from prunescope.results.files import read_json, write_json
from prunescope.types import ConfigError, DataError, StoreError

STATUS = "prunescope.json"
SCHEMA = 1
WITHOUT_DATA = {"generator", "out_dim", "norm_scales"}  # signals of the weights alone
FROM_INPUTS = {"input_norms", "input_moments", "unit_statistics"}  # signals of what goes into and comes out of a block's own layers
INPUTS = "inputs-of-next-block.safetensors"


@dataclass(frozen=True)
class Settings:
    """How a checkpoint is pruned: `sparsity` of every weight matrix in every block, or what the `granularity` ("2:4") states."""

    criterion: str = "magnitude"
    sparsity: float | None = None
    granularity: str = "weight"
    exclude: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 8
    seed: int = 0

    def key(self, source: Path, calibration: Mapping[str, Tensor] | None) -> str:
        """What a stopped run must have in common with the one that goes on from it."""
        seen = {n: [list(t.shape), float(t.double().sum())] for n, t in (calibration or {}).items()}
        own = {"criterion": self.criterion, "sparsity": self.sparsity, "granularity": self.granularity, "exclude": list(self.exclude)}
        options = {k: str(v) for k, v in self.options.items()}
        return value_hash({**own, "options": options, "seed": self.seed, "calibration": seen, "config": config_of(source)})


@dataclass(frozen=True)
class Pruned:
    """What was done: zeros and entries of all pruned matrices by name, the folder, and how many blocks were taken over from before."""

    folder: Path
    counts: Mapping[str, tuple[int, int]]
    resumed: int

    @property
    def sparsity(self) -> float:
        """The fraction of zeros that was reached in the pruned matrices."""
        return sum(z for z, _ in self.counts.values()) / max(1, sum(n for _, n in self.counts.values()))


@torch.no_grad()
def prune_checkpoint(
    source: str | Path,
    out: str | Path,
    settings: Settings,
    *,
    calibration: Mapping[str, Tensor] | None = None,
    fresh: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Pruned:
    """Prune the linear layers of every block of the model in folder `source` and write the model to the folder `out`.

    calibration   the model's inputs by name, e.g. {"input_ids": (samples, length) int64}; needed by criteria that look at data
    fresh         start anew where `out` holds an unfinished or other run

    Nothing is downloaded and no code of the checkpoint is run. ConfigError for settings that contradict a run begun in `out`, for an
    architecture that is not a list of like blocks, and for a criterion without its data; DataError for damaged files.
    """
    source, out = Path(source), Path(out)
    config_of(source)
    _check_criterion(settings.criterion, calibration)
    shards, skeleton = Shards(source), Skeleton(source)
    work = _Work(source, out, settings, shards, skeleton, calibration)
    work.prepare(fresh)
    resumed = work.done
    for number in range(work.done, skeleton.count):
        progress(number, skeleton.count)
        work.block(number)
    progress(skeleton.count, skeleton.count)
    work.finish()
    return Pruned(out, work.counts, resumed)


def _check_criterion(name: str, calibration: Mapping[str, Tensor] | None) -> None:
    needs = set(criteria.get(name).needs)
    if unfit := sorted(needs - WITHOUT_DATA - FROM_INPUTS):
        raise ConfigError(
            f"criterion {name!r} needs {', '.join(unfit)} of the whole network, and only one block is in memory: "
            "choose magnitude, wanda or sparsegpt, or prune the model in memory with prunescope.prune"
        )
    if needs & FROM_INPUTS and not calibration:
        raise ConfigError(f"criterion {name!r} looks at data: give a calibration file (--calibration FILE)")


class _Work:
    """One run: its place, its status on disk, and the inputs of the block that is next."""

    def __init__(
        self, source: Path, out: Path, settings: Settings, shards: Shards, skeleton: Skeleton, calibration: Mapping[str, Tensor] | None
    ) -> None:
        self.source, self.out, self.settings, self.shards, self.skeleton = source, out, settings, shards, skeleton
        self.calibration = calibration
        self.key = settings.key(source, calibration)
        self.done = 0
        self.counts: dict[str, tuple[int, int]] = {}
        self.hidden: list[Tensor] = []
        self.others: list[dict[str, Any]] = []

    def prepare(self, fresh: bool) -> None:
        """Take over what an earlier run of the same settings finished; refuse a folder that holds anything else."""
        if self.out.resolve() == self.source.resolve():
            raise ConfigError(f"--out {self.out} is the model's own folder: give another one")
        if fresh and (self.out / STATUS).is_file():
            shutil.rmtree(self.out)
        if (self.out / STATUS).is_file():
            self._take_over(read_json(self.out / STATUS))
        elif self.out.exists() and any(self.out.iterdir()):
            raise ConfigError(f"--out {self.out} is not empty and holds no run of prunescope: give an empty or new folder")
        copy_companions(self.source, self.out)
        if self.calibration is not None and self.done < self.skeleton.count:
            self._first_inputs()
            if self.done > 0:
                stored = read_shard(self.out / INPUTS)
                self.hidden = [stored[f"{i}"] for i in range(len(self.hidden))]
        if self.done == 0:
            self._save_status()

    def _take_over(self, status: Mapping[str, Any]) -> None:
        if status.get("schema") != SCHEMA or status.get("key") != self.key:
            raise ConfigError(f"{self.out} holds a run with other settings or data: give another --out, or --fresh to start it anew")
        self.done = int(status["done"])
        self.counts = {n: (int(z), int(c)) for n, (z, c) in status["counts"].items()}
        for number in range(self.done):
            if not (self.out / self._file(number)).is_file():
                raise StoreError(f"{self.out / self._file(number)} is missing though its block was finished: start anew with --fresh")

    def _first_inputs(self) -> None:
        assert self.calibration is not None
        model = self.skeleton.before_blocks(self.shards)
        n = len(next(iter(self.calibration.values())))
        for start in range(0, n, self.settings.batch):
            batch = {k: v[start : start + self.settings.batch] for k, v in self.calibration.items()}
            found = self.skeleton.inputs(model, batch)
            self.hidden.append(found.pop(self.skeleton.first))
            self.others.append(found)

    def _file(self, number: int) -> str:
        return f"model-block-{number:05d}.safetensors"

    def block(self, number: int) -> None:
        """Read, prune, run and write one block."""
        block, names = self.skeleton.block(self.shards, number)
        self._prune(block, f"{self.skeleton.prefix}.{number}")
        for i, (hidden, other) in enumerate(zip(self.hidden, self.others, strict=True)):
            output = block(**{self.skeleton.first: hidden}, **other)
            self.hidden[i] = output[0] if isinstance(output, tuple) else output
        state = block.state_dict()
        write_shard(self.out, self._file(number), {stored: state[n] for n, stored in names.items()})
        if self.hidden:
            write_shard(self.out, INPUTS, {f"{i}": h for i, h in enumerate(self.hidden)})
        self.done = number + 1
        self._save_status()

    def _prune(self, block: nn.Module, name: str) -> None:
        chosen = [n for n in prunable(block) if _is_linear(block, n)]
        if not chosen:
            raise ConfigError(f"{name} has no linear layers: nothing of this model can be pruned block by block")
        data = [({self.skeleton.first: h, **o}, None) for h, o in zip(self.hidden, self.others, strict=True)] or None
        s = self.settings
        prune(
            block, sparsity=s.sparsity, criterion=s.criterion, granularity=s.granularity, allocation="uniform", layers=chosen,
            exclude=list(s.exclude), output=True, data=data, options=s.options, seed=s.seed,
        )  # fmt: skip
        for n in chosen:
            weight = block.get_parameter(n)
            self.counts[f"{name}.{n}"] = (int((weight == 0).sum()), weight.numel())

    def _save_status(self) -> None:
        write_json(self.out / STATUS, {
            "schema": SCHEMA, "key": self.key, "done": self.done, "blocks": self.skeleton.count, "criterion": self.settings.criterion,
            "sparsity": self.settings.sparsity, "granularity": self.settings.granularity,
            "calibration": {n: list(t.shape) for n, t in (self.calibration or {}).items()}, "counts": self.counts,
        })  # fmt: skip

    def finish(self) -> None:
        """Copy what is in no block, write the index, and remove what only a stopped run needs."""
        files: dict[str, str] = {}
        for number in range(self.skeleton.count):
            names = self.skeleton.names(self.shards, self.skeleton.pattern, f"{self.skeleton.prefix}.{number}")
            files |= dict.fromkeys(names.values(), self._file(number))
        rest = [n for n in self.shards.files if n not in files]
        for i, run in enumerate(parts(rest, self.shards)):
            file = f"model-rest-{i:05d}.safetensors"
            write_shard(self.out, file, self.shards.read({n: n for n in run}))
            files |= dict.fromkeys(run, file)
        write_index(self.out, files, sum(self.shards.bytes(n) for n in files))
        (self.out / INPUTS).unlink(missing_ok=True)


def _is_linear(block: nn.Module, name: str) -> bool:
    module = block.get_submodule(name.rpartition(".")[0])
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def calibration_from(path: Path, source: Path, *, samples: int = 128, length: int = 512) -> dict[str, Tensor]:
    """The model's inputs from a file: a .npz or .safetensors of named arrays (input_ids, pixel_values), or a text for its tokenizer.

    A text is cut into at most `samples` runs of `length` tokens. DataError for what cannot be used.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such calibration file: expected .npz, .safetensors or a text")
    if path.suffix == ".safetensors":
        return {n: t[:samples] for n, t in read_shard(path).items()}
    if path.suffix == ".npz":
        from prunescope.data.npz import read_npz

        try:
            return {n: torch.from_numpy(array)[:samples] for n, array in read_npz(path).items()}
        except (TypeError, IndexError) as error:  # texts, or a single number
            raise DataError(f"{path}: expected arrays of numbers with a row a sample: {error}") from error
    from prunescope.integrations.skeleton import _transformers

    try:
        tokenizer = _transformers().AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{source} has no tokenizer for the text {path}: give .npz or .safetensors with input_ids instead") from error
    ids = torch.tensor(tokenizer(path.read_text(encoding="utf-8"))["input_ids"])
    count = min(samples, len(ids) // length)
    if count == 0:
        raise DataError(f"{path}: {len(ids)} tokens, fewer than one sample of {length}: give a longer text or a smaller --length")
    return {"input_ids": ids[: count * length].view(count, length)}
