"""Selection by rank: exactly as many pieces as asked for, ties broken by index.

A full sort takes a hundred times as long as finding one boundary. The boundary is bracketed by a sample; one pass over the scores then
decides all but the few inside the bracket, and those are ranked exactly. Nothing but the masks and the bracket's scores is held.
NaN compares with nothing, so it lands among the few inside and is found there, without a look at all scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prunescope.pruning.streams import Stream, Whole, refuse_nan
from prunescope.types import PruningError

SAMPLE = (1 << 16, 1 << 17)  # scores that place the bracket, one of 64: it holds up to 1.2 % of all (0.7 % at 90 %), 12 bytes each
WIDTH = 3.0  # standard deviations of the sample's quantile on each side; one in 400 samples costs a second pass
SMALL = 1 << 16  # scores up to which they are ranked directly
ROUNDS = 8  # brackets tried
MOST = 1 / 64  # share of the scores that may lie inside a bracket; a wider one is narrowed first

Streams = Mapping[str, Stream]


def smallest(scores: Tensor, count: int) -> Tensor:
    """True for the `count` smallest of `scores` (n,); among equal ones the first come first.

    >>> smallest(torch.tensor([3.0, 1.0, 1.0, 1.0]), 2).tolist()
    [False, True, True, False]
    """
    refuse_nan({"": Whole(scores)})
    return ~highest({"": Whole(scores)}, count)[""]


def highest(streams: Streams, removed: int) -> dict[str, Tensor]:
    """What is kept of each stream (n,), boolean, when the `removed` smallest of one ranking over all go; ties go in order of index.

    Scores must be numbers (infinite ones too). PruningError for more than there are.

    >>> highest({"a": Whole(torch.tensor([1.0, 5.0])), "b": Whole(torch.tensor([1.0, 0.0]))}, 2)["b"].tolist()
    [True, False]
    """
    total = sum(s.numel() for s in streams.values())
    if not 0 <= removed <= total:
        raise PruningError(f"{removed} of {total} scores were asked for: expected between 0 and {total}")
    if removed in (0, total):
        return {n: torch.full((s.numel(),), removed == 0, dtype=torch.bool, device=s.device) for n, s in streams.items()}
    low, high = _bracket(streams, removed, total) if total > SMALL else (-math.inf, math.inf)
    return _decided(streams, removed, low, high)


def best_of_each(scores: Tensor, best: int, of: int) -> Tensor:
    """True for the `best` largest of each `of` consecutive `scores` (n,); among equal ones the first go first, as in `smallest`.

    >>> best_of_each(torch.tensor([1.0, 4.0, 2.0, 3.0, 5.0, 5.0, 5.0, 5.0]), 2, 4).tolist()
    [False, True, False, True, False, False, True, True]
    """
    if scores.numel() % of:
        raise PruningError(f"{scores.numel()} pieces do not divide into groups of {of}: choose another pattern or exclude the layer")
    refuse_nan({"": Whole(scores)})
    columns = scores.detach().cpu().view(-1, of).t().contiguous()
    rank = torch.zeros_like(columns, dtype=torch.int16 if of > 127 else torch.int8)  # how many others of its `of` go before it
    for i in range(of):
        for j in range(i):
            first = columns[j] <= columns[i]
            rank[i] += first
            rank[j] += ~first
    return (rank >= of - best).t().reshape(-1).to(scores.device)


def smallest_together(scores: Mapping[str, Tensor], count: int) -> dict[str, int]:
    """How many of each tensor's scores are among the `count` smallest of all; ties go to the earlier tensor."""
    kept = highest({n: Whole(s) for n, s in scores.items()}, count)
    return {name: int((~k).sum()) for name, k in kept.items()}


