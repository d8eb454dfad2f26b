"""How replicates are best trained: stacked by hand, vectorised by torch.func, or one by one, and how many at once.

The rule of "auto", measured by benchmarks/replicas.py on one AVX-512 core (docs/log.md has the figures).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from torch import nn
from torch.nn.modules.conv import _ConvNd

from prunescope.config import TrainingConfig
from prunescope.training.loop import batch_size as batch_size
from prunescope.training.stacked import Blueprint, blueprint
from prunescope.types import ConfigError, Split

WORKSPACE_BYTES = 16 << 20  # values and slopes of all units of a stack in one step: about what the last cache level holds
PARAMETER_BYTES = 16 << 20  # weights, gradients and the optimiser's own numbers of a stack
LARGE = 500_000  # parameters a network from which on the matrix products alone fill the core
SMALL = 50_000  # parameters a network up to which torch.func saves more calls than its transposes cost
STOCHASTIC = (nn.modules.dropout._DropoutNd, nn.RReLU)
TAUGHT = "each network learns from its own dense one, a loss whose slope the stack does not have"
QUANTISED = "layers compute as int8 will, which the stack's matrix products do not"
ELEMENTWISE = ("sgd", "adam", "adamw")  # optimisers that treat every number alike, so that a flat buffer changes nothing


class Way(Enum):
    """How replicates are trained."""

    STACKED = "stacked"
    VECTORISED = "vectorised"
    ALONE = "one by one"


@dataclass(frozen=True)
class Arrangement:
    """The way chosen, how many replicates go together, and why in one sentence."""

    way: Way
    size: int
    text: str
    blueprint: Blueprint | None = None


def arrange(
    models: Sequence[nn.Module],
    splits: Sequence[Split],
    settings: TrainingConfig,
    *,
    stack: str | int = "auto",
    apart: str | None = None,
) -> Arrangement:
    """The arrangement for replicates `models` on `splits`; `.text` says what was chosen and why.

    stack   "auto": by the rule, "on": as many at once as there are, "off": one by one, or the number at once
    apart   a reason that the caller knows why they cannot go together

    Networks that cannot be stacked go one by one whatever was asked for, and the text says what stands in the way.
    """
    wanted = asked(stack, len(models))
    if wanted == 0:
        return Arrangement(Way.ALONE, 1, "one by one, as asked")
    _same_architecture(models)
    if (hindrance := apart or _hindrance(models, splits, settings)) is not None:
        return Arrangement(Way.ALONE, 1, f"one by one: {hindrance}")
    plan = blueprint(models[0], tuple(splits[0].x.shape[1:]), settings.loss)
    parameters = sum(p.numel() for p in models[0].parameters())
    if isinstance(plan, Blueprint):
        size = wanted or min(len(models), _fitting(plan, parameters, batch_size(len(splits[0]), settings), settings.optimizer))
        if size == 0:
            return Arrangement(Way.ALONE, 1, f"one by one: with {parameters:,} parameters each, stacking saves nothing")
        return Arrangement(Way.STACKED, size, f"{size} at once by batched matrix products, {parameters:,} parameters each", plan)
    slow = (_ConvNd, nn.RNNBase, nn.MultiheadAttention, nn.LayerNorm)  # many small calls each, which vmap makes no fewer
    if not wanted and (parameters > SMALL or any(isinstance(m, slow) for m in models[0].modules())):
        return Arrangement(Way.ALONE, 1, f"one by one: {plan}, and torch.func is no faster for networks of its kind")
    size = wanted or len(models)
    return Arrangement(Way.VECTORISED, size, f"{size} at once by torch.func: {plan}")


def _fitting(plan: Blueprint, parameters: int, batch: int, optimizer: str) -> int:
    """Replicates at once by the rule: as many as fit the caches, at least one, and none of large networks."""
    if parameters > LARGE:
        return 0
    units = sum(layer.outputs for layer in plan.layers)
    numbers = 2 if optimizer == "sgd" else 4
    return max(1, min(WORKSPACE_BYTES // (8 * units * batch), PARAMETER_BYTES // (4 * numbers * parameters)))


def asked(stack: str | int, count: int) -> int | None:
    """How many of `count` replicates at once `stack` asks for: None leaves it to the rule, 0 is one by one. ConfigError for all else."""
    if isinstance(stack, int) and not isinstance(stack, bool) and stack >= 1:
        return min(stack, count)
    choices: dict[object, int | None] = {"auto": None, "on": count, "off": 0}
    if isinstance(stack, bool) or stack not in choices:
        raise ConfigError(f"stack {stack!r}: expected auto, on, off or a number of replicates of at least 1")
    return choices[stack]


def _same_architecture(models: Sequence[nn.Module]) -> None:
    first = _signature(models[0])
    for i, model in enumerate(models[1:], 1):
        if _signature(model) != first:
            raise ConfigError(f"replicate {i} differs from replicate 0 in architecture: train networks of one architecture together")


def _signature(model: nn.Module) -> list[tuple[str, ...]]:
    """Names, kinds and options of all modules, and the shapes of the parameters."""
    modules = [(n, f"{type(m).__module__}.{type(m).__qualname__}", m.extra_repr()) for n, m in model.named_modules()]
    return [*modules, *((n, str(tuple(p.shape))) for n, p in model.named_parameters())]


def _hindrance(models: Sequence[nn.Module], splits: Sequence[Split], settings: TrainingConfig) -> str | None:
    """What keeps these networks from training together, or None."""
    if settings.optimizer not in ELEMENTWISE:
        return f"optimizer {settings.optimizer!r} may treat parameters differently"
    if len({len(s) for s in splits}) > 1:
        return "the replicates have different numbers of training samples"
    for model in models:
        if (found := _obstacle(model)) is not None:
            return found
    kinds = {(p.dtype, p.device) for m in models for p in m.parameters()} | {(s.x.dtype, s.x.device) for s in splits}
    if len(kinds) != 1:
        return "parameters and samples differ in type or device, or there are no parameters"
    return None


def _obstacle(model: nn.Module) -> str | None:
    for name, module in model.named_modules():
        if isinstance(module, STOCHASTIC):
            return f"{name or 'the model'} ({type(module).__name__}) draws noise, which each replicate draws for itself"
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
            return f"{name or 'the model'} has hooks, which would see the stack"
    if any(True for _ in model.buffers()):
        return "it has buffers, which training may change"
    if not all(p.requires_grad for p in model.parameters()):
        return "some parameters are frozen"
    if len(list(model.named_parameters(remove_duplicate=False))) != len(list(model.named_parameters())):
        return "some parameters are shared between layers"
    return None
