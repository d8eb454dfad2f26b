"""What is fuzzed: every kind of file that prunescope reads, each with valid seeds, a maker of bad ones, and the call that must bear them.

A call ends well or with a PrunescopeError of one sentence; anything else that is raised is a fault.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "report"))  # the made-up run
import making
import numpy as np
import safetensors.torch
import tomli_w
import torch
from fakerun import Made, write_run
from torch import nn

import prunescope as ps
from prunescope.config import override, parse_override
from prunescope.data import load
from prunescope.data.idx import read_idx
from prunescope.data.tishby import read_rule
from prunescope.data.variables import read_variables
from prunescope.experiments import checkpoints
from prunescope.experiments.saved import _recipe
from prunescope.export import read_weights
from prunescope.integrations import huggingface
from prunescope.integrations.checkpoints import Shards, config_of
from prunescope.live import Board
from prunescope.pruning import Masks
from prunescope.report import summary_markdown, write_report
from prunescope.results import schema
from prunescope.results.store import Run, export_records, read_records
from prunescope.training import load_weights, save_weights
from prunescope.types import PrunescopeError

LIMITS = "config=1M,json=16M,live=16M,arrays=64M,matlab=16M,rows=100000,text=64M,trials=500,classes=10000"
CORPUS = Path(__file__).parent / "corpus"
SMALL = Made(variants={"baseline": ((None,), False), "weights": ((0.5,), False)}, groups=("",), seeds=1, epochs=2, finetune=1)


@dataclass(frozen=True)
class Target:
    """`seeds` are valid files, `make` makes a bad one of a seed, `check(content, folder, full)` reads it; `full` also what takes long."""

    seeds: Callable[[], list[bytes]]
    make: Callable[[bytes, Random], bytes]
    check: Callable[[bytes, Path, bool], None]
    share: float = 1.0


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))


@functools.cache
def example() -> Any:
    return tempfile.TemporaryDirectory()


@functools.cache
def run_folder() -> Path:
    """A made-up run of two finished trials, with a batch at work."""
    folder = write_run(Path(example().name) / "run", SMALL)
    members = [{"name": "trials/00000", "variant": "baseline", "group": "", "sparsity": None, "seed": 0, "label": "a"}]
    facts = [["accuracy", "train", e, "train", "", "", 0.5] for e in (0.0, 1.0, 2.0)] + [
        ["mi_label", "train", 1, "train", "h1", "binning", 1.0]
    ]
    lines = [{"version": 1, "members": [*members, {"name": "dense/1", "shared": True, "label": "b"}]}, [0, facts], [1, facts]]
    (folder / "live").mkdir()
    (folder / "live" / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    net = network()
    save_weights(net, folder / "trials" / "00100" / "weights.safetensors")
    ps.prune(net, sparsity=0.5).save(folder / "trials" / "00100" / "masks.safetensors")
    return folder


def part(name: str) -> bytes:
    return (run_folder() / name).read_bytes()


def with_file(name: str, content: bytes, folder: Path, full: bool) -> Path:
    """A copy of the made-up run, made of links but for the one file that is bad; without `full` also without records, which take long."""
    target = folder / ("run" if full else "bare")
    if not target.exists():
        for source in run_folder().rglob("*"):
            if source.is_file() and (full or source.suffix != ".parquet"):
                (place := target / source.relative_to(run_folder())).parent.mkdir(parents=True, exist_ok=True)
                os.link(source, place)
        if not full:
            for place in target.glob("trials/*/trial.json"):
                place.unlink()
                place.write_text('{"status": "running"}')
    (target / name).unlink(missing_ok=True)
    (target / name).write_bytes(content)
    return target


def read_run(folder: Path, full: bool) -> None:
    """What the report, the live page and the export do with a run folder; without `full` what they read."""
    run = Run(folder)
    state = Board(folder).state()
    json.dumps(state, allow_nan=False)
    if full or run.problems:
        text(run)
    if full:
        write_report(run, folder / "out.html")
        summary_markdown(run)
        export_records(run, "csv", folder / "out.csv")


def text(run: Run) -> None:
    """What is said of a run on the terminal."""
    assert "problem" not in repr(run)
    assert all(len(problem) < 20_000 for problem in run.problems), run.problems


def records(content: bytes, folder: Path, full: bool) -> None:
    name = "trials/00100/records.parquet"
    if full:
        read_run(with_file(name, content, folder, True), True)
        return
    (folder / "records.parquet").write_bytes(content)
    read_records(folder / "records.parquet")


def config(content: bytes, folder: Path, full: bool) -> None:
    (folder / "a.toml").write_bytes(content)
    planned = ps.plan(folder / "a.toml")
    assert all(t.hash for t in planned.trials)


def tables(content: bytes, folder: Path, full: bool) -> None:
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return
    if isinstance(tree, dict):
        ps.plan(tree)


def setting(content: bytes, folder: Path, full: bool) -> None:
    override({"model": {"name": "mlp"}}, [parse_override(content.decode("utf-8", "replace"))])


def npz(content: bytes, folder: Path, full: bool) -> None:
    (folder / "a.npz").write_bytes(content)
    load("npz", options={"path": str(folder / "a.npz")})


def mi(content: bytes, folder: Path, full: bool) -> None:
    from prunescope.information.panel import panel

    (folder / "a.npz").write_bytes(content)
    x, y = read_variables(folder / "a.npz", "x", "y")
    for name in (None if full else ["auto"],):
        panel(x, y, name, uncertainty=None)


def csv(content: bytes, folder: Path, full: bool) -> None:
    (folder / "a.csv").write_bytes(content)
    read_variables(folder / "a.csv", "x", "y")


def idx(content: bytes, folder: Path, full: bool) -> None:
    for name in ("a-idx3-ubyte.gz", "a-idx1-ubyte.gz"):
        (folder / name).write_bytes(content)
        try:
            read_idx(folder / name)
        except PrunescopeError as error:
            one_sentence(error)


def matlab(content: bytes, folder: Path, full: bool) -> None:
    (folder / "var_u.mat").write_bytes(content)
    read_rule(folder / "var_u.mat")


def tensors(content: bytes, folder: Path, full: bool) -> None:
    """One file, read as each of the things that a safetensors file may be."""
    (path := folder / "model.safetensors").write_bytes(content)
    (place := folder / "checkpoints").mkdir(exist_ok=True)
    (place / "a.safetensors").unlink(missing_ok=True)
    os.link(path, place / "a.safetensors")
    (folder / huggingface.FILE).unlink(missing_ok=True)
    os.link(path, folder / huggingface.FILE)
    for read in (
        lambda: load_weights(network(), path),
        lambda: Masks.load(path, network()),
        lambda: recipe(path),
        lambda: ps.load_compact(network(), path),
        lambda: checkpoints.read(folder, ["trials/a", "trials/b"]),
        lambda: checkpoints.companies(folder),
        lambda: huggingface.read_state(folder),
        lambda: (shards := Shards(folder)).read({n: n for n in shards.files}),
    ):
        try:
            read()
        except PrunescopeError as error:
            one_sentence(error)


def recipe(path: Path) -> None:
    about = read_weights(path)[1].get("about")
    builder = about.get("builder") if isinstance(about, dict) else None
    if isinstance(builder, dict):
        _recipe(builder, str(path))


def checkpoint_folder(content: bytes, folder: Path, full: bool) -> None:
    """The JSON files of a Hugging Face folder."""
    safetensors.torch.save_file({"a": torch.zeros(2)}, folder / "model-1.safetensors")
    for name in ("config.json", "model.safetensors.index.json"):
        (folder / name).write_bytes(content)
    config_of(folder)
    shards = Shards(folder)
    shards.read({n: n for n in shards.files})


def one_sentence(error: PrunescopeError) -> None:
    """Whether an error is what a user is to be told."""
    text = str(error)
    assert text, "an error without a word"
    assert "Traceback" not in text, text[:500]
    assert len(text) < 20_000, f"{len(text)} characters: {text[:500]}"


def check(kind: str, content: bytes, folder: Path, full: bool | None = None) -> None:
    """Let the target bear the content; raises what is a fault."""
    full = zlib.crc32(content) % 200 == 0 if full is None else full
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            KINDS[kind].check(content, folder, full)
        except PrunescopeError as error:
            one_sentence(error)


@functools.cache
def tensor_seeds() -> list[bytes]:
    folder, net = Path(example().name), network()
    found = [part("trials/00100/weights.safetensors"), part("trials/00100/masks.safetensors")]
    ps.save_compact(net, folder / "compact.safetensors")
    x = torch.randn(2, 4)
    about = {"builder": {"model": {"name": "mlp", "widths": [3]}, "input_shape": [4], "classes": 2}, "stage": "final"}
    ps.export_model(net, folder / "net.safetensors", example_inputs=x, about=about)
    state = {"masks": {"0.weight": torch.ones(6, 4, dtype=torch.uint8)}, "pruner": {"step": 3}, "plane": "[]"}
    huggingface.write_state(folder, state)
    packed, told = checkpoints._packed(
        {"trials/a": checkpoints.Member({"train": checkpoints.Ended({"w": torch.zeros(2)}, 0)}), "trials/b": checkpoints.Member()}
    )
    checkpoints._save(packed, told, folder / "checkpoint.safetensors")
    return found + [
        (folder / n).read_bytes() for n in ("compact.safetensors", "net.safetensors", huggingface.FILE, "checkpoint.safetensors")
    ]


@functools.cache
def table_seeds() -> list[dict[str, Any]]:
    from prunescope.experiments import presets

    small = {"data": {"name": "digits"}, "model": {"name": "mlp", "widths": [3]}, "seeds": 2, "sparsity": [0.5, 0.9]}
    variant = [{"name": "a", "prune": {"criterion": "taylor", "options": {"k": 3}}}, {"name": "b", "sparsity": [0.1]}]
    return [small, {**small, "variant": variant, "grid": {"model.activation": ["relu", "tanh"]}}, presets.tables("quickstart")[0]]


@functools.cache
def matlab_seeds() -> list[bytes]:
    import io

    from scipy.io import savemat

    found = []
    for packed in (True, False):
        savemat(out := io.BytesIO(), {"F": np.zeros((4096, 12)), "y": np.zeros((1, 4096), "u1"), "z": "text"}, do_compression=packed)
        found.append(out.getvalue())
    return found


def mixed(structured: Callable[[Random], bytes]) -> Callable[[bytes, Random], bytes]:
    return lambda seed, rng: structured(rng) if rng.random() < 0.7 else making.bytes_changed(seed, rng)


def as_json(seed: bytes, rng: Random) -> bytes:
    tree = json.loads(seed)
    for _ in range(rng.choice([1, 1, 3])):
        tree = making.changed(tree, rng)
    return making.dumped(tree) if rng.random() < 0.8 else making.bytes_changed(seed, rng)


def in_run(name: str, make: Callable[[bytes, Random], bytes], share: float = 1.0) -> Target:
    return Target(lambda: [part(name)], make, lambda c, folder, full: read_run(with_file(name, c, folder, full), full), share)


def as_toml(seed: bytes, rng: Random) -> bytes:
    return making.toml(rng.choices(table_seeds(), [4, 4, 1])[0], rng) if rng.random() < 0.8 else making.bytes_changed(seed, rng)


def as_tables(seed: bytes, rng: Random) -> bytes:
    return making.dumped(making.changed(json.loads(seed), rng))


def as_tensors(seed: bytes, rng: Random) -> bytes:
    return making.safetensors(seed, rng) if rng.random() < 0.7 else making.bytes_changed(seed, rng)


def as_records(seed: bytes, rng: Random) -> bytes:
    return making.records(rng, schema.COLUMNS, seed) if rng.random() < 0.4 else making.bytes_changed(seed, rng)


def made(maker: Callable[[Random], bytes], count: int = 3) -> Callable[[], list[bytes]]:
    return lambda: [maker(Random(i)) for i in range(count)]


KINDS: dict[str, Target] = {
    "config": Target(
        lambda: [tomli_w.dumps(t).encode() for t in table_seeds()],
        as_toml,
        config,
    ),
    "tables": Target(lambda: [json.dumps(t).encode() for t in table_seeds()], as_tables, tables),
    "setting": Target(lambda: [b"training.lr=1e-3", b"a.b.c=[1, 2]", b"model.name.x=3"], making.bytes_changed, setting, 0.3),
    "idx": Target(made(making.idx), mixed(making.idx), idx),
    "npz": Target(made(making.npz), mixed(making.npz), npz),
    "mi": Target(made(making.npz), mixed(making.npz), mi, 0.5),
    "csv": Target(lambda: [b"x,y\n1,2\n3,4\n", b"x;y\n", b"y,x\na,b\n" * 5], making.bytes_changed, csv, 0.3),
    "matlab": Target(matlab_seeds, making.bytes_changed, matlab, 0.3),
    "tensors": Target(tensor_seeds, as_tensors, tensors),
    "folder": Target(
        lambda: [json.dumps({"weight_map": {"a": "model-1.safetensors"}, "model_type": "gpt2"}).encode()], as_json, checkpoint_folder, 0.3
    ),
    "experiment": in_run("experiment.json", as_json),
    "trial": in_run("trials/00100/trial.json", as_json, 0.5),
    "records": Target(lambda: [part("trials/00100/records.parquet")], as_records, records, 0.6),
    "masks": in_run("trials/00100/masks.safetensors", making.safetensors, 0.1),
    "live": in_run("live/a.jsonl", making.lines, 0.5),
}  # fmt: skip
