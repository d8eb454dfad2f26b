"""The card of an exported network: what it is, how large, how good, what was removed, where it came from, and its limits."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from torch import nn

from prunescope import __version__
from prunescope.export.agreement import Agreement
from prunescope.quantization.storage import stored, stored_bytes

VERSIONS = ("torch", "safetensors", "onnx", "onnxscript", "onnxruntime", "torchao")


def card(
    model: nn.Module, description: Mapping[str, Any], *, name: str, format: str, bytes: int, dynamic: bool, agreement: Agreement
) -> str:
    """The card as Markdown."""
    about = description["about"]
    parts = [
        f"# {about.get('title') or name}",
        "",
        f"`{name}` ({format}), written by prunescope {__version__}.",
        "",
        *_sizes(model, description, bytes),
        *_quality(about),
        *_layers(description),
        *_provenance(about),
        "## Checked",
        "",
        f"{agreement}.",
        "",
        *_limits(description, format, dynamic),
    ]
    return "\n".join(parts).rstrip() + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, the first column to the left, the others to the right, and an empty line."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines] + [""]


def _sizes(model: nn.Module, description: Mapping[str, Any], bytes: int) -> list[str]:
    parameters = {n for n, _ in model.named_parameters()}
    mine = {n: t for n, t in description["tensors"].items() if n in parameters}
    total = sum(p.numel() for p in model.parameters())
    nonzero = sum(t.numel() - description["tensors"][n]["zero"] for n, t in stored(model).items() if n in mine)
    rows = [
        ["parameters", f"{total:,}"],
        ["of them not zero", f"{nonzero:,}"],
        ["bytes of the parameters", f"{stored_bytes(model):,}"],
        ["bytes of the file", f"{bytes:,}"],
    ]
    inputs = ", ".join("samples x " + " x ".join(map(str, shape)) if shape else "samples" for shape in description["input_shapes"])
    return ["## Size", "", f"Input: {inputs}.", "", *table(["what", "how many"], rows)]


def _quality(about: Mapping[str, Any]) -> list[str]:
    rows = about.get("quality") or []
    if not rows:
        return ["## Accuracy", "", "Not known: the network came without records.", ""]
    shown = [[r["when"], r["split"], r["metric"], f"{r['value']:.4f}", r["unit"], _spread(r), str(r["n"])] for r in rows]
    return ["## Accuracy", "", *table(["when", "split", "what", "value", "unit", "standard error", "samples"], shown)]


def _spread(row: Mapping[str, Any]) -> str:
    return "" if row.get("stderr") is None else f"{row['stderr']:.4f}"


def _layers(description: Mapping[str, Any]) -> list[str]:
    masks, rows = description["masks"], []
    for name, tensor in description["tensors"].items():
        size = 1
        for length in tensor["shape"]:
            size *= length
        if len(tensor["shape"]) < 2 and name not in masks:
            continue
        masked = f"{100 * (1 - masks[name]['kept'] / masks[name]['of']):.1f} %" if name in masks and masks[name]["of"] else ""
        zero = f"{100 * tensor['zero'] / size:.1f} %" if size else ""
        rows.append([f"`{name}`", " x ".join(map(str, tensor["shape"])), tensor["dtype"], masked, zero])
    return ["## Layers", "", *table(["tensor", "shape", "type", "masked", "zero"], rows)] if rows else []


def _provenance(about: Mapping[str, Any]) -> list[str]:
    versions = {"Python": platform.python_version(), "prunescope": __version__, **_installed()}
    lines = ["## Where it came from", ""]
    told = {"trial": "Trial", "hash": "Hash of its settings", "run": "Run", "created": "Run made", "command": "Command"}
    lines += [f"- {label}: `{about[key]}`" for key, label in told.items() if about.get(key)]
    lines.append("- Versions: " + ", ".join(f"{n} {v}" for n, v in versions.items()))
    return [*lines, ""]


def _installed() -> dict[str, str]:
    found = {}
    for name in VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _limits(description: Mapping[str, Any], format: str, dynamic: bool) -> list[str]:
    lines = ["## Limits", ""]
    int8 = any(t["dtype"] == "int8" for t in description["tensors"].values())
    if description["masks"]:
        lines.append("- What is masked is zero and still there: the file is no smaller for it, and nothing runs faster.")
    if format == "safetensors":
        lines.append("- Weights alone: the network's code builds it, then loads them by name (the header holds names, shapes and layers).")
        if description["about"].get("stage") == "compacted":
            lines.append("- Its layers are smaller than the code's: ps.save_compact keeps their sizes too, and pt2 and onnx need no code.")
    if format == "pt2":
        lines.append("- torch.export.load may run code from a file: load only files from places that you trust.")
    if format != "safetensors" and not dynamic:
        lines.append("- The number of samples in a batch is the example's, no other.")
    if int8:
        lines.append("- Int8 of torchao is fast in compiled code and on GPUs; in eager mode on a CPU it may be slower than floating point.")
    lines.append("- Evaluation mode: dropout is off and normalisation uses its running statistics.")
    lines.append("- Agreement is known for the inputs that were tried, accuracy for the data named above.")
    return [*lines, ""]
