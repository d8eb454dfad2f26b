"""Quality: loss and accuracy over a whole split, from sums and counts divided once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunescope.registry import measures, unknown
from prunescope.types import ConfigError, DataError, Split


@dataclass(frozen=True)
class Measurement:
    """One measured number: `value` in `unit` over `n` samples or runs, with its standard error where it has one."""

    metric: str
    value: float
    unit: str
    n: int | None = None
    stderr: float | None = None
    parameters: dict[str, Any] = field(default_factory=dict)

    def __float__(self) -> float:
        return self.value


def _binary(output: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    return F.binary_cross_entropy(output.squeeze(-1), y.to(output.dtype), reduction=reduction)


def _nll(output: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    return F.nll_loss(output, y, reduction=reduction)


def _cross_entropy(output: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    return F.cross_entropy(output, y, reduction=reduction)


LOSSES: dict[str, Callable[..., Tensor]] = {"cross-entropy": _cross_entropy, "nll": _nll, "binary-cross-entropy": _binary}


def loss_function(name: str) -> Callable[..., Tensor]:
    """The loss `f(output, y, reduction="mean"|"none")` in nats: cross-entropy takes logits, nll log-probabilities, binary a probability."""
    if name not in LOSSES:
        raise ConfigError(unknown("loss", name, list(LOSSES)))
    return LOSSES[name]


def predictions(output: Tensor) -> Tensor:
    """The class numbers that an output of shape (..., n, classes), or (n,) / (..., n, 1) probabilities of class 1, stands for."""
    if output.ndim == 1 or output.shape[-1] == 1:
        return (output.reshape(output.shape[: max(1, output.ndim - 1)]) > 0.5).long()
    return output.transpose(-1, -2).max(-2).indices  # ten times faster than `argmax` over a short last dimension


def probabilities(output: Tensor, loss: str) -> Tensor:
    """The class probabilities that the network's output means under `loss`; shape of `output`."""
    return {"cross-entropy": lambda: _softmax(output), "nll": lambda: output.exp(), "binary-cross-entropy": lambda: output}[loss]()


def _softmax(output: Tensor) -> Tensor:
    """Softmax over the last dimension, in the order in which the numbers lie in memory: ten times faster for few classes first."""
    if output.ndim > 1 and output.stride(-2) == 1:
        return output.transpose(-1, -2).softmax(-2).transpose(-1, -2)
    return output.softmax(-1)


EVALUATED_ROWS = 2048  # rows that a network is shown at a time
EVALUATED_BYTES = 128 << 20  # values of its largest layer at a time: where this is less, fewer rows
_ROW_BYTES: WeakKeyDictionary[nn.Module, dict[tuple[int, ...], int]] = WeakKeyDictionary()