def _bracket(streams: Streams, removed: int, total: int) -> tuple[float, float]:
    """Two scores between which the boundary lies with near certainty; equal ones where a single value fills the bracket."""
    size = min(max(SAMPLE[0], total // 64), SAMPLE[1])
    sample = torch.cat([s.sample(math.ceil(size * s.numel() / total)).cpu() for s in streams.values()])
    values = (sample if sample.dtype == torch.float32 else sample.double()).numpy()
    if np.isnan(values).any():
        refuse_nan(streams)
    return _quantiles(values, removed / total)


def _quantiles(sample: np.ndarray, share: float) -> tuple[float, float]:
    margin = WIDTH * math.sqrt(share * (1 - share) * sample.size) + 1
    places = [math.floor(share * sample.size - margin), math.ceil(share * sample.size + margin)]
    inside = sorted({min(max(p, 0), sample.size - 1) for p in places})
    values = np.partition(sample, inside)
    low = -math.inf if places[0] < 0 else float(values[inside[0]])
    high = math.inf if places[1] >= sample.size else float(values[inside[-1]])
    return low, high


@dataclass
class _Pass:
    """What one pass over the scores found: masks with everything above `high` kept, how many lie below `low`, and the rest.

    `inside` counts what is neither, NaN included; `places` are (stream, start of the part, places in the part (k,) int32).
    """

    kept: dict[str, Tensor]
    below: int
    inside: int
    values: list[np.ndarray]
    places: list[tuple[str, int, np.ndarray]]


def _decided(streams: Streams, removed: int, low: float, high: float) -> dict[str, Tensor]:
    """The masks, by passes with ever narrower brackets until what is inside can be ranked."""
    total = sum(s.numel() for s in streams.values())
    limit = max(SMALL, int(MOST * total))
    surely = (-math.inf, math.inf)  # the boundary lies between these, whatever the sample said
    for _ in range(ROUNDS):
        found = _pass(streams, low, high, limit=limit)
        if found.below > removed:
            surely = (surely[0], low)
        elif found.below + found.inside < removed:
            surely = (high, surely[1])
        elif low == high:
            return _first_equal(streams, found, removed - found.below, low)
        elif found.inside <= limit:
            return _ranked(found, removed - found.below, streams)
        else:
            surely = (low, high)
        low, high = _narrowed(streams, removed, *surely)
    found = _pass(streams, *surely, limit=total)  # scores in clumps that no sample tells apart: exact still, with more memory
    return _ranked(found, removed - found.below, streams)


def _pass(streams: Streams, low: float, high: float, *, limit: int) -> _Pass:
    found = _Pass({}, 0, 0, [], [])
    for name, stream in streams.items():
        kept = torch.empty(stream.numel(), dtype=torch.bool, device=stream.device)
        start = 0
        for part in stream.parts():
            end = start + part.numel()
            below, inside = _compared(part, low, high, kept[start:end])
            found.below, found.inside = found.below + below, found.inside + len(inside)
            if len(inside) and low < high and found.inside <= limit:
                found.values.append(_taken(part, inside))
                found.places.append((name, start, inside))
            start = end
        found.kept[name] = kept
    return found


def _compared(part: Tensor, low: float, high: float, kept: Tensor) -> tuple[int, np.ndarray]:
    """Writes what lies above `high` into `kept`; how many lie below `low`, and the places (k,) int32 of those that are neither.

    By numpy on the CPU, whose comparisons are seven times as fast as torch's and whose counts are five times.
    """
    if part.device.type != "cpu" or part.dtype == torch.bfloat16:
        torch.gt(part, high, out=kept)
        less = part < low
        return int(less.sum()), _where(less == kept).to("cpu", torch.int32).numpy()
    above = kept.numpy()
    np.greater(values := part.numpy(), high, out=above)
    under = np.less(values, low)
    below = int(np.count_nonzero(under))
    return below, np.flatnonzero(np.equal(under, above, out=under)).astype(np.int32)


def every(kept: Tensor) -> bool:
    """Whether all of a boolean tensor is true; numpy stops at the first that is not, which torch does not."""
    return bool(kept.numpy().all()) if kept.device.type == "cpu" else bool(kept.all())


def some(kept: Tensor) -> bool:
    """Whether any of a boolean tensor is true."""
    return bool(kept.numpy().any()) if kept.device.type == "cpu" else bool(kept.any())


def _where(true: Tensor) -> Tensor:
    """The places (k,) int64 at which a boolean tensor is true."""
    return torch.from_numpy(np.flatnonzero(true.numpy())) if true.device.type == "cpu" else torch.nonzero(true)[:, 0]


def _taken(part: Tensor, places: np.ndarray) -> np.ndarray:
    """The scores (k,) of a part at `places`."""
    if part.device.type == "cpu" and part.dtype != torch.bfloat16:
        return np.asarray(part.numpy()[places])
    return part[torch.from_numpy(places).to(part.device, torch.int64)].double().cpu().numpy()


def _ranked(found: _Pass, removed: int, streams: Streams) -> dict[str, Tensor]:
    """Masks with the bracket's scores ranked exactly: all but the `removed` smallest are kept."""
    values = np.concatenate(found.values)
    found.values.clear()
    if np.isnan(values).any():
        refuse_nan(streams)
    left, end = ~_smallest(values, removed), 0
    for name, start, places in found.places:
        begin, end = end, end + places.size
        kept, stays = found.kept[name][start:], places[left[begin:end]]
        if kept.device.type == "cpu":
            kept.numpy()[stays] = True
        else:
            kept[torch.from_numpy(stays).to(kept.device, torch.int64)] = True
    return found.kept


def _smallest(values: np.ndarray, count: int) -> np.ndarray:
    """True for the `count` smallest, ties by index."""
    if count == 0:
        return np.zeros(values.size, dtype=bool)
    boundary = np.partition(values, count - 1)[count - 1]
    chosen: np.ndarray = values < boundary
    ties = np.flatnonzero(values == boundary)
    chosen[ties[: count - int(chosen.sum())]] = True
    return chosen


def _first_equal(streams: Streams, found: _Pass, removed: int, value: float) -> dict[str, Tensor]:
    """Masks where the boundary is one value that many scores have: the first `removed` of them go."""
    refuse_nan(streams)
    for name, stream in streams.items():
        start = 0
        for part in stream.parts():
            equal = _where(part == value)
            taken = min(removed, equal.numel())
            removed -= taken
            found.kept[name][start + equal[taken:]] = True
            start += part.numel()
    return found.kept


def _narrowed(streams: Streams, removed: int, low: float, high: float) -> tuple[float, float]:
    """A bracket inside [low, high], from a sample of the scores that lie there."""
    picked, below, inside = [], 0, 0
    for stream in streams.values():
        for part in stream.parts():
            own = part[(part >= low) & (part <= high)]
            below, inside = below + int((part < low).sum()), inside + own.numel()
            picked.append(own[:: max(1, own.numel() // 512)].double().cpu())
    if not inside:  # what a pass counted there compares with nothing
        refuse_nan(streams)
    first, last = _quantiles(torch.cat(picked).numpy(), (removed - below) / inside)
    return max(first, low), min(last, high)
