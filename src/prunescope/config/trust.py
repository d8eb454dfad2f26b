"""Trust: which functions of somebody's own ("module:function") the settings in a file may have imported and called.

A file cannot allow anything itself: only the command line and Python can. What is handed over in Python is the user's own code anyway.
The check is made on the settings of every trial before any of its names is resolved. It looks at every text in them, not only where we
know that a name stands: an option may hand a name on to another function.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from prunescope.discretion import texts
from prunescope.registry import Registry, allocations, criteria, datasets, granularities, models, optimizers, schedules
from prunescope.types import ConfigError

IMPORTABLE = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")  # anywhere in a text: whatever takes texts apart finds no name in it either
ENTRY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(:[^\W\d]\w*(\.[^\W\d]\w*)*)?")
PLACES: Mapping[str, Registry] = {
    "data.name": datasets,
    "model.name": models,
    "training.optimizer": optimizers,
    "finetune.optimizer": optimizers,
    "prune.criterion": criteria,
    "prune.granularity": granularities,
    "prune.allocation": allocations,
    "prune.schedule": schedules,
}
NEVER_NAMES = frozenset(["data.path", "prune.layers", "prune.exclude", "measure.plane.layers", "quantize.exclude"])


def own_names(settings: Mapping[str, Any]) -> dict[str, str]:
    """{dotted place: text} of all in `settings` that would be, or may be, imported.

    >>> own_names({"model": {"name": "mlp"}, "prune": {"criterion": "mine:score", "layers": ["c:d"], "options": {"by": ["a:b"]}}})
    {'prune.criterion': 'mine:score', 'prune.options.by': 'a:b'}
    """
    return {place: text for place, text in texts(settings) if _own(place, text)}


def names_in(values: Any) -> list[str]:
    """Every "module:function" in nested tables and lists: what somebody who hands them over has named, and so allowed.

    >>> names_in({"model.name": "mine:net", "prune": {"options": {"by": ["a:b", "digits", "2:4"]}}})
    ['mine:net', 'a:b']
    """
    return [text for _, text in texts(values) if ":" in text and ENTRY.fullmatch(text)]


def allowing(entries: Iterable[str]) -> list[str]:
    """`entries` of an allow-list ("module" or "module:function"), checked. ConfigError for one that is neither."""
    found = [entries] if isinstance(entries, str) else list(entries)
    for entry in found:
        if not isinstance(entry, str) or not ENTRY.fullmatch(entry):
            raise ConfigError(f"allow {entry!r}: expected module:function, or module for all that is in it, e.g. mycode:network")
    return found


def check_allowed(settings: Mapping[str, Any], allowed: Collection[str] | None, where: str) -> None:
    """Refuse settings that name functions beyond `allowed` (None: all may be called). ConfigError, before anything is imported."""
    if allowed is None:
        return
    refused = {place: text for place, text in own_names(settings).items() if not is_allowed(text, allowed)}
    if not refused:
        return
    place, text = next(iter(refused.items()))
    names = list(dict.fromkeys(refused.values()))
    words, listed = " ".join(f"--allow {n}" for n in names), ", ".join(f'"{n}"' for n in names)
    raise ConfigError(
        f"{where}: {place} = {text!r} names code of its own, and a file may run none that was not allowed: "
        f"if you trust it, add {words} (in Python: allow=[{listed}])"
    )


def is_allowed(name: str, allowed: Collection[str]) -> bool:
    """Whether `name` stands in the list, or its module, or a package around that.

    >>> [is_allowed("mine.nets:wide", [entry]) for entry in ("mine.nets:wide", "mine.nets", "mine", "mine.nets:deep", "min")]
    [True, True, True, False, False]
    """
    module = name.partition(":")[0]
    return any(entry == name or (":" not in entry and (module == entry or module.startswith(f"{entry}."))) for entry in allowed)


def _own(place: str, text: str) -> bool:
    if place in NEVER_NAMES or not IMPORTABLE.search(text):
        return False
    return place not in PLACES or PLACES[place].imports(text)