def rows_at_once(model: nn.Module, x: Tensor) -> int:
    """How many rows of `x` (n, ...) `model` is shown at a time without training: EVALUATED_ROWS, fewer where its layers are large.

    The largest layer is found once a network by a pass of two rows, and only for images and sequences, whose layers may be much larger than
    their weights. The rows do not depend on the machine, so neither do the numbers.
    """
    if x.ndim < 3 or len(x) <= 64 or hasattr(model, "_orig_mod"):  # what is compiled would be compiled anew
        return EVALUATED_ROWS
    known = _ROW_BYTES.setdefault(model, {})
    shape = tuple(x.shape[1:])
    if shape not in known:
        known[shape] = _largest(model, x[:2]) // 2
    return max(16, min(EVALUATED_ROWS, EVALUATED_BYTES // max(1, known[shape])))


@contextmanager
def largest_value(model: nn.Module) -> Iterator[list[int]]:
    """[bytes] of the largest tensor that any of the network's modules returns while the context lasts."""
    found = [0]

    def hook(_module: nn.Module, _inputs: Any, value: Any) -> None:
        for tensor in value if isinstance(value, tuple | list) else [value]:
            if isinstance(tensor, Tensor):
                found[0] = max(found[0], tensor.numel() * tensor.element_size())

    handles = [module.register_forward_hook(hook) for module in model.modules()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _largest(model: nn.Module, x: Tensor) -> int:
    """`largest_value` for `x`; 0 where the network does not take so few rows."""
    try:
        # a network that draws is left where it was
        with largest_value(model) as found, torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            batched(model, x, len(x))
    except Exception:  # a file's graph of one batch size, say: what stands in its way shows where it is really used
        return 0
    return found[0]


def batched(model: nn.Module, x: Tensor, batch_size: int | None = None) -> Tensor:
    """The outputs of `model` (see `as_tensor`) in evaluation mode for all rows of `x`, without gradients; its mode is put back.

    `batch_size` rows at a time; by default as many as `rows_at_once` says.
    """
    batch_size = batch_size or rows_at_once(model, x)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return torch.cat([as_tensor(model(part)) for part in x.split(batch_size)])
    finally:
        model.train(was_training)


def as_tensor(output: Any) -> Tensor:
    """The tensor in what a network returns: itself, or the `logits` (or last hidden state) of a Hugging Face output."""
    for name in ("logits", "last_hidden_state"):
        output = output if isinstance(output, Tensor) else getattr(output, name, output)
    if not isinstance(output, Tensor):
        raise DataError(f"the network returned a {type(output).__name__}: expected a tensor, or an output with logits")
    return output


def evaluate(model: nn.Module, split: Split, loss: str = "cross-entropy") -> dict[str, Measurement]:
    """Mean loss (nats) and accuracy (fraction) of `model` on `split`, with standard errors over samples."""
    return scored(batched(model, split.x), split, loss) if len(split) else {}


def scored(output: Tensor, split: Split, loss: str = "cross-entropy") -> dict[str, Measurement]:
    """Mean loss (nats) and accuracy (fraction) of outputs (n, ...) that a network gave for `split`, with standard errors over samples."""
    return scored_together(output[None], split, loss)[0]


def scored_together(outputs: Tensor, split: Split, loss: str = "cross-entropy") -> list[dict[str, Measurement]]:
    """What `scored` gives for each of several networks, whose outputs (replicates, n, ...) for `split` are given."""
    r, n = outputs.shape[:2]
    if n == 0:
        return [{} for _ in range(r)]
    y = split.y.expand(r, n)
    classes_first = outputs.transpose(1, 2) if outputs.ndim == 3 else outputs  # as the losses of torch want them: (r, classes, n)
    losses = loss_function(loss)(outputs if loss == "binary-cross-entropy" else classes_first, y, reduction="none").double()
    found = predictions(outputs if outputs.ndim == 3 else outputs.unsqueeze(2))
    columns = []
    for values in (losses, (found == y).double()):
        spread = values.std(1, correction=0) / math.sqrt(n)
        columns.append(zip(values.mean(1).tolist(), spread.tolist(), strict=True))
    return [
        {"loss": Measurement("loss", *(m, "nats", n, s)), "accuracy": Measurement("accuracy", *(a, "fraction", n, e))}
        for (m, s), (a, e) in zip(*columns, strict=True)
    ]


@measures("loss", needs=("data",), source="mean over samples of the training loss")
def loss(model: nn.Module, split: Split, *, loss: str = "cross-entropy") -> list[Measurement]:
    """Mean loss over all samples, in nats."""
    return [evaluate(model, split, loss)["loss"]]


@measures("accuracy", needs=("data",), source="share of samples whose largest output is the label")
def accuracy(model: nn.Module, split: Split, *, loss: str = "cross-entropy") -> list[Measurement]:
    """Share of samples classified rightly, as a fraction."""
    return [evaluate(model, split, loss)["accuracy"]]


def as_split(data: Any, device: torch.device | str = "cpu") -> Split:
    """Samples and labels from a Split, a Dataset (its test part), a pair (x, y), or an iterable of such pairs (a DataLoader)."""
    if hasattr(data, "test") and isinstance(data.test, Split):
        data = data.test
    if not isinstance(data, Split):
        data = _joined(data)
    if len(data.x) != len(data.y):
        raise DataError(f"{len(data.x)} samples but {len(data.y)} labels: expected as many of each")
    return Split(data.x.to(device), data.y.to(device))


def _joined(data: Any) -> Split:
    if isinstance(data, tuple | list) and len(data) == 2 and hasattr(data[0], "shape"):
        return Split(torch.as_tensor(data[0]), torch.as_tensor(data[1]))
    try:
        parts = [(torch.as_tensor(x), torch.as_tensor(y)) for x, y in data]
    except (TypeError, ValueError) as error:
        raise DataError(f"{type(data).__name__} holds no samples: expected a Split, (x, y) or an iterable of (x, y) batches") from error
    if not parts:
        raise DataError("the data hold no batch: expected at least one (x, y)")
    return Split(torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]))
