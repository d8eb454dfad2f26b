"""Solvers: how the kept weights make up for the removed ones, and which go when each removal changes what the next one costs.

A solver is the trait of a criterion. `prune` gives it the weight, the `Choice` that selection made, the criterion's signals and those of
its options that the solver names; it returns the mask and the new weight, which are written once everything has been computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from prunescope.pruning.groups import Group
from prunescope.pruning.masks import Masks
from prunescope.pruning.select import smallest
from prunescope.pruning.selection import shares
from prunescope.pruning.signals.gradients import blocks_of
from prunescope.pruning.signals.inputs import Moments
from prunescope.pruning.targets import Target
from prunescope.registry import Entry


@dataclass(frozen=True)
class Choice:
    """What selection decided for one weight.

    kept      mask of the weight's shape, True = kept
    earlier   mask of what earlier pruning left, or None
    free      whether the solver may choose other weights, as many of them
    places    for patterns, the index of the piece that covers each entry of the weight; pieces k m to k m + m - 1 make a pattern
    pattern   (n, m): n of every m pieces are kept
    """

    kept: Tensor
    earlier: Tensor | None = None
    free: bool = False
    places: Tensor | None = None
    pattern: tuple[int, int] | None = None


def adapted(
    entry: Entry,
    options: Mapping[str, Any],
    groups: Sequence[Group],
    targets: Mapping[str, Target],
    available: Mapping[str, Mapping[str, Any]],
    found: Mapping[str, Tensor],
    earlier: Masks | None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(masks, new weights) by parameter name after the criterion's solver; `found` and no weights for a criterion that has none.

    Weights that lose nothing, and all of them with the option update=False, stay bitwise what they are.
    """
    masks = dict(found)
    weights: dict[str, Tensor] = {}
    solver = entry.traits.get("solver")
    settings = {**entry.options, **options}
    if solver is None or not settings.get("update", True):
        return masks, weights
    known = {k: v for k, v in settings.items() if k in solver.__kwdefaults__}
    for name in dict.fromkeys(s.parameter for g in groups for s in g.scored):
        before = earlier[name] if earlier is not None and name in earlier else None
        if bool(found[name].all()):
            continue
        weight = targets[name].parameter.detach()
        choice = _choice([g for g in groups if any(s.parameter == name for s in g.scored)], name, found[name], before)
        mask, new = solver(weight, choice, **{n: available[n][name] for n in entry.needs}, **known)
        masks[name], weights[name] = mask, new.to(weight).masked_fill(~mask, 0.0)
    return masks, weights


def _choice(groups: Sequence[Group], name: str, kept: Tensor, earlier: Tensor | None) -> Choice:
    fixed = Choice(kept, earlier)
    if len(groups) != 1 or len(groups[0].scored) != 1:
        return fixed
    folded = groups[0].scored[0].layout.fold(torch.arange(kept.numel()).view(kept.shape))
    if folded.shape != (kept.numel(), 1):
        return fixed  # pieces of several weights: what goes together was decided by selection
    places = torch.empty(kept.numel(), dtype=torch.long)
    places[folded[:, 0]] = torch.arange(kept.numel())
    return replace(fixed, free=True, pattern=groups[0].pattern, places=places.view(kept.shape).to(kept.device))


def damped(fisher: Tensor, alive: Tensor, damping: float) -> Tensor:
    """F (blocks, b, b) restricted to `alive` (blocks, b), with `damping` times its mean diagonal added; 1 on the rest of the diagonal."""
    inner = fisher * alive[..., None, :] * alive[..., None]
    level = inner.diagonal(dim1=-2, dim2=-1).sum() / alive.sum().clamp_min(1)
    extra = torch.where(alive, damping * level if level > 0 else 1.0, 1.0)
    return inner + torch.diag_embed(extra.to(inner.dtype))


def surgeon(weight: Tensor, choice: Choice, block_fisher: Tensor, *, damping: float = 0.01) -> tuple[Tensor, Tensor]:
    """The mask as it was chosen, and the weights that minimise dw^T F dw / 2 with the removed ones at 0, in the weight's unit.

    Block by block and for all removed weights of a block at once: dw_K = F_KK^-1 F_KQ w_Q.
    Kurtic et al. 2022, arXiv:2203.07259, group update.
    """
    block = block_fisher.shape[-1]
    flat = weight.double().flatten()
    values, kept = blocks_of(flat, block), blocks_of(choice.kept.flatten(), block)
    everything = damped(block_fisher, values != 0, damping)
    gone = torch.where(kept, 0.0, values)
    pull = (everything @ gone[..., None])[..., 0] * kept
    among = everything * kept[..., None, :] * kept[..., None] + torch.diag_embed((~kept).double())
    moved = values - gone + torch.linalg.solve(among, pull)
    return choice.kept, torch.where(kept, moved, 0.0).flatten()[: flat.numel()].view_as(weight)


