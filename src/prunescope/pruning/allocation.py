"""Allocation: how many pieces each layer gives up for an overall sparsity.

An allocation is a pure function (scores, sparsity, **facts) -> counts, all by group name. `scores` tells how many pieces there are and,
read as a stream, how important each is. `needs` names the facts it takes: "table" (the user's), "shapes" (of each group's first
weight), "sizes" (parameters that a piece of the group covers), "costs" (multiplications that a piece takes for one sample) and "latency"
(the milliseconds of pieces and layers). Trait
`pooled` says that the counts are those of one ranking over all layers, so that they need not be found apart from the selection. The
option `least` is the number of pieces that every layer keeps in any case.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from prunescope.pruning.latency import Costs
from prunescope.pruning.select import highest
from prunescope.pruning.sensitivity import Scan, levels_for
from prunescope.pruning.streams import Scores, Stream, stream_of, whole
from prunescope.pruning.targets import fits
from prunescope.registry import allocations, unknown
from prunescope.types import ConfigError, PruningError

Numbers = Mapping[str, float]


@allocations("uniform", source="the same fraction of every layer (layer-wise)")
def uniform(scores: Scores, sparsity: float, *, least: int = 0) -> dict[str, int]:
    """round(sparsity * pieces) of every layer, in pieces."""
    return _capped({name: round(sparsity * s.numel()) for name, s in scores.items()}, scores, least)


@allocations("global", source="one ranking over all layers: Han et al. 2015; Blalock et al. 2020, arXiv:2003.03033", pooled=True)
def global_(scores: Scores, sparsity: float, *, least: int = 0) -> dict[str, int]:
    """The smallest round(sparsity * all pieces) of one ranking over all layers, in pieces per layer."""
    return _pooled(scores, round(sparsity * sum(s.numel() for s in scores.values())), least)


@allocations("table", source="a sparsity for each layer, by hand", needs=("table",))
def table(scores: Scores, sparsity: float, table: Mapping[str, float], *, least: int = 0) -> dict[str, int]:
    """round(table[pattern] * pieces) of every layer that a name pattern fits, 0 of the others, in pieces."""
    owner: dict[str, str] = {}
    for pattern in table:
        fitting = [n for n in scores if fits(n, pattern)]
        if not fitting:
            raise ConfigError(f"table: {unknown('layer', pattern, list(scores))}")
        owner |= dict.fromkeys(fitting, pattern)
    counts = {name: round(table[owner[name]] * s.numel()) if name in owner else 0 for name, s in scores.items()}
    return _capped(counts, scores, least)


@allocations("erk", source="Evci et al. 2020, arXiv:1911.11134, sec. 3 (1); Mocanu et al. 2018", needs=("shapes",))
def erk(scores: Scores, sparsity: float, shapes: Mapping[str, tuple[int, ...]], *, least: int = 0) -> dict[str, int]:
    """Density in proportion to (sum of the weight's dimensions) / (their product), exact in total, in pieces per layer.

    Wide layers give up most. A layer whose share would exceed all of it stays dense and the others make up for it.
    """
    return _capped(_in_proportion(scores, sparsity, {n: sum(shapes[n]) / math.prod(shapes[n]) for n in scores}), scores, least)


@allocations("erdos-renyi", source="Mocanu et al. 2018, arXiv:1707.04780, eq. 3", needs=("shapes",))
def erdos_renyi(scores: Scores, sparsity: float, shapes: Mapping[str, tuple[int, ...]], *, least: int = 0) -> dict[str, int]:
    """Density in proportion to (inputs + outputs) / (inputs * outputs), kernels not counted, exact in total, in pieces per layer."""
    return _capped(_in_proportion(scores, sparsity, {n: sum(shapes[n][:2]) / math.prod(shapes[n][:2]) for n in scores}), scores, least)


@allocations("lamp", source="Lee et al. 2021, arXiv:2010.07611, eq. 1")
def lamp(scores: Scores, sparsity: float, *, least: int = 0) -> dict[str, int]:
    """One ranking of each score's square over the sum of squares of those in its layer that are not smaller, in pieces per layer."""
    total = round(sparsity * sum(s.numel() for s in scores.values()))
    return _pooled({n: lamp_scores(whole(s)) for n, s in scores.items()}, total, max(least, 1))


@allocations("parameters", source="a budget of parameters, spent on the lowest scores of one ranking", needs=("sizes",))
def parameters(scores: Scores, sparsity: float, sizes: Numbers, *, least: int = 1) -> dict[str, int]:
    """As few pieces of one ranking, the smallest scores first, as cover `sparsity` of all parameters; in pieces per layer."""
    return _within_budget(scores, sparsity, sizes, least, "parameters")


@allocations("flops", source="a budget of multiplications, as in Molchanov et al. 2017, arXiv:1611.06440, eq. 10", needs=("costs",))
def flops(scores: Scores, sparsity: float, costs: Numbers, *, least: int = 1) -> dict[str, int]:
    """As few pieces of one ranking, the smallest scores first, as take `sparsity` of all multiplications; in pieces per layer.

    A piece counts with what its own weights take; that a removed unit also spares the next layer work is counted where the piece covers it.
    """
    return _within_budget(scores, sparsity, costs, least, "multiplications")


@allocations("latency", source="milliseconds, linear in a layer's width: Shen et al. 2021, arXiv:2110.10811", needs=("latency",))
def latency(
    scores: Scores, sparsity: float, latency: Costs, *, times: Mapping[str, Mapping[str, float]] | None = None, least: int = 1
) -> dict[str, int]:
    """As few pieces of one ranking, the smallest scores first, as save `sparsity` of the milliseconds of all layers that have pieces.

    times   {weight: {"all", "output", "input": ms}} as `layer_times` gives them; None: measured now, so that no two runs need agree
    A piece saves what its rows and columns save in the dense layer, each by itself (`latency.py`). The fixed part of a layer's time stays.
    """
    return _within_budget(scores, sparsity, latency.pieces, least, "latency", latency.total)


@allocations("sensitivity", source="layer by layer as Han et al. 2015, arXiv:1506.02626, fig. 6", needs=("scan",))
def sensitivity(scores: Scores, sparsity: float, scan: Scan, *, least: int = 1) -> dict[str, int]:
    """The sparsities at which every layer, pruned alone, raises the calibration loss by the same amount; exact in total, in pieces."""
    sizes = {n: s.numel() for n, s in scores.items()}
    levels = levels_for(scan, sizes, sparsity, least=least)
    return _rounded({n: levels[n] * sizes[n] for n in sizes}, round(sparsity * sum(sizes.values())), sizes)


def lamp_scores(scores: Tensor) -> Tensor:
    """score_i^2 / (sum of score_j^2 over all j that are not smaller), no unit, float64; shape of `scores`.

    Negative scores, and the minus infinity of what is gone already, stay as they are and so rank lowest.

    >>> [round(v, 2) for v in lamp_scores(torch.tensor([1.0, 2.0])).tolist()]
    [0.2, 1.0]
    """
    values = scores.double().flatten()
    squares = values.clamp_min(0).square()
    order = squares.argsort(descending=True, stable=True)
    found = torch.empty_like(squares)
    found[order] = squares[order] / squares[order].cumsum(0).clamp_min(torch.finfo(torch.float64).tiny)
    return torch.where(values < 0, values, found).view(scores.shape)


def checked_counts(counts: Mapping[str, int], scores: Scores, *, allow_empty: bool) -> Mapping[str, int]:
    """`counts`, refused when a layer would lose its last piece and nobody said that it may."""
    emptied = [f"{name} ({scores[name].numel()})" for name, c in counts.items() if c >= scores[name].numel() > 0]
    if emptied and not allow_empty:
        raise PruningError(
            f"nothing would be left of {', '.join(emptied)}: lower the sparsity, exclude the layer, or set allow_empty to permit it"
        )
    return counts


def _capped(counts: dict[str, int], scores: Scores, least: int) -> dict[str, int]:
    """`counts` lowered where a layer would keep fewer than `least` pieces (or than it has)."""
    return {n: min(c, max(0, scores[n].numel() - least)) for n, c in counts.items()} if least > 0 else counts


def protected(scores: Scores, least: int) -> dict[str, Tensor | Stream]:
    """`scores` with the `least` highest of each layer at plus infinity, so that a ranking never takes them."""
    if least <= 0:
        return dict(scores)
    found: dict[str, Tensor | Stream] = {}
    for name, one in scores.items():
        values = whole(one).double().clone()
        values[values.topk(min(least, values.numel())).indices] = torch.inf
        found[name] = values
    return found


def _pooled(scores: Scores, count: int, least: int) -> dict[str, int]:
    free = sum(max(0, s.numel() - least) for s in scores.values())
    if count > free and least > 0:
        raise PruningError(f"{count} pieces cannot go where every layer keeps {least}: at most {free} can; lower the sparsity or least")
    kept = highest({n: stream_of(s) for n, s in protected(scores, least).items()}, count)
    return {name: int((~k).sum()) for name, k in kept.items()}


def _in_proportion(scores: Scores, sparsity: float, raw: Numbers) -> dict[str, int]:
    """Counts removed when kept pieces are in proportion to raw * pieces, none above all of a layer, exact in total."""
    sizes = {n: s.numel() for n, s in scores.items()}
    left = sum(sizes.values()) - round(sparsity * sum(sizes.values()))
    kept: dict[str, float] = {}
    open_ = set(sizes)
    while open_:
        room = left - sum(kept.values())
        factor = room / sum(raw[n] * sizes[n] for n in open_)
        full = {n for n in open_ if factor * raw[n] >= 1}
        if not full:
            kept |= {n: factor * raw[n] * sizes[n] for n in open_}
            break
        kept |= {n: float(sizes[n]) for n in full}
        open_ -= full
    rounded = _rounded({n: kept.get(n, 0.0) for n in sizes}, left, sizes)
    return {n: sizes[n] - rounded[n] for n in sizes}


def _rounded(shares: Numbers, total: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Whole numbers near `shares` that sum to `total`, none above its size: what is left over goes to the largest fractions."""
    found = {n: min(math.floor(s + 1e-9), sizes[n]) for n, s in shares.items()}
    for n in sorted((n for n in sizes if found[n] < sizes[n]), key=lambda n: found[n] - shares[n])[: total - sum(found.values())]:
        found[n] += 1
    return found


def _within_budget(scores: Scores, share: float, weights: Numbers, least: int, what: str, total: float | None = None) -> dict[str, int]:
    """Counts of the shortest run of the pooled ranking whose weights add up to `share` of `total` (None: of all weights)."""
    names = list(scores)
    ranked = [whole(s).double().cpu().numpy() for s in protected(scores, least).values()]
    values = np.concatenate(ranked)
    owner = np.repeat(np.arange(len(names)), [len(r) for r in ranked])
    order = np.argsort(values, kind="stable")
    spent = np.cumsum(np.array([weights[n] for n in names], dtype=np.float64)[owner[order]])
    whole_of = float(spent[-1]) if total is None else total
    wanted = share * whole_of
    count = int(np.searchsorted(spent, wanted - 1e-9 * whole_of)) + 1 if wanted > 0 else 0
    free = int(np.isfinite(values).sum() + np.isneginf(values).sum()) if least > 0 else len(values)
    if count > free:
        most = spent[free - 1] / whole_of if free and whole_of else 0.0
        raise PruningError(
            f"{share:.1%} of the {what} cannot go where every layer keeps {least}: at most {most:.1%} can; "
            "ask for less, lower least, or prune more layers"
        )
    taken = np.bincount(owner[order[:count]], minlength=len(names))
    return {n: int(c) for n, c in zip(names, taken, strict=True)}
