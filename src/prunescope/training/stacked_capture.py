"""What the layers of many replicates give for the same samples, in one forward pass of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from prunescope.measures.capture import OUTPUT, activations_of, capture
from prunescope.training.stacked import Blueprint, Layer, blueprint

BLOCK_BYTES = 64 << 20  # values of all units of all replicates at a time; several blocks have to be copied into one tensor


class StackCapture:
    """Captures the same layers of the same networks again and again; what does not change between two looks is found out once.

    models   networks of one architecture; plain perceptrons go through together, others one after another, `batch_size` rows at a time
    layers   module names and "output"; default: every activation and the output
    """

    def __init__(self, models: Sequence[nn.Module], layers: Sequence[str] | None = None, *, batch_size: int | None = None) -> None:
        self._models, self._layers, self._batch_size = models, layers, batch_size
        self._wanted = [*activations_of(models[0]), OUTPUT] if layers is None else list(layers)
        self._plans: dict[tuple[int, ...], Blueprint | None] = {}
        self._modules = [module for model in models for module in model.modules()]
        owners = [dict(m.named_parameters()) for m in models]
        self._parameters = {name: [owner[name] for owner in owners] for name in owners[0]}

    @torch.no_grad()
    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        """Values of each layer for the rows of `x`, in evaluation mode: name -> (replicates, n, ...), as `capture` gives them alone."""
        plan = self._plan(tuple(x.shape[1:]))
        if plan is None or any(m._forward_hooks for m in self._modules):
            each = [capture(m, x, self._layers, batch_size=self._batch_size) for m in self._models]
            return {name: torch.stack([values[name] for values in each]) for name in each[0]}
        stacked = {name: torch.stack([p.detach() for p in owned]) for name, owned in self._parameters.items()}
        found = _forward(plan, stacked, len(self._models), x.flatten(1), set(self._wanted))
        if OUTPUT in found:
            found[OUTPUT] = _TAILS[type(plan.tail)](found[OUTPUT])
        return found

    def _plan(self, shape: tuple[int, ...]) -> Blueprint | None:
        if shape not in self._plans:
            plan = blueprint(self._models[0], shape, None)
            self._plans[shape] = plan if isinstance(plan, Blueprint) and _known(plan, self._wanted) else None
        return self._plans[shape]


def capture_stack(
    models: Sequence[nn.Module], x: Tensor, layers: Sequence[str] | None = None, *, batch_size: int | None = None
) -> dict[str, Tensor]:
    """Values of each layer for the rows of `x`, once: see `StackCapture`.

    >>> nets = [nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)) for _ in range(5)]
    >>> {name: tuple(v.shape) for name, v in capture_stack(nets, torch.zeros(7, 3)).items()}
    {'1': (5, 7, 4), 'output': (5, 7, 2)}
    """
    return StackCapture(models, layers, batch_size=batch_size)(x)


_TAILS: dict[type, Callable[[Tensor], Tensor]] = {
    type(None): lambda z: z,
    # outputs lie classes first in memory, and that way these two are ten times faster for few classes
    nn.LogSoftmax: lambda z: z.transpose(1, 2).log_softmax(1).transpose(1, 2),
    nn.Softmax: lambda z: z.transpose(1, 2).softmax(1).transpose(1, 2),
    nn.Sigmoid: lambda z: z.sigmoid(),
}


def _known(plan: Blueprint, wanted: Sequence[str]) -> bool:
    names = {n for layer in plan.layers for n in (layer.name, layer.follower) if n} | {OUTPUT}
    dim = getattr(plan.tail, "dim", -1)
    return set(wanted) <= names and type(plan.tail) in _TAILS and dim in (-1, 1)


def _forward(plan: Blueprint, stacked: dict[str, Tensor], r: int, x: Tensor, wanted: set[str]) -> dict[str, Tensor]:
    units = sum(layer.outputs for layer in plan.layers)
    block = max(1, BLOCK_BYTES // (x.element_size() * units * r))
    kept: dict[str, list[Tensor]] = {}
    for rows in x.split(block):
        a = rows.T.expand(r, -1, -1)
        for layer in plan.layers:
            z, a = _through(layer, stacked, a, keep=layer.name in wanted)
            for name, value in ((layer.name, z), (layer.follower, a)):
                if name in wanted - {OUTPUT}:  # a module of that name gives way to what the model returns
                    kept.setdefault(name, []).append(value)
        if OUTPUT in wanted:
            kept.setdefault(OUTPUT, []).append(a)
    return {name: (parts[0] if len(parts) == 1 else torch.cat(parts, 2)).transpose(1, 2) for name, parts in kept.items()}


def _through(layer: Layer, stacked: dict[str, Tensor], a: Tensor, *, keep: bool) -> tuple[Tensor, Tensor]:
    """Values before and after the activation; those before it are overwritten unless they are to be kept."""
    weight = stacked[f"{layer.name}.weight"]
    z = torch.baddbmm(stacked[f"{layer.name}.bias"].unsqueeze(2), weight, a) if layer.bias else torch.bmm(weight, a)
    if not layer.follower:
        return z, z
    out = z if layer.activation.in_place and not keep else torch.empty_like(z)
    layer.activation.forward(z, out)
    return z, out
