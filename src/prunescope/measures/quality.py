"""Quality: loss and accuracy over a whole split, from sums and counts divided once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

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
    """The class numbers that an output of shape (n, classes), or (n,) / (n, 1) probabilities of class 1, stands for."""
    if output.ndim == 1 or output.shape[-1] == 1:
        return (output.reshape(-1) > 0.5).long()
    return output.argmax(-1)


def probabilities(output: Tensor, loss: str) -> Tensor:
    """The class probabilities that the network's output means under `loss`; shape of `output`."""
    return {"cross-entropy": lambda: output.softmax(-1), "nll": lambda: output.exp(), "binary-cross-entropy": lambda: output}[loss]()


def batched(model: nn.Module, x: Tensor, batch_size: int = 2048) -> Tensor:
    """The outputs of `model` in evaluation mode for all rows of `x`, without gradients; the model's mode is put back."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return torch.cat([model(part) for part in x.split(batch_size)])
    finally:
        model.train(was_training)


def evaluate(model: nn.Module, split: Split, loss: str = "cross-entropy") -> dict[str, Measurement]:
    """Mean loss (nats) and accuracy (fraction) of `model` on `split`, with standard errors over samples."""
    return scored(batched(model, split.x), split, loss) if len(split) else {}


def scored(output: Tensor, split: Split, loss: str = "cross-entropy") -> dict[str, Measurement]:
    """Mean loss (nats) and accuracy (fraction) of outputs (n, ...) that a network gave for `split`, with standard errors over samples."""
    if len(split) == 0:
        return {}
    losses = loss_function(loss)(output, split.y, reduction="none").double()
    right = (predictions(output) == split.y).double()
    return {
        metric: Measurement(metric, float(v.mean()), unit, len(split), float(v.std(correction=0)) / math.sqrt(len(split)))
        for metric, v, unit in (("loss", losses, "nats"), ("accuracy", right, "fraction"))
    }


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
