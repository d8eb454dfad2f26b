"""`prune`: score, allocate, select, mask. Every axis is named and independent of the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunescope import rng
from prunescope.pruning.budget import Request
from prunescope.pruning.granularity import fixed_sparsity
from prunescope.pruning.groups import Group
from prunescope.pruning.masks import Masks
from prunescope.pruning.rounds import Work, levels
from prunescope.pruning.scoring import criterion_options, signals_of
from prunescope.pruning.signals import Calibration, LossFunction, batches_of
from prunescope.pruning.targets import Target, prunable, targets
from prunescope.pruning.wrapping import unwrapped
from prunescope.registry import Entry, allocations, check_types, criteria, granularities, unknown
from prunescope.types import ConfigError, PruningError, Split


@torch.no_grad()
def prune(
    model: nn.Module,
    *,
    sparsity: float | None = None,
    criterion: str = "magnitude",
    granularity: str = "weight",
    allocation: str = "uniform",
    norm: str = "l2",
    threshold: float | None = None,
    table: Mapping[str, float] | None = None,
    layers: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    output: bool = False,
    biases: str = "with-unit",
    allow_empty: bool = False,
    masks: Masks | None = None,
    data: Any = None,
    loss_fn: LossFunction | None = None,
    example_inputs: Any = None,
    initial: Mapping[str, Tensor] | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Masks:
    """Remove the least important fraction `sparsity` of the weights or units: zeroes them in place and returns the Masks.

    Kept weights stay bitwise as they are, unless the criterion has a solver (obs-block, sparsegpt; options={"update": False} forgoes it).

    sparsity     fraction removed, 0 to 1: round(sparsity * n) by rank, ties by index. Left out with `threshold`, `table` or "2:4".
    criterion, granularity, allocation   names from `prunescope list`, or "module:function" of your own
    norm         how the scores of a piece's weights make its own: "l2", "l1" or "linf"
    threshold, table   remove what scores at most this, or {layer pattern: sparsity}, instead of a fraction
    layers, exclude   name patterns of the layers to prune, and of those to leave alone ("fc2", "conv*", "fc2.weight")
    output       the layer that gives the network's output is exempt unless True
    biases       "with-unit": a removed unit takes its bias and normalisation with it; "keep"; "drop": every bias goes
    allow_empty  permits removing the whole of a layer, which is refused otherwise
    masks        earlier masks, which stay in force and count towards the sparsity
    data         calibration set of criteria that need one: (inputs, labels), a Split, or batches of such pairs
    loss_fn      (outputs, labels) -> mean loss, for criteria that need gradients; cross-entropy unless given
    example_inputs   inputs of a forward pass, for granularities that follow the network's graph; two rows of `data` unless given
    initial      {parameter: values at the start of training}, for criteria of movement
    options      options of the criterion, the granularity and the allocation, by name; seed: of what is drawn

    Raises PruningError (nothing to prune, NaN scores, a layer emptied) and ConfigError (unknown name, sparsity outside [0, 1]).

    >>> layer = nn.Linear(4, 1, bias=False); _ = layer.weight.data.copy_(torch.tensor([[1.0, -4.0, 2.0, 3.0]]))
    >>> prune(layer, sparsity=0.5, output=True)["weight"].tolist()
    [[False, True, False, True]]
    """
    model = unwrapped(model)
    entries = (criteria.get(criterion), granularities.get(granularity), allocations.get("table" if table is not None else allocation))
    own = split_options(entries, {**entries[1].traits.get("stated", {}), **(options or {})})
    sparsity = _checked_request(sparsity, threshold, table, biases, fixed_sparsity(entries[1], own[1]))
    chosen = {t.name: t for t in targets(model, layers=layers, exclude=exclude, output=output, units=granularity != "weight")}
    groups = groups_of(model, list(chosen.values()), entries[1], own[1], _examples(example_inputs, data))
    scored = [chosen[name] for name in dict.fromkeys(s.parameter for g in groups for s in g.scored)]
    extra, draw = {"initial": initial, "example_inputs": example_inputs}, rng.torch_generator(seed, "prune", criterion)
    calibration = Calibration(model, scored, batches_of(data), loss_fn, draw, extra)
    plan = levels(entries[0], own[0], Request(sparsity, threshold, table, allow_empty))
    return Work(entries, own, chosen, groups, calibration, norm, biases).rounds(masks, list(plan))


def _checked_request(
    sparsity: float | None, threshold: float | None, table: Any, biases: str, fixed: float | None
) -> float | None:  # fmt: skip
    """The sparsity to prune to; `fixed` is the only one that the granularity can have."""
    given = [n for n, v in (("sparsity", sparsity), ("threshold", threshold), ("table", table)) if v is not None]
    if fixed is not None and given and (given != ["sparsity"] or abs(float(sparsity or 0) - fixed) > 1e-9):
        raise ConfigError(f"this granularity removes exactly {fixed:g}: leave {' and '.join(given)} out")
    if (not given and fixed is None) or {"threshold", "table"} <= set(given) or (threshold is not None and sparsity is not None):
        raise ConfigError(f"expected one of sparsity, threshold or table, got {' and '.join(given) or 'none'}")
    if sparsity is not None and not 0 <= sparsity <= 1:
        hint = f"; for {sparsity} % write {sparsity / 100:g}" if 1 < sparsity <= 100 else ""
        raise ConfigError(f"sparsity {sparsity}: expected the fraction removed, from 0 to 1{hint}")
    if biases not in ("with-unit", "keep", "drop"):
        raise ConfigError(f"biases {biases!r}: expected with-unit, keep or drop")
    return sparsity if fixed is None else fixed


def _examples(example_inputs: Any, data: Any) -> Any:
    """Inputs to trace the network with: those given, or the first two rows of the calibration set where it can be looked into."""
    if example_inputs is not None or data is None:
        return example_inputs
    first = data.x if isinstance(data, Split) else data[0] if isinstance(data, Sequence) and len(data) else None
    if first is None and hasattr(data, "__iter__") and not isinstance(data, Iterator):  # a loader, which can be begun again
        with torch.random.fork_rng(devices=[]):  # it draws its order from torch's global generator
            first = next(iter(data), None)
    first = first[0] if isinstance(first, tuple | list) else first  # batches of (inputs, labels)
    return first[:2] if isinstance(first, Tensor) else first


def groups_of(
    model: nn.Module, chosen: Sequence[Target], entry: Entry, options: Mapping[str, Any], example_inputs: Any = None
) -> list[Group]:
    """The groups of pieces that a granularity makes of the targets. PruningError where it fits none of them."""
    kinds, ndim = entry.traits.get("kinds", ("linear", "convolution", "other")), entry.traits.get("ndim")
    fitting = [t for t in chosen if t.kind in kinds and (t.kind == "convolution" or ndim is None or t.parameter.ndim == ndim)]
    if not fitting:
        raise PruningError(f"granularity {entry.name!r} fits {' and '.join(kinds)} layers, and none of {[t.name for t in chosen]} is one")
    if entry.traits.get("coupled"):
        found: list[Group] = entry.function(model, fitting, example_inputs, **options)
        return found
    return [entry.function(t, **options) for t in fitting]




def split_options(entries: Sequence[Entry], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The options of criterion, granularity and allocation, told apart by name. ConfigError for one that none of them takes."""
    known = [criterion_options(entries[0]), *(e.options for e in entries[1:])]
    for name in options:
        if not any(name in k for k in known) and not any(e.traits.get("own") for e in entries):
            raise ConfigError(unknown("pruning option", name, sorted({n for k in known for n in k}) or ["none: these axes have none"]))
    found = [{n: v for n, v in options.items() if n in k} for k in known]
    for entry, own in zip((*entries, *signals_of(entries[0])), (*found, *[found[0]] * len(entries[0].needs)), strict=True):
        if not entry.traits.get("own"):
            check_types(f"{entry.kind} {entry.name!r}", entry.function, {n: v for n, v in own.items() if n in entry.options})
    return found


def reached(model: nn.Module, masks: Masks) -> dict[str, tuple[int, int]]:
    """(removed, all) of every prunable weight of `model`, by name: layers without a mask count with nothing removed."""
    return {n: (int((~masks[n]).sum()) if n in masks else 0, p.numel()) for n, p in prunable(model).items()}
