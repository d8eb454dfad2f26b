"""Inputs for the fuzz tests: valid files as seeds, mutations of them below their packing and checksums, and structure made from nothing."""

from __future__ import annotations

import functools
import gzip
import io
import json
import struct
import zipfile
from random import Random
from typing import Any

import numpy as np

NUMBERS = [0, 1, -1, 2, 0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 255, 65536]
TEXTS = [
    "",
    "a",
    "digits",
    "mine:net",
    "os:system",
    "../../x",
    "/etc/passwd",
    "</script>",
    "\x00",
    "é\u2028",
    "nan",
    "2:4",
    "a" * 3000,
    "%s",
    "\ud800",
]
WHOLES = [0, 1, 2, 3, 7, 255, 256, 65535, 2**31 - 1, 2**32 - 1]


def value(rng: Random, depth: int = 0) -> Any:
    """Any JSON value, more often a nasty one."""
    kind = rng.randrange(8 if depth < 3 else 5)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind < 3:
        return rng.choice(NUMBERS)
    if kind < 5:
        return rng.choice(TEXTS)
    if kind == 5:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 6:
        return {rng.choice(TEXTS): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return nested(rng.choice([2, 50, 3000]))


def nested(depth: int) -> Any:
    """A list in a list in a list ..."""
    found: Any = []
    for _ in range(depth):
        found = [found]
    return found


def dumped(tree: Any) -> bytes:
    """JSON, however deep."""
    try:
        return json.dumps(tree).encode()
    except (RecursionError, ValueError):
        return b"[" * 5000 + b"]" * 5000


def changed(tree: Any, rng: Random) -> Any:
    """`tree` with one node replaced, removed, doubled or renamed."""
    if isinstance(tree, dict) and tree and rng.random() < 0.85:
        key, what = rng.choice(list(tree)), rng.randrange(12)
        if what == 0:
            return {k: v for k, v in tree.items() if k != key}
        if what == 1:
            return {**tree, rng.choice(TEXTS): value(rng)}
        return {**tree, key: changed(tree[key], rng)}
    if isinstance(tree, list) and tree and rng.random() < 0.85:
        place, what = rng.randrange(len(tree)), rng.randrange(10)
        if what == 0:
            return tree[:place] + tree[place + 1 :]
        if what == 1:
            return tree + [tree[place]] * rng.choice([1, 50])
        return [*tree[:place], changed(tree[place], rng), *tree[place + 1 :]]
    return value(rng)


def bytes_changed(content: bytes, rng: Random) -> bytes:
    """Bits flipped, bytes and sizes replaced, runs cut, doubled, swapped or inserted."""
    found = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        what, place = rng.randrange(7), rng.randrange(len(found) + 1)
        length = rng.choice([1, 2, 4, 8, 64])
        if what == 0 and place < len(found):
            found[place] ^= 1 << rng.randrange(8)
        elif what == 1:
            found[place : place + length] = bytes(rng.choice([0, 255, rng.randrange(256)]) for _ in range(length))
        elif what == 2:
            packing = rng.choice(["<I", ">I", "<Q", ">Q", "<H"])
            packed = struct.pack(packing, rng.choice(WHOLES) % 2 ** (8 * struct.calcsize(packing)))
            found[place : place + len(packed)] = packed
        elif what == 3:
            del found[place : place + rng.choice([1, 8, 100, len(found)])]
        elif what == 4:
            found[place:place] = found[place : place + length] * rng.choice([1, 3, 100])
        elif what == 5:
            found[place:place] = rng.choice(TEXTS).encode("utf-8", "surrogatepass")
        else:
            found = found[:place] if rng.random() < 0.3 else found
    return bytes(found)


def idx(rng: Random) -> bytes:
    """A gzipped IDX file of images, its header and its body at odds."""
    shape = [rng.choice([1, 2, 3, *WHOLES]) for _ in range(rng.choice([1, 3, 3]))]
    size = rng.choice([0, 1, 12, 4096, 1 << 22])
    content = struct.pack(f">I{len(shape)}I", rng.choice([2049, 2051, rng.choice(WHOLES)]), *shape) + bytes(size)
    packed = gzip.compress(bytes_changed(content, rng) if rng.random() < 0.3 else content, 1)
    return packed * rng.choice([1, 1, 2]) if rng.random() < 0.8 else packed[: rng.randrange(len(packed))]


def array(rng: Random) -> np.ndarray[Any, Any]:
    """An array of some type and shape, small."""
    shape = tuple(rng.choice([0, 1, 2, 3, 40]) for _ in range(rng.randrange(4)))
    kind = rng.choice(
        ["f8", "f4", "f2", "i8", "u1", "?", "c16", "U3", "S2", "M8[D]", "m8[s]", "f8", ">f8", "V4", [("a", "f4"), ("b", "i2")]]
    )
    made = np.zeros(shape, kind)
    if made.dtype.kind in "fiu" and made.size:
        made = (np.arange(made.size).reshape(shape) % rng.choice([2, 5, 1000])).astype(kind)
        if made.dtype.kind == "f" and rng.random() < 0.3:
            made.flat[rng.randrange(made.size)] = rng.choice([np.nan, np.inf, -np.inf, 6e4])
    return made


def npy(made: np.ndarray[Any, Any], rng: Random) -> bytes:
    """The array as a .npy member, now and then with a header that states something else."""
    out = io.BytesIO()
    np.save(out, made)
    content = out.getvalue()
    if rng.random() < 0.3:
        descr = rng.choice(
            ["'<f8'", "'|O'", "'<U1000000000'", "[('a', '<f8')]", "'x'", "((((1))))" + "(" * 100, repr(made.dtype.str), "'|V0'"]
        )
        shape = rng.choice(["(3,)", "(1000000000000,)", "(-1,)", "(2, 2**5)", "()", "3", "(" * 90, "(0, 99999999999999)", "(1,) * 3"])
        head = f"{{'descr': {descr}, 'fortran_order': {rng.choice(['False', 'True', '1'])}, 'shape': {shape}, }}\n".encode()
        content = b"\x93NUMPY" + bytes([rng.choice([1, 1, 2, 3, 9]), 0]) + struct.pack("<H", len(head)) + head + content[128:]
    return bytes_changed(content, rng) if rng.random() < 0.3 else content


def npz(rng: Random) -> bytes:
    """An .npz of x and y (and others), below the checksums of the zip."""
    x, y = array(rng), array(rng)
    if rng.random() < 0.5:
        x, y = np.arange(120.0).reshape(40, 3) % 7, np.arange(40) % rng.choice([1, 2, 40])
    out = io.BytesIO()
    with zipfile.ZipFile(
        out, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
    ) as packed:
        for name, made in ((rng.choice(["x", "x", "x", "x_train", "../x", "", "x.npy"]), x), (rng.choice(["y", "y", "y", "y_train"]), y)):
            packed.writestr(f"{name}.npy", npy(made, rng))
    content = out.getvalue()
    return bytes_changed(content, rng) if rng.random() < 0.3 else content


def safetensors(content: bytes, rng: Random) -> bytes:
    """The file with its header, or what prunescope wrote into it, changed."""
    size = struct.unpack("<Q", content[:8])[0]
    header, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    if rng.random() < 0.6 and "prunescope" in header.get("__metadata__", {}):
        inner = json.loads(header["__metadata__"]["prunescope"])
        for _ in range(rng.choice([1, 1, 3])):
            inner = changed(inner, rng)
        header["__metadata__"]["prunescope"] = dumped(inner).decode()
    else:
        header = changed(header, rng)
    head = dumped(header)
    stated = len(head) if rng.random() < 0.9 else rng.choice([0, 2**40, len(head) + 1, 2**64 - 1])
    return struct.pack("<Q", stated) + head + (body if rng.random() < 0.8 else bytes_changed(body, rng))


def records(rng: Random, columns: tuple[str, ...], good: bytes) -> bytes:
    """A Parquet file of records with odd columns."""
    import duckdb
    import pandas as pd

    with _connection().cursor() as connection:
        table = connection.execute(f"SELECT * FROM read_parquet('{_spooled(good)}')").df()
        for _ in range(rng.choice([1, 1, 2, 5])):
            column = rng.choice(columns)
            odd = rng.choice(
                [[rng.choice(TEXTS[:-1])], [rng.choice(NUMBERS[:10])], [None], [float("nan")], [True], [[1, 2]], [{"a": 1}], [b"\xff"]]
            )
            if rng.random() < 0.5 and column in table:
                table[column] = table[column].astype(object)
                for row in rng.sample(range(len(table)), min(3, len(table))):
                    table.loc[row, column] = None if isinstance(odd[0], list | dict | bytes) else odd[0]
            else:
                table[column] = pd.Series(odd * len(table), dtype=object)
        if rng.random() < 0.1:
            table = table.iloc[: rng.choice([0, 1])]
        if rng.random() < 0.1:
            table = table.drop(columns=rng.choice(columns))
        place = _scratch("records.parquet")
        connection.register("made", table)
        try:
            connection.execute(f"COPY made TO '{place}' (FORMAT parquet)")
        except (duckdb.Error, UnicodeEncodeError):
            return good
    with open(place, "rb") as file:
        return file.read()


@functools.cache
def _connection() -> Any:
    import duckdb

    return duckdb.connect()


@functools.cache
def _folder() -> Any:
    import tempfile

    return tempfile.TemporaryDirectory()


def _scratch(name: str) -> str:
    return f"{_folder().name}/{name}"


@functools.cache
def _spooled(content: bytes) -> str:
    place = _scratch("good.parquet")
    with open(place, "wb") as file:
        file.write(content)
    return place


def toml(tables: Any, rng: Random) -> bytes:
    """Tables as TOML, changed as text and as tables."""
    import tomli_w

    for _ in range(rng.choice([1, 1, 2, 4])):
        tables = changed(tables, rng)
    try:
        text = tomli_w.dumps(tables).encode("utf-8", "surrogatepass")
    except Exception:  # what TOML cannot hold
        text = rng.choice([b"a = " + b"[" * 3000, b"a = " + b"9" * 5000, b"a." * 2000 + b"b = 1", b"[a]\n" * 2, b"x = 1979-05-27", b"\xff"])
    return bytes_changed(text, rng) if rng.random() < 0.3 else text


def lines(good: bytes, rng: Random) -> bytes:
    """Lines of JSON, some of them changed."""
    found = []
    for line in good.splitlines():
        tree = json.loads(line)
        found.append(dumped(changed(tree, rng)) if rng.random() < 0.5 else line)
    content = b"\n".join(found) + b"\n" * rng.randrange(2)
    return bytes_changed(content, rng) if rng.random() < 0.2 else content