def damped_inputs(sums: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """H = X X^T (groups, d, d) with `damping` times its mean diagonal added, and which features (groups, d) were always 0 (1 there)."""
    diagonal = sums.diagonal(dim1=-2, dim2=-1)
    dead = diagonal == 0
    level = damping * diagonal.mean(-1, keepdim=True)
    return sums + torch.diag_embed(torch.where(dead, 1.0, level.expand_as(diagonal))), dead


def layerwise_surgeon(
    weight: Tensor, choice: Choice, input_moments: Moments, *, damping: float = 0.01, columns: int = 128
) -> tuple[Tensor, Tensor]:
    """(mask, weights) that keep the layer's outputs, column by column from left to right; the weight's shape.

    Each removed weight's error, divided by its pivot of the Cholesky factor of H^-1, is taken up by the columns to its right.
    Which weights go is decided block by block with the weights already adapted where the choice is free, else taken as it is.
    Frantar & Alistarh 2023, arXiv:2301.00774, algorithm 1.
    """
    hessian, dead = damped_inputs(input_moments.sums, damping)
    factors = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    values = input_moments.matrices(weight.double())
    kept = input_moments.matrices(choice.kept)
    before = torch.ones_like(kept) if choice.earlier is None else input_moments.matrices(choice.earlier)
    places = None if choice.places is None else input_moments.matrices(choice.places)
    results = []
    for g in range(len(values)):
        plan = _plan(choice, kept[g], before[g], None if places is None else places[g])
        results.append(_swept(torch.where(dead[g], 0.0, values[g]), factors[g], kept[g], before[g], plan, columns))
    mask = input_moments.weight(torch.stack([m for m, _ in results]))
    new = input_moments.weight(torch.stack([w for _, w in results]))
    unseen = input_moments.weight(dead[:, None]).expand(weight.shape)  # inputs that never came: nothing to make up for or with
    return mask, torch.where(unseen & mask, weight.double(), new)


@dataclass(frozen=True)
class _Plan:
    """How a sweep chooses: not at all (`free` False), by the layer's count, or n of every m columns in `order`."""

    free: bool
    pattern: tuple[int, int] | None
    order: Tensor


def _plan(choice: Choice, kept: Tensor, earlier: Tensor, places: Tensor | None) -> _Plan:
    natural = torch.arange(kept.shape[1], device=kept.device)
    if not choice.free or choice.pattern is None or places is None:
        return _Plan(choice.free and choice.pattern is None, None, natural)
    size = choice.pattern[1]
    order = places[0].argsort()
    patterns = (places[:, order] // size).unflatten(1, (-1, size)) if kept.shape[1] % size == 0 else None
    if patterns is None or bool((patterns != patterns[..., :1]).any()) or not bool(earlier.all()):
        return _Plan(False, None, natural)  # patterns that do not lie along the columns, or are partly spent: selection's choice stands
    return _Plan(True, choice.pattern, order)


def _swept(
    values: Tensor, factor: Tensor, kept: Tensor, earlier: Tensor, plan: _Plan, columns: int
) -> tuple[Tensor, Tensor]:
    """Algorithm 1 for one matrix (rows, d): its mask and its new values."""
    if plan.pattern is not None:
        back = plan.order.argsort()
        hessian_inverse = factor.mT @ factor
        turned = torch.linalg.cholesky(hessian_inverse[plan.order][:, plan.order], upper=True)
        mask, new = _sweep(values[:, plan.order], turned, kept[:, plan.order], earlier[:, plan.order], plan, columns)
        return mask[:, back], new[:, back]
    return _sweep(values, factor, kept, earlier, plan, columns)


def _sweep(
    values: Tensor, factor: Tensor, kept: Tensor, earlier: Tensor, plan: _Plan, columns: int
) -> tuple[Tensor, Tensor]:
    values, kept, pivots = values.clone(), kept.clone(), factor.diagonal()
    step = plan.pattern[1] if plan.pattern is not None else 0
    width = columns if not step else max(step, columns // step * step)
    quotas = _quotas(kept, earlier, width)
    for number, start in enumerate(range(0, values.shape[1], width)):
        stop = min(start + width, values.shape[1])
        if plan.free and plan.pattern is None:
            scores = (values[:, start:stop] / pivots[start:stop]).square().masked_fill(~earlier[:, start:stop], -torch.inf)
            kept[:, start:stop] = ~smallest(scores.flatten(), quotas[number]).view_as(scores)
        errors = torch.zeros_like(values[:, start:stop])
        for j in range(start, stop):
            if step and (j - start) % step == 0:
                kept[:, j : j + step] = _strongest(values[:, j : j + step] / pivots[j : j + step], plan.pattern)
            error = torch.where(kept[:, j], 0.0, values[:, j]) / pivots[j]
            values[:, j:stop] -= error[:, None] * factor[j, j:stop]
            values[:, j].masked_fill_(~kept[:, j], 0.0)
            errors[:, j - start] = error
        values[:, stop:] -= errors @ factor[start:stop, stop:]
    return kept, torch.where(kept, values, 0.0)


def _quotas(kept: Tensor, earlier: Tensor, width: int) -> list[int]:
    """How many weights go in each block of columns: those gone before and an even share of the rest, which sum to the chosen number."""
    gone = [int(b.logical_not().sum()) for b in earlier.split(width, 1)]
    alive = [b.numel() - g for b, g in zip(earlier.split(width, 1), gone, strict=True)]
    return [g + more for g, more in zip(gone, shares(int((~kept).sum()) - sum(gone), alive), strict=True)]


def _strongest(values: Tensor, pattern: tuple[int, int] | None) -> Tensor:
    """True for the n largest of each row of m; among equal ones the later are kept."""
    assert pattern is not None
    order = values.square().argsort(dim=1, stable=True)
    mask = torch.zeros_like(values, dtype=torch.bool)
    return mask.scatter(1, order[:, values.shape[1] - pattern[0] :], True)
