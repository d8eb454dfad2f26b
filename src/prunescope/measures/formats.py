"""Formats: the bytes that a network's weights take, dense, sparse, quantised and compressed."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from prunescope.measures.quality import Measurement
from prunescope.registry import unknown
from prunescope.types import ConfigError

INDEX_BYTES = 4  # int32, what sparse kernels read; torch's own default, int64, doubles it
ZLIB_LEVEL = 6
Bytes = Callable[[Tensor], int]


def _bitmask(w: Tensor) -> int:
    return _kept(w) * w.element_size() + (w.numel() + 7) // 8


def _csr(w: Tensor) -> int:
    return _kept(w) * (w.element_size() + INDEX_BYTES) + (w.shape[0] + 1) * INDEX_BYTES


def _coo(w: Tensor) -> int:
    return _kept(w) * (w.element_size() + 2 * INDEX_BYTES)


def _int8(w: Tensor) -> int:
    return w.numel() + 4 * w.shape[0]


def _int8_bitmask(w: Tensor) -> int:
    return _kept(w) + (w.numel() + 7) // 8 + 4 * w.shape[0]


def _kept(w: Tensor) -> int:
    return int(w.detach().count_nonzero())


# of a weight matrix (outputs, all else); vectors (biases, norms) stay dense everywhere
MATRIX: dict[str, tuple[Bytes, str]] = {
    "bitmask": (_bitmask, "non-zero values and one bit a weight"),
    "csr": (_csr, "non-zero values, a 4-byte column each, a 4-byte start a row"),
    "coo": (_coo, "non-zero values, a 4-byte row and column each"),
    "int8": (_int8, "one byte a weight and a 4-byte scale an output"),
    "int8-bitmask": (_int8_bitmask, "one byte a non-zero value, one bit a weight, a 4-byte scale an output"),
}
ON_DISK = {
    "safetensors": "the file with parameters and buffers",
    "zlib": f"that file through zlib, level {ZLIB_LEVEL}",
}
FORMATS = (*MATRIX, *ON_DISK)


def stored(model: nn.Module, formats: Sequence[str] = FORMATS) -> list[Measurement]:
    """Bytes of the parameters of `model` in each of `formats`; shared parameters are counted once.

    A format is applied to every tensor of two or more dimensions, seen as a matrix of outputs x the rest; the others stay dense.
    "safetensors" and "zlib" are the bytes of the file that would be written, buffers among them. ConfigError for an unknown format.

    >>> w = nn.Linear(8, 2, bias=False)
    >>> _ = w.weight.data.zero_(); w.weight.data[0, 0] = 1.0
    >>> {m.metric: m.value for m in stored(w, ["bitmask", "csr", "coo", "int8"])}
    {'bytes_bitmask': 6, 'bytes_csr': 20, 'bytes_coo': 12, 'bytes_int8': 24}
    """
    for name in formats:
        if name not in FORMATS:
            raise ConfigError(unknown("format", name, list(FORMATS)))
    found = [_measured(name, _in_matrices(model, MATRIX[name][0]), MATRIX[name][1]) for name in formats if name in MATRIX]
    if any(name in ON_DISK for name in formats):
        content = _file(model)
        sizes = {"safetensors": lambda: len(content), "zlib": lambda: _compressed(content)}
        found += [_measured(name, sizes[name](), ON_DISK[name]) for name in formats if name in ON_DISK]
    return found


def _measured(name: str, size: int, what: str) -> Measurement:
    return Measurement(f"bytes_{name.replace('-', '_')}", size, "bytes", parameters={"format": name, "what": what})


def _in_matrices(model: nn.Module, size: Bytes) -> int:
    return sum(size(p) if p.ndim >= 2 else p.numel() * p.element_size() for p in model.parameters())


def _file(model: nn.Module) -> bytes:
    tensors: dict[str, Any] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    # cloned, because safetensors refuses tensors that share memory
    return safetensors.torch.save({n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()})


def _compressed(content: bytes) -> int:
    packer, piece = zlib.compressobj(ZLIB_LEVEL), 1 << 22
    return sum(len(packer.compress(content[i : i + piece])) for i in range(0, len(content), piece)) + len(packer.flush())
