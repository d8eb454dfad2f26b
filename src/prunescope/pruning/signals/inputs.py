"""Signals of what enters each weight: norms of the input features and their second moments, gathered by hooks batch by batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.pruning.signals.attending import attention_inputs, recurrent_inputs
from prunescope.pruning.signals.calibration import Calibration, forward, undisturbed
from prunescope.pruning.signals.patches import convolution_inputs
from prunescope.pruning.structure import CONVOLUTIONS
from prunescope.pruning.targets import owner
from prunescope.registry import signals
from prunescope.types import PruningError

Receive = Callable[[Tensor], None]


@dataclass(frozen=True)
class Moments:
    """Second moments of a weight's inputs: `sums` (groups, d, d) float64, sum of x x^T over `n` rows (samples, tokens or positions).

    The weight as a matrix of (outputs, d) falls into as many equal runs of rows as there are groups; each sees inputs of its own.
    """

    sums: Tensor
    n: int
    shape: torch.Size
    out_dim: int = 0

    def matrices(self, weight: Tensor) -> Tensor:
        """The weight as (groups, rows, d), d in the order of the features."""
        found: Tensor = weight.movedim(self.out_dim, 0).flatten(1).unflatten(0, (len(self.sums), -1))
        return found

    def weight(self, matrices: Tensor) -> Tensor:
        """The inverse of `matrices`; (groups, 1, d) becomes what broadcasts to the weight's shape, or the shape itself for groups."""
        rest = [size for d, size in enumerate(self.shape) if d != self.out_dim]
        if matrices.shape[1] == 1 and len(matrices) > 1:
            matrices = matrices.expand(-1, self.shape[self.out_dim] // len(matrices), -1)
        return matrices.flatten(0, 1).reshape(-1, *rest).movedim(0, self.out_dim)


@signals("input_norms", source="Sun et al. 2024, arXiv:2306.11695, eq. 1")
def input_norms(calibration: Calibration) -> dict[str, Tensor]:
    """L2 norm of every input feature over all samples, tokens and positions, in the input's unit; broadcasts to the weight's shape.

    A convolution's features are the entries of its patches; float64. Refused, with the reason, for weights whose inputs are not seen.
    """
    sums: dict[str, Tensor] = {}

    def add(name: str, rows: Tensor) -> None:
        square = rows.double().square().sum(1)
        sums[name] = sums[name] + square if name in sums else square

    _gather(calibration, "input_norms", add)
    shapes = {t.name: Moments(sums[t.name], 0, t.parameter.shape, t.out_dim) for t in calibration.targets}
    return {name: shapes[name].weight(square.sqrt()[:, None]) for name, square in sums.items()}


@signals("input_moments", source="layer-wise Hessian X X^T: Frantar & Alistarh 2023, arXiv:2301.00774, sec. 3.1")
def input_moments(calibration: Calibration) -> dict[str, Moments]:
    """Sum of x x^T over all samples, tokens and positions, squared unit of the input; `Moments` of float64 for each target.

    Memory: 8 bytes x (inputs of a unit)^2 a layer. Refused, with the reason, for weights whose inputs are not seen.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def add(name: str, rows: Tensor) -> None:
        x = rows.double()
        product = x.mT @ x
        sums[name] = sums[name].add_(product) if name in sums else product
        counts[name] = counts.get(name, 0) + x.shape[1]

    _gather(calibration, "input_moments", add)
    return {t.name: Moments(sums[t.name], counts[t.name], t.parameter.shape, t.out_dim) for t in calibration.targets}


def _gather(calibration: Calibration, signal: str, add: Callable[[str, Tensor], None]) -> None:
    """Calls `add(target, rows)` with (groups, n, d) for all that enters each target's weight in a pass over the calibration set."""
    seen: set[str] = set()
    busy: list[str] = []  # the hook at work: finding an attention's inner inputs runs it again, which no hook shall see

    def receiver(name: str) -> Receive:
        def receive(rows: Tensor) -> None:
            seen.add(name)
            add(name, rows.detach())

        return receive

    with undisturbed(calibration) as model, contextlib.ExitStack() as stack, torch.no_grad():
        for target in calibration.targets:
            for place in _places(model, target.parameter):
                for handle in _watch(model, place, signal, receiver(target.name), busy):
                    stack.callback(handle.remove)
        for inputs, _ in calibration.chunks(f"signal {signal!r}"):
            forward(model, inputs)
    if missing := [t.name for t in calibration.targets if t.name not in seen]:
        raise PruningError(f"signal {signal!r}: nothing entered {missing[0]} in the forward pass: exclude the layer")


def _places(model: nn.Module, parameter: nn.Parameter) -> list[str]:
    """All names of a parameter that several modules may share, but for embeddings, which have no inputs to multiply."""
    named = model.named_parameters(remove_duplicate=False)
    return [n for n, p in named if p is parameter and not isinstance(model.get_submodule(owner(n)), nn.Embedding)]


def _watch(model: nn.Module, place: str, signal: str, receive: Receive, busy: list[str]) -> Iterator[Any]:
    home, _, local = place.rpartition(".")
    module = model.get_submodule(home)
    above = home.rpartition(".")[0]
    if isinstance(module, nn.Linear) and isinstance(parent := model.get_submodule(above), nn.MultiheadAttention):
        module, local = parent, f"{home.rpartition('.')[2]}.{local}"
    rows = _rows_of(module, local)
    if rows is None:
        kind = "a bare parameter" if not list(module.children()) and type(module).__module__.split(".")[0] != "torch" else "a parameter"
        raise PruningError(
            f"signal {signal!r}: {place} is {kind} of {type(module).__name__}, whose inputs are not seen from outside: "
            "exclude it, or choose a criterion of the weights or gradients"
        )

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], _output: Any) -> None:
        if not busy:
            busy.append(place)
            try:
                for part in rows(module, local, args, kwargs):
                    receive(part)
            finally:
                busy.clear()

    yield module.register_forward_hook(hook, with_kwargs=True)


def _rows_of(module: nn.Module, local: str) -> Callable[..., Iterator[Tensor]] | None:
    """How the inputs of `local`, a parameter of `module`, are had from a call of the module; None where no way is known."""
    if isinstance(module, nn.MultiheadAttention):
        return attention_inputs
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return recurrent_inputs if "weight_hr" not in local else None
    if isinstance(module, CONVOLUTIONS) and local == "weight":
        return convolution_inputs
    if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D") and local == "weight":
        return _linear_inputs
    return None


def _linear_inputs(_module: nn.Module, _local: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    x = args[0] if args else next(iter(kwargs.values()))
    yield x.reshape(1, -1, x.shape[-1])
