"""What there is, by kind: presets and the entries of every registry, for `prunescope list` and the documentation."""

from __future__ import annotations

from prunescope import data, information, measures, models, pruning, training
from prunescope.experiments import presets
from prunescope.registry import REGISTRIES

FILLED_BY = (data, information, measures, models, pruning, training)  # importing these packages fills the registries


def kinds() -> list[str]:
    """Kinds of things that can be listed."""
    return ["presets", *REGISTRIES]


def rows(kind: str) -> list[tuple[str, str, str]]:
    """(name, what it is, source) of everything of a kind; for presets the third is the question that they ask."""
    if kind == "presets":
        found = [(name, presets.tables(name)[0]) for name in presets.names()]
        return [(name, str(tables["title"]), str(tables["question"])) for name, tables in found]
    return [(entry.name, entry.summary, entry.source) for entry in REGISTRIES[kind]]
