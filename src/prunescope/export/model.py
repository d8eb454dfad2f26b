"""One verb for all formats: write the file, read it again, compare it with the network, and write its card."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from prunescope.export import graphs, weights
from prunescope.export.agreement import Agreement
from prunescope.export.card import card
from prunescope.export.inputs import as_inputs
from prunescope.pruning import Masks
from prunescope.quantization import stored
from prunescope.registry import unknown
from prunescope.results.files import write_beside, write_json
from prunescope.types import ConfigError

SUFFIXES = {"safetensors": ".safetensors", "onnx": ".onnx", "pt2": ".pt2"}


@dataclass(frozen=True)
class Exported:
    """What was written: the file, its `bytes` on disk, its card, what else lies beside it, and how it was compared with the network."""

    path: Path
    format: str
    bytes: int
    card: Path
    beside: tuple[Path, ...]
    agreement: Agreement


def export_model(
    model: nn.Module,
    path: str | Path,
    *,
    format: str | None = None,
    example_inputs: Any,
    masks: Mapping[str, Tensor] | None = None,
    dynamic_batch: bool = False,
    about: Mapping[str, Any] | None = None,
) -> Exported:
    """Write `model` in evaluation mode to `path`, check the file against it, and write `path`.md, a card of sizes, layers and provenance.

    format          "safetensors": weights under their own names, described in the header and in `path`.json; "onnx" (extra `export`):
                    one file, compared by ONNX Runtime; "pt2": torch.export's, loaded again and compared. Default: by the path's suffix
    example_inputs  a tensor, or a tuple of tensors, samples first
    masks           what was pruned: the card names it, and masks go to `path`.masks beside safetensors. Masked weights have to be zero
    dynamic_batch   onnx, pt2: any number of samples, compared at two of them; else the example's number alone
    about           facts for the card: title, quality (rows of when, split, metric, value, unit, n, stderr), hash, command, ...

    The model's mode is put back. Raises ExportError where the file would not compute the same to 1e-4 of the largest output, or the network
    cannot be traced; nothing is left behind then. ConfigError for a format or inputs that do not fit.

    >>> import tempfile, torch
    >>> net = nn.Linear(3, 2)
    >>> made = export_model(net, Path(tempfile.mkdtemp()) / "net.safetensors", example_inputs=torch.zeros(1, 3))
    >>> made.format, sorted(weights.read_weights(made.path)[0])
    ('safetensors', ['bias', 'weight'])
    """
    target = Path(path)
    kind = format if format is not None else target.suffix.removeprefix(".")
    if kind not in SUFFIXES:
        hint = "" if format else f": say which, the suffix of {target.name} does not"
        raise ConfigError(unknown("format", kind, list(SUFFIXES)) + hint)
    example = as_inputs(example_inputs)
    _check_masks(model, masks)
    description = weights.described(model, masks, example, about or {})
    found: list[Agreement] = []
    writers: dict[str, Callable[[Path], Agreement]] = {
        "safetensors": lambda p: weights.write_weights(model, p, example, description),
        "onnx": lambda p: graphs.write_onnx(model, p, example, dynamic=dynamic_batch),
        "pt2": lambda p: graphs.write_pt2(model, p, example, dynamic=dynamic_batch),
    }
    with evaluating(model):
        write_beside(target, lambda p: found.append(writers[kind](p)))
        size = target.stat().st_size
        others = _beside(target, description, masks) if kind == "safetensors" else ()
        told = card(model, description, name=target.name, format=kind, bytes=size, dynamic=dynamic_batch, agreement=found[0])
    page = target.with_name(target.name + ".md")
    write_beside(page, lambda p: p.write_text(told, encoding="utf-8"))
    return Exported(target, kind, size, page, others, found[0])


def _beside(target: Path, description: Mapping[str, Any], masks: Mapping[str, Tensor] | None) -> tuple[Path, ...]:
    """The description as a file of its own, and the masks."""
    written = [target.with_name(target.name + ".json")]
    write_json(written[0], description)
    if masks:
        written.append(target.with_name(target.name + ".masks"))
        write_beside(written[1], Masks(masks).save)
    return tuple(written)


def _check_masks(model: nn.Module, masks: Mapping[str, Tensor] | None) -> None:
    """Refuse masks that the model's weights do not follow: the file would not be the pruned network."""
    parameters = stored(model)
    for name, mask in (masks or {}).items():
        if name not in parameters or parameters[name].shape != mask.shape:
            raise ConfigError(f"masks: {name} of shape {tuple(mask.shape)} is no parameter of this {type(model).__name__}")
        if bool(parameters[name][~mask.to(parameters[name].device)].count_nonzero()):
            raise ConfigError(f"{name} has weights behind its mask that are not zero: masks.apply() first")


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; every module's own mode is put back. A graph that has no modes is left as it is."""
    before = {id(m): m.training for m in model.modules()}
    try:
        model.eval()
    except NotImplementedError:  # a graph of torch.export is in evaluation mode for good
        yield
        return
    try:
        yield
    finally:
        for module in model.modules():
            module.training = before[id(module)]
