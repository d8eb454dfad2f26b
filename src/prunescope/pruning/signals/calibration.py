"""The calibration set and the model that looks at it: forms of data, one forward pass, its loss, and a model left as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from prunescope.pruning.preserving import preserved
from prunescope.pruning.targets import Target
from prunescope.types import PruningError, Split

LossFunction = Callable[[Any, Any], Tensor]
Batch = tuple[Any, Any]

CHUNK = 256  # samples in one forward pass


@dataclass(frozen=True)
class Calibration:
    """What signals are computed from.

    model, targets   the network and the weights that are scored
    batches          the calibration set: a sequence of (inputs, labels); None where the caller brought no data
    loss_fn          (outputs, labels) -> the mean loss of a batch; None: cross-entropy, or the loss that the model itself returns
    generator        for the criteria and signals that draw
    extra            "initial": {parameter: values at the start of training}; "example_inputs": inputs of a forward pass
    """

    model: nn.Module
    targets: Sequence[Target]
    batches: Sequence[Batch] | None = None
    loss_fn: LossFunction | None = None
    generator: Generator | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def data(self, wanted_by: str) -> Sequence[Batch]:
        """The calibration batches, or an error that says who needs them."""
        if not self.batches:
            raise PruningError(f"{wanted_by} needs calibration data and none came: pass data=[(inputs, labels), ...] or a loader")
        return self.batches

    def chunks(self, wanted_by: str, size: int = CHUNK) -> Iterator[Batch]:
        """The calibration set in parts of at most `size` samples, on the model's device.

        A batch whose tensors differ in their first dimension (time before samples) is not cut.
        """
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        for inputs, labels in self.data(wanted_by):
            lengths = {len(t) for t in tensors((inputs, labels)) if t.ndim}
            n = lengths.pop() if len(lengths) == 1 else 0
            for start in range(0, n, size) or (None,):
                part = (inputs, labels) if start is None or n <= size else rows((inputs, labels), slice(start, start + size))
                moved = mapped(part, lambda t: t.to(device))
                yield moved[0], moved[1]

    def loss(self, outputs: Any, labels: Any) -> Tensor:
        """The mean loss of a batch: `loss_fn`, else the loss that the model returned with its outputs, else cross-entropy."""
        value = self.loss_fn(outputs, labels) if self.loss_fn is not None else _own_loss(outputs, labels)
        if not isinstance(value, Tensor) or value.ndim:
            what = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise PruningError(f"the loss of a calibration batch is {what}: expected one number, the mean over the batch; check loss_fn")
        return value


def batches_of(data: Any) -> list[Batch] | None:
    """The calibration set as a list of (inputs, labels).

    data   a Split, one pair (inputs, labels), a tensor of inputs without labels, a mapping of a model's keyword arguments, or an
           iterable of such (a list, a DataLoader). Labels may be None for criteria that need none.
    """
    if data is None:
        return None
    if isinstance(data, Split | Tensor | Mapping) or _is_pair(data):
        return [_batch(data, 0)]
    if not isinstance(data, Iterable):
        raise PruningError(f"data is a {type(data).__name__}: expected a Split, (inputs, labels) or batches of such pairs")
    with torch.random.fork_rng(devices=[]):  # a shuffling loader draws from the global stream
        return [_batch(b, i) for i, b in enumerate(data)]


def _is_pair(data: Any) -> bool:
    return isinstance(data, tuple) and len(data) == 2 and isinstance(data[1], Tensor | None) and isinstance(data[0], Tensor | Mapping)


def _batch(value: Any, number: int) -> Batch:
    if isinstance(value, Split):
        return value.x, value.y
    if isinstance(value, Tensor):
        return value, None
    if isinstance(value, Mapping):
        return value, value.get("labels")
    if isinstance(value, tuple | list) and len(value) == 2:
        return value[0], value[1]
    raise PruningError(f"calibration batch {number} is a {type(value).__name__}: expected a pair (inputs, labels)")


def forward(model: nn.Module, inputs: Any) -> Any:
    """What the model makes of `inputs`: a tensor, a tuple of arguments or a mapping of keyword arguments."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def _own_loss(outputs: Any, labels: Any) -> Tensor:
    if isinstance(own := getattr(outputs, "loss", None), Tensor):
        return own
    logits = getattr(outputs, "logits", outputs)
    if not isinstance(logits, Tensor):
        raise PruningError(f"the model returned a {type(outputs).__name__}: expected a tensor or .logits; pass loss_fn=f(outputs, labels)")
    if not isinstance(labels, Tensor):
        raise PruningError("the calibration data have no labels and the model returned no loss: pass (inputs, labels)")
    if logits.ndim > 2 and logits.shape[:-1] == labels.shape:  # classes last, as in sequence models
        return functional.cross_entropy(logits.flatten(0, -2), labels.flatten())
    return functional.cross_entropy(logits, labels)


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for v in value.values():
            yield from tensors(v)
    elif isinstance(value, tuple | list):
        for v in value:
            yield from tensors(v)


def mapped(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """`value` with `function` of each tensor in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {k: mapped(v, function) for k, v in value.items()}
    return type(value)(mapped(v, function) for v in value) if isinstance(value, tuple | list) else value


def rows(value: Any, which: slice) -> Any:
    """Those rows of every tensor that has any."""
    return mapped(value, lambda t: t[which] if t.ndim else t)


def count(batch: Batch) -> int:
    """Samples in a batch: the length of its labels, else of its first input."""
    first = next((t for part in reversed(batch) for t in tensors(part) if t.ndim), None)
    return 1 if first is None else len(first)


@contextlib.contextmanager
def undisturbed(calibration: Calibration) -> Iterator[nn.Module]:
    """The model in evaluation mode with gradients on its targets possible; afterwards modes, buffers and random streams are as before.

    Attention and recurrent layers take their plain implementations meanwhile: the fused ones skip hooks or cannot be differentiated twice.
    """
    model = calibration.model
    frozen = [p for p in model.parameters() if not p.requires_grad and p.is_floating_point()]
    fast = torch.backends.mha.get_fastpath_enabled()
    on_gpu = any(p.device.type == "cuda" for p in model.parameters())
    with preserved(model), torch.compiler.set_stance("force_eager"), sdpa_kernel(SDPBackend.MATH), contextlib.ExitStack() as stack:
        if on_gpu and any(isinstance(m, nn.RNNBase) for m in model.modules()):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        try:
            torch.backends.mha.set_fastpath_enabled(False)
            model.eval()
            for p in frozen:
                p.requires_grad_(True)
            if calibration.generator is not None:  # a model that draws in evaluation mode draws the same for the same seed
                torch.default_generator.manual_seed(calibration.generator.initial_seed())
            yield model
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            for p in frozen:
                p.requires_grad_(False)


def finite(signal: str, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`values` as they are, or an error that names the first tensor in which some are NaN or infinite."""
    for name, value in values.items():
        if bad := int((~value.isfinite()).sum()):
            raise PruningError(
                f"{signal}: {bad} of {value.numel()} values of {name} are NaN or infinite: "
                "check the loss, the calibration data and the weights"
            )
    return dict(values)
