"""`prune`: score, allocate, select, mask. Every axis is named and independent of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunescope import rng
from prunescope.pruning.allocation import checked_counts
from prunescope.pruning.granularity import fixed_sparsity
from prunescope.pruning.groups import Group, masks_of
from prunescope.pruning.masks import Masks
from prunescope.pruning.scoring import scores_of
from prunescope.pruning.select import best_of_each, smallest
from prunescope.pruning.signals import Calibration, LossFunction, compute
from prunescope.pruning.targets import Target, prunable, targets
from prunescope.pruning.targets import biases as layer_biases
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
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Masks:
    """Remove the least important fraction `sparsity` of the weights or units: zeroes them in place and returns the Masks.

    sparsity     fraction removed, 0 to 1: round(sparsity * n) by rank, ties by index. Left out with `threshold`, `table` or "2:4".
    criterion, granularity, allocation   names from `prunescope list`, or "module:function" of your own
    norm         how the scores of a piece's weights make its own: "l2", "l1" or "linf"
    threshold    remove what scores at most this, instead of a fraction
    table        {layer pattern: sparsity}; implies allocation="table"
    layers, exclude   name patterns of the layers to prune, and of those to leave alone ("fc2", "conv*", "fc2.weight")
    output       the layer that gives the network's output is exempt unless True
    biases       "with-unit": a removed unit takes its bias and normalisation with it; "keep"; "drop": every bias goes
    allow_empty  permits removing the whole of a layer, which is refused otherwise
    masks        earlier masks, which stay in force and count towards the sparsity
    data         calibration set of criteria that need one: (inputs, labels), a Split, or batches of such pairs
    loss_fn      (outputs, labels) -> mean loss, for criteria that need gradients; cross-entropy unless given
    example_inputs   inputs of a forward pass, for granularities that follow the network's graph; two rows of `data` unless given
    options      options of the criterion, the granularity and the allocation, by name; seed: of what is drawn

    Raises PruningError (nothing to prune, NaN scores, a layer emptied) and ConfigError (unknown name, sparsity outside [0, 1]).

    >>> layer = nn.Linear(4, 1, bias=False); _ = layer.weight.data.copy_(torch.tensor([[1.0, -4.0, 2.0, 3.0]]))
    >>> prune(layer, sparsity=0.5, output=True)["weight"].tolist()
    [[False, True, False, True]]
    """
    allocation = "table" if table is not None else allocation
    entries = (criteria.get(criterion), granularities.get(granularity), allocations.get(allocation))
    own = split_options(entries, {**entries[1].traits.get("stated", {}), **(options or {})})
    sparsity = _checked_request(sparsity, threshold, table, biases, fixed_sparsity(entries[1], own[1]))
    chosen = {t.name: t for t in targets(model, layers=layers, exclude=exclude, output=output)}
    groups = groups_of(model, list(chosen.values()), entries[1], own[1], _examples(example_inputs, data))
    scored = [chosen[name] for name in dict.fromkeys(s.parameter for g in groups for s in g.scored)]
    calibration = Calibration(model, scored, _batches(data), loss_fn, rng.torch_generator(seed, "prune", criterion))
    available = compute(entries[0].needs, calibration)
    scores = scores_of(groups, chosen, entries[0], available, own[0], norm=norm, masks=masks)
    kept = _kept(groups, scores, entries[2], own[2], sparsity, threshold, table, allow_empty=allow_empty)
    dropped = layer_biases(model) if biases == "drop" else {}
    found = masks_of(groups, kept, model, companions=biases == "with-unit")
    new = Masks(found | {n: torch.zeros_like(p, dtype=torch.bool) for n, p in dropped.items()}, model)
    return ((masks & new).bind(model) if masks else new).apply()


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


def _batches(data: Any) -> list[Any] | None:
    """The calibration set as a list of (inputs, labels): a Split, one pair of tensors, or any iterable of pairs."""
    if data is None:
        return None
    if isinstance(data, Split):
        return [(data.x, data.y)]
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(d, Tensor) for d in data):
        return [data]
    return list(data)


def _examples(example_inputs: Any, data: Any) -> Any:
    """Inputs to trace the network with: those given, or the first two rows of the calibration set where it can be looked into."""
    if example_inputs is not None or data is None:
        return example_inputs
    first = data.x if isinstance(data, Split) else data[0] if isinstance(data, Sequence) and len(data) else None
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


def _kept(
    groups: Sequence[Group], scores: Mapping[str, Tensor], entry: Entry, options: Mapping[str, Any],
    sparsity: float | None, threshold: float | None, table: Mapping[str, float] | None, *, allow_empty: bool,
) -> dict[str, Tensor]:  # fmt: skip
    """What is kept of each group (pieces,): by threshold, by its pattern, or the highest scores of the allocation's counts."""
    if any(g.pattern for g in groups):
        return {g.name: best_of_each(scores[g.name], *_pattern(g, sparsity)) for g in groups}
    if threshold is not None:
        kept = {name: s > threshold for name, s in scores.items()}
        checked_counts({name: int((~k).sum()) for name, k in kept.items()}, scores, allow_empty=allow_empty)
        return kept
    needed = {"table": table} if "table" in entry.needs else {}
    counts = checked_counts(entry.function(scores, sparsity, **needed, **options), scores, allow_empty=allow_empty)
    return {g.name: ~smallest(scores[g.name], counts[g.name]) for g in groups}


def _pattern(group: Group, sparsity: float | None) -> tuple[int, int]:
    """The pattern of a group, refused where the request is for another sparsity than that of the pattern."""
    if group.pattern is None:
        raise PruningError(f"{group.name} has no pattern and other layers have one: give all groups of a granularity a pattern, or none")
    kept, of = group.pattern
    if sparsity is None or abs(sparsity - (1 - kept / of)) > 1e-9:
        asked = f"got {sparsity:g}" if sparsity is not None else "a threshold or table cannot change it"
        raise ConfigError(f"{group.name} keeps {kept} of every {of} pieces, which is sparsity {1 - kept / of:g}: {asked}")
    return kept, of


def split_options(entries: Sequence[Entry], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The options of criterion, granularity and allocation, told apart by name. ConfigError for one that none of them takes."""
    known = [e.options for e in entries]
    for name in options:
        if not any(name in k for k in known) and not any(e.traits.get("own") for e in entries):
            raise ConfigError(unknown("pruning option", name, sorted({n for k in known for n in k}) or ["none: these axes have none"]))
    found = [{n: v for n, v in options.items() if n in k} for k in known]
    for entry, own in zip(entries, found, strict=True):
        if not entry.traits.get("own"):
            check_types(f"{entry.kind} {entry.name!r}", entry.function, own)
    return found


def reached(model: nn.Module, masks: Masks) -> dict[str, tuple[int, int]]:
    """(removed, all) of every prunable weight of `model`, by name: layers without a mask count with nothing removed."""
    return {n: (int((~masks[n]).sum()) if n in masks else 0, p.numel()) for n, p in prunable(model).items()}
