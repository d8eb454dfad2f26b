"""Folders of sharded safetensors as Hugging Face's transformers writes them: read tensor by tensor, written shard by shard."""

from __future__ import annotations

import reprlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from prunescope.results.files import read_json, write_beside, write_json
from prunescope.types import DataError, StoreError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
COMPANIONS = (".json", ".txt", ".model", ".jinja")  # configuration and tokenizer, which go along unread
SHARD_BYTES = 2 << 30


class Shards:
    """The tensors of a checkpoint by name, read when they are asked for.

    DataError for a folder without safetensors (pickled weights are never opened) and for an index that points outside the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if (folder / INDEX).is_file():
            self.files = {str(n): str(f) for n, f in self._index(folder / INDEX).items()}
        elif (folder / SINGLE).is_file():
            self.files = dict.fromkeys(self._open(SINGLE).keys(), SINGLE)
        else:
            raise DataError(
                f"{folder}: expected {SINGLE} or {INDEX} there; pickled weights (.bin, .pt) are not opened: save the model with "
                "save_pretrained(..., safe_serialization=True) first"
            )

    def _index(self, path: Path) -> Mapping[str, Any]:
        found = read_json(path).get("weight_map")
        if not isinstance(found, dict) or not found:
            raise DataError(f"{path}: expected an object 'weight_map' of tensor names to files")
        there = {p.name for p in self.folder.iterdir() if p.is_file()}
        for file in found.values():
            if not isinstance(file, str) or file not in there:
                raise DataError(f"{path}: names the shard {reprlib.repr(file)}: expected a file that lies in {self.folder}")
        return found

    def _open(self, file: str) -> Any:
        try:
            return safe_open(str(self.folder / file), framework="pt")
        except (OSError, SafetensorError) as error:
            raise DataError(f"{self.folder / file}: cannot be read as safetensors: {error}") from error

    def read(self, names: Mapping[str, str]) -> dict[str, Tensor]:
        """{key: tensor} for `names` = {key: tensor's name in the checkpoint}, each file opened once."""
        found: dict[str, Tensor] = {}
        for file in dict.fromkeys(self.files[n] for n in names.values()):
            with self._open(file) as opened:
                if lacking := [n for n in names.values() if self.files[n] == file and n not in opened.keys()]:  # noqa: SIM118
                    raise DataError(f"{self.folder / file}: lacks the tensor {lacking[0]!r} that {INDEX} says it holds")
                found |= {key: opened.get_tensor(n) for key, n in names.items() if self.files[n] == file}
        return found

    def bytes(self, name: str) -> int:
        """The size of a tensor in bytes, read from its file's header."""
        with self._open(self.files[name]) as opened:
            part = opened.get_slice(name)
            count = 1
            for size in part.get_shape():
                count *= size
            return count * _width(part.get_dtype())


def _width(dtype: str) -> int:
    """Bytes a number of a safetensors type: F32, BF16, I64, U8, BOOL, F8_E4M3.

    >>> _width("BF16"), _width("I64"), _width("F8_E4M3"), _width("BOOL")
    (2, 8, 1, 1)
    """
    digits = "".join(c for c in dtype.split("_")[0] if c.isdigit())
    return max(1, int(digits) // 8) if digits else 1


def parts(names: list[str], source: Shards) -> Iterator[list[str]]:
    """`names` in runs of at most SHARD_BYTES, so that what is merely copied is never all in memory."""
    run: list[str] = []
    size = 0
    for name in names:
        width = source.bytes(name)
        if run and size + width > SHARD_BYTES:
            yield run
            run, size = [], 0
        run.append(name)
        size += width
    if run:
        yield run


def write_shard(folder: Path, file: str, tensors: Mapping[str, Tensor]) -> None:
    """Write one shard, beside its place and renamed."""
    contiguous = {n: t.contiguous() for n, t in tensors.items()}
    write_beside(folder / file, lambda p: safetensors.torch.save_file(contiguous, str(p), metadata={"format": "pt"}))


def read_shard(path: Path) -> dict[str, Tensor]:
    """All tensors of a file that `write_shard` wrote."""
    try:
        return safetensors.torch.load_file(str(path))
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{path}: cannot be read as safetensors: {error}") from error


def write_index(folder: Path, files: Mapping[str, str], size: int) -> None:
    """Write the index that transformers looks for."""
    write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": dict(sorted(files.items()))})


def copy_companions(source: Path, folder: Path) -> None:
    """Copy configuration and tokenizer files (not weights, not code)."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix in COMPANIONS and path.name != INDEX:
            shutil.copyfile(path, folder / path.name)


def config_of(folder: Path) -> dict[str, Any]:
    """The model's config.json."""
    path = folder / "config.json"
    if not path.is_file():
        raise DataError(f"{folder}: expected a Hugging Face model folder with config.json; give the folder that save_pretrained wrote")
    try:
        return read_json(path)
    except StoreError as error:
        raise DataError(str(error)) from error
