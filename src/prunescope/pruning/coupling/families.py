"""Families: the channels of a network that go together, and where each of them stands in the parameters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from prunescope.pruning.coupling.channels import FIRST, Ledger
from prunescope.pruning.coupling.trace import Trace


@dataclass(frozen=True)
class Part:
    """One tensor's share of a family: along dimension `dim` of `tensor`, piece i holds the indices `index[i]` of (pieces, width).

    roles   "producer" (the weight that computes the channel), "consumer" (one that takes it as an input); neither for biases and norms
    """

    tensor: str
    dim: int
    index: Tensor
    roles: frozenset[str]
    parameter: bool


@dataclass(frozen=True)
class Family:
    """Coupled sets of channels of one kind: every piece is one set, with as many places in the same tensors as any other piece.

    frozen   why none of them can be removed; empty where they can
    mixed    where they meet other channels without a weight in between (statistics of a norm, products): zeros there stay felt
    heads    whether a piece is a whole attention head, with the keys and values that its queries share
    sets     the number of each piece's set, for `Coupling.sets`
    """

    name: str
    parts: tuple[Part, ...]
    frozen: tuple[str, ...]
    mixed: tuple[str, ...]
    heads: bool
    sets: np.ndarray

    @property
    def pieces(self) -> int:
        """How many there are."""
        return len(self.sets)

    def tensors(self, role: str) -> list[str]:
        """The names of the tensors that have a role, each once."""
        return list(dict.fromkeys(p.tensor for p in self.parts if role in p.roles))


@dataclass(frozen=True)
class Coupling:
    """All channels of a network.

    families   those that can be removed; frozen: those that cannot, with reasons
    trace      the graph; values: what stands where in each of its tensors (`Value` by node), by channel numbers
    sets       channel number -> the number of its coupled set
    ledger     what the walk wrote down: where each channel number stands, and where channels meet and end
    """

    families: tuple[Family, ...]
    frozen: tuple[Family, ...]
    trace: Trace
    values: Mapping[Any, Any]
    sets: np.ndarray
    ledger: Ledger = field(default_factory=Ledger)

    def report(self) -> list[tuple[str, int, str]]:
        """(name, pieces, "" or why they stay) of all families, those that can go first."""
        return [(f.name, f.pieces, "; ".join(f.frozen)) for f in (*self.families, *self.frozen)]


def families(ledger: Ledger, trace: Trace) -> tuple[list[Family], list[Family], np.ndarray]:
    """The families that can go, those that cannot, and the set of every channel number."""
    sets = _joined(ledger, _components(ledger))
    frozen, mixed = _reasons(ledger.frozen, sets), _reasons(ledger.mixed, sets)
    marks = {kind: np.concatenate(found) for kind, found in ledger.marks.items()}
    heads = set(sets[marks.get("head", np.empty(0, int))].tolist())
    starts = np.array([s[0] for s in ledger.spans])
    roles = {kind: set(np.searchsorted(starts, marks.get(kind, np.empty(0, int)), side="right") - 1) for kind in ("producer", "consumer")}
    members: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for number, (start, size, _, _) in enumerate(ledger.spans):
        for found, count in zip(*np.unique(sets[start : start + size], return_counts=True), strict=True):
            members[int(found)].append((number, int(count)))
    kinds: dict[Any, list[int]] = defaultdict(list)
    for found in _in_order(ledger, sets):
        kinds[tuple(members[found]), frozen.get(found, ()), mixed.get(found, ()), found in heads].append(found)
    made: list[Family] = []
    row = np.full(int(sets.max()) + 1, -1)  # the piece that a set is in the family at hand
    sets_of = [sets[start : start + size] for start, size, _, _ in ledger.spans]
    for (spans, why, met, head), numbers in sorted(kinds.items(), key=lambda item: bool(item[0][1])):  # those that can go are named first
        row[numbers] = np.arange(len(numbers))
        parts = [_part(ledger, row[sets_of[n]], n, len(numbers), frozenset(k for k, s in roles.items() if n in s), trace) for n, _ in spans]
        row[numbers] = -1
        if any("producer" in p.roles for p in parts):  # the others are inputs and positions, which no weight makes
            made.append(_family(made, parts, why, met, head, np.array(numbers)))
    return [f for f in made if not f.frozen], [f for f in made if f.frozen], sets


def _components(ledger: Ledger) -> np.ndarray:
    if not ledger.pairs:
        return np.arange(ledger.size)
    left, right = np.concatenate(ledger.pairs, axis=1)
    graph = coo_array((np.ones(len(left), bool), (left, right)), shape=(ledger.size, ledger.size))
    found: np.ndarray = connected_components(graph, directed=False)[1]
    return found


def _joined(ledger: Ledger, sets: np.ndarray) -> np.ndarray:
    """The sets after parameters were joined to the channels that share them, where these are one set; the others are frozen."""
    before = len(ledger.pairs)
    for ids, others, where in ledger.shared:
        real = (ids >= FIRST) & (others >= FIRST)
        pairs = np.unique(np.stack([ids[real], sets[others[real]]]), axis=1)
        rows, first, counts = np.unique(pairs[0], return_index=True, return_counts=True)
        one = np.isin(rows, ids[~real], invert=True) & (counts == 1)
        representatives = np.unique(sets, return_index=True)[1]
        ledger.pairs.append(np.stack([rows[one], representatives[np.searchsorted(np.unique(sets), pairs[1][first[one]])]]))
        ledger.where = where
        ledger.freeze(torch.from_numpy(rows[~one]), "is shared by channels along another dimension")
    ledger.where = ""
    return _components(ledger) if len(ledger.pairs) > before else sets


def _reasons(found: Sequence[tuple[np.ndarray, str]], sets: np.ndarray) -> dict[int, tuple[str, ...]]:
    reasons: dict[int, dict[str, None]] = defaultdict(dict)
    for numbers, reason in found:
        for one in np.unique(sets[numbers]).tolist():
            reasons[one][reason] = None
    return {one: tuple(texts) for one, texts in reasons.items()}


def _in_order(ledger: Ledger, sets: np.ndarray) -> list[int]:
    """The numbers of the sets in the order of their first channel."""
    found, first = np.unique(sets[FIRST:], return_index=True)
    return [int(n) for n in found[np.argsort(first, kind="stable")]]


def _part(ledger: Ledger, rows: np.ndarray, number: int, pieces: int, roles: frozenset[str], trace: Trace) -> Part:
    _, _, name, dim = ledger.spans[number]
    places = np.flatnonzero(rows >= 0)
    index = places[np.argsort(rows[places], kind="stable")].reshape(pieces, -1)
    return Part(name, dim, torch.from_numpy(index), roles, name in trace.parameters)


def _family(
    made: Sequence[Family], parts: list[Part], frozen: tuple[str, ...], mixed: tuple[str, ...], heads: bool, numbers: np.ndarray
) -> Family:
    first = next((p for p in parts if "producer" in p.roles and p.parameter), parts[0]).tensor
    same = sum(f.name.partition("#")[0] == first for f in made)
    return Family(f"{first}#{same + 1}" if same else first, tuple(parts), frozen, mixed, heads, numbers)
