"""What the layers of many replicates give for the same samples, in one forward pass of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from prunescope.measures.capture import OUTPUT, activations_of, capture
from prunescope.training.stacked import Blueprint, Layer, blueprint

BLOCK_BYTES = 16 << 20  # values of all units of all replicates at a time


@torch.no_grad()
def capture_stack(
    models: Sequence[nn.Module], x: Tensor, layers: Sequence[str] | None = None, *, batch_size: int = 2048
) -> dict[str, Tensor]:
    """Values of each layer for the rows of `x`, in evaluation mode: name -> (replicates, n, ...), as `capture` gives them one by one.

    models   networks of one architecture; plain perceptrons go through together, others one after another with `batch_size` rows
    layers   module names and "output"; default: every activation and the output

    >>> nets = [nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)) for _ in range(5)]
    >>> {name: tuple(v.shape) for name, v in capture_stack(nets, torch.zeros(7, 3)).items()}
    {'1': (5, 7, 4), 'output': (5, 7, 2)}
    """
    plan = blueprint(models[0], tuple(x.shape[1:]), None)
    wanted = [*activations_of(models[0]), OUTPUT] if layers is None else list(layers)
    if not isinstance(plan, Blueprint) or not _known(plan, wanted) or any(m._forward_hooks for n in models for m in n.modules()):
        each = [capture(m, x, layers, batch_size=batch_size) for m in models]
        return {name: torch.stack([values[name] for values in each]) for name in each[0]}
    found = _forward(plan, models, x.flatten(1), set(wanted))
    if OUTPUT in found:
        found[OUTPUT] = _TAILS[type(plan.tail)](found[OUTPUT])
    return found


_TAILS: dict[type, Callable[[Tensor], Tensor]] = {
    type(None): lambda z: z,
    nn.LogSoftmax: lambda z: z.log_softmax(-1),
    nn.Softmax: lambda z: z.softmax(-1),
    nn.Sigmoid: lambda z: z.sigmoid(),
}


def _known(plan: Blueprint, wanted: Sequence[str]) -> bool:
    names = {n for layer in plan.layers for n in (layer.name, layer.follower) if n} | {OUTPUT}
    dim = getattr(plan.tail, "dim", -1)
    return set(wanted) <= names and type(plan.tail) in _TAILS and dim in (-1, 1)


def _forward(plan: Blueprint, models: Sequence[nn.Module], x: Tensor, wanted: set[str]) -> dict[str, Tensor]:
    owners = [dict(m.named_parameters()) for m in models]
    stacked = {name: torch.stack([o[name].detach() for o in owners]) for name in owners[0]}
    units = sum(layer.outputs for layer in plan.layers)
    block = max(1, BLOCK_BYTES // (x.element_size() * units * len(models)))
    kept: dict[str, list[Tensor]] = {}
    for rows in x.split(block):
        a = rows.T.expand(len(models), -1, -1)
        for layer in plan.layers:
            z, a = _through(layer, stacked, a)
            for name, value in ((layer.name, z), (layer.follower, a)):
                if name in wanted - {OUTPUT}:  # a module of that name gives way to what the model returns
                    kept.setdefault(name, []).append(value)
        if OUTPUT in wanted:
            kept.setdefault(OUTPUT, []).append(a)
    return {name: torch.cat(parts, 2).transpose(1, 2) for name, parts in kept.items()}


def _through(layer: Layer, stacked: dict[str, Tensor], a: Tensor) -> tuple[Tensor, Tensor]:
    weight = stacked[f"{layer.name}.weight"]
    z = torch.baddbmm(stacked[f"{layer.name}.bias"].unsqueeze(2), weight, a) if layer.bias else torch.bmm(weight, a)
    if not layer.follower:
        return z, z
    out = torch.empty_like(z)
    layer.activation.forward(z, out)
    return z, out
