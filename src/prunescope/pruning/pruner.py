"""`prune`: score, allocate, select, mask. Every axis is named and independent of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from prunescope import rng
from prunescope.pruning.allocation import checked_counts
from prunescope.pruning.granularity import expand, piece_scores
from prunescope.pruning.masks import Masks
from prunescope.pruning.select import smallest
from prunescope.pruning.targets import Target, biases, prunable, targets
from prunescope.registry import allocations, criteria, granularities
from prunescope.types import ConfigError, PruningError


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
    seed: int = 0,
) -> Masks:
    """Remove the least important fraction `sparsity` of the weights or units: zeroes them in place and returns the Masks.

    sparsity     fraction removed, 0 to 1, exact by rank: round(sparsity * n), ties by index. Left out with `threshold` or `table`.
    criterion, granularity, allocation   names from `prunescope list`, or "module:function" of your own
    norm         how a unit's weights make its score: "l2" or "l1"
    threshold    remove what scores at most this, instead of a fraction
    table        {layer pattern: sparsity}; implies allocation="table"
    layers, exclude   name patterns of the layers to prune, and of those to leave alone ("fc2", "conv*", "fc2.weight")
    output       the layer that gives the network's output is exempt unless True
    biases       "with-unit": a removed unit takes its bias and normalisation with it; "keep"; "drop": every bias goes
    allow_empty  permits removing the whole of a layer, which is refused otherwise
    masks        earlier masks, which stay in force and count towards the sparsity
    seed         of the random criterion

    Raises PruningError (nothing to prune, NaN scores, a layer emptied) and ConfigError (unknown name, sparsity outside [0, 1]).

    >>> layer = nn.Linear(4, 1, bias=False); _ = layer.weight.data.copy_(torch.tensor([[1.0, -4.0, 2.0, 3.0]]))
    >>> prune(layer, sparsity=0.5, output=True)["weight"].tolist()
    [[False, True, False, True]]
    """
    _check_request(sparsity, threshold, table, biases)
    allocation = "table" if table is not None else allocation
    chosen = _fitting(targets(model, layers=layers, exclude=exclude, output=output), granularity)
    spans = {t.name: granularities.get(granularity).function(t) for t in chosen}
    generator = rng.torch_generator(seed, "prune", criterion)
    scores = {t.name: _scores(t, spans[t.name], criterion, norm, generator, masks) for t in chosen}
    if threshold is not None:
        removed = {name: s <= threshold for name, s in scores.items()}
        checked_counts({name: int(r.sum()) for name, r in removed.items()}, scores, allow_empty=allow_empty)
    else:
        entry = allocations.get(allocation)
        needed = {"table": table} if "table" in entry.needs else {}
        counts = checked_counts(entry.function(scores, sparsity, **needed), scores, allow_empty=allow_empty)
        removed = {name: smallest(scores[name], counts[name]) for name in scores}
    new = Masks(_with_companions(model, chosen, spans, removed, biases), model)
    return ((masks & new).bind(model) if masks else new).apply()


def _check_request(sparsity: float | None, threshold: float | None, table: Any, biases: str) -> None:
    given = [n for n, v in (("sparsity", sparsity), ("threshold", threshold), ("table", table)) if v is not None]
    if not given or {"threshold", "table"} <= set(given) or (threshold is not None and sparsity is not None):
        raise ConfigError(f"expected one of sparsity, threshold or table, got {' and '.join(given) or 'none'}")
    if sparsity is not None and not 0 <= sparsity <= 1:
        hint = f"; for {sparsity} % write {sparsity / 100:g}" if 1 < sparsity <= 100 else ""
        raise ConfigError(f"sparsity {sparsity}: expected the fraction removed, from 0 to 1{hint}")
    if biases not in ("with-unit", "keep", "drop"):
        raise ConfigError(f"biases {biases!r}: expected with-unit, keep or drop")


def _fitting(chosen: list[Target], granularity: str) -> list[Target]:
    kinds = granularities.get(granularity).traits.get("kinds", ("linear", "convolution", "other"))
    fitting = [t for t in chosen if t.kind in kinds]
    if not fitting:
        raise PruningError(f"granularity {granularity!r} fits {' and '.join(kinds)} layers, and none of {[t.name for t in chosen]} is one")
    return fitting


def _scores(
    target: Target, spans: tuple[int, ...], criterion: str, norm: str, generator: Generator, masks: Masks | None
) -> Tensor:
    entry = criteria.get(criterion)
    available: dict[str, Any] = {"generator": generator}
    if missing := [n for n in entry.needs if n not in available]:
        raise ConfigError(f"criterion {criterion!r} needs {', '.join(missing)}, which prune cannot supply")
    weight = target.parameter.detach()
    raw = entry.function(weight, **{n: available[n] for n in entry.needs})
    if not isinstance(raw, Tensor) or raw.shape != weight.shape:
        raise PruningError(
            f"criterion {criterion!r} gave {tuple(raw.shape) if isinstance(raw, Tensor) else type(raw).__name__} "
            f"for {target.name}: expected scores of the weight's shape {tuple(weight.shape)}"
        )
    scores = piece_scores(raw, spans, how=entry.traits.get("units", "norm"), norm=norm)
    if masks is not None and target.name in masks:
        gone = ~piece_scores(masks[target.name].float(), spans, how="norm", norm="l1").bool()
        scores = scores.masked_fill(gone.to(scores.device), -torch.inf)
    return scores


def _with_companions(
    model: nn.Module, chosen: list[Target], spans: Mapping[str, tuple[int, ...]], removed: Mapping[str, Tensor], rule: str
) -> dict[str, Tensor]:
    masks: dict[str, Tensor] = {}
    for target in chosen:
        kept = ~removed[target.name]
        masks[target.name] = expand(kept, target, spans[target.name])
        if rule == "with-unit" and spans[target.name] and not bool(kept.all()):
            masks |= dict.fromkeys(target.companions, kept)
    if rule == "drop":
        masks |= {name: torch.zeros_like(p, dtype=torch.bool) for name, p in biases(model).items()}
    return masks


def reached(model: nn.Module, masks: Masks) -> dict[str, tuple[int, int]]:
    """(removed, all) of every prunable weight of `model`, by name: layers without a mask count with nothing removed."""
    return {n: (int((~masks[n]).sum()) if n in masks else 0, p.numel()) for n, p in prunable(model).items()}
