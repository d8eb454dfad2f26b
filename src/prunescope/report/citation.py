"""What to cite: BibTeX of exactly the criteria, estimators and other parts that a run used, and of prunescope itself.

references.bib is the one home of the entries. Each says in `keywords` what it is the source of ("criterion snip; allocation lamp").
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunescope.results import load

if TYPE_CHECKING:
    import pandas as pd

    from prunescope.results.store import Run

Part = tuple[str, str]  # ("criterion", "snip")
ROUNDS = {"iterative": "geometric", "rewind": "geometric", "during": "cubic"}  # each with the schedule that it takes by default
INFORMATION = ("mi_input", "mi_label", "entropy")


@dataclass(frozen=True)
class Reference:
    """One entry: its key, its kind (article, ...), its fields in order and the parts that it is the source of."""

    key: str
    kind: str
    fields: Mapping[str, str]
    parts: frozenset[Part]

    @property
    def bibtex(self) -> str:
        """The entry as BibTeX."""
        lines = [f"  {name} = {{{value}}}," for name, value in self.fields.items()]
        return "\n".join([f"@{self.kind}{{{self.key},", *lines, "}"])


@functools.cache
def references() -> tuple[Reference, ...]:
    """All entries of references.bib, in its order."""
    text = resources.files("prunescope.report").joinpath("references.bib").read_text(encoding="utf-8")
    return tuple(_reference(*found) for found in re.findall(r"^@(\w+)\{([\w-]+),\n(.*?)^\}", text, flags=re.MULTILINE | re.DOTALL))


def _reference(kind: str, key: str, body: str) -> Reference:
    fields = dict(re.findall(r"^  (\w+) = \{(.*)\},$", body, flags=re.MULTILINE))
    named = (word.strip().partition(" ") for word in fields.pop("keywords", "").split(";"))
    return Reference(key, kind, fields, frozenset((what, name) for what, _, name in named if name))


def sources(part: Part) -> list[Reference]:
    """The entries of one part, such as ("criterion", "snip"); none where no paper is named for it.

    >>> [r.key for r in sources(("estimator", "kl-entropy"))], sources(("criterion", "random"))
    (['kraskov2004', 'kozachenko1987'], [])
    """
    what, name = part
    if what == "granularity" and re.fullmatch(r"\d+:\d+", name):
        name = "n:m"
    return [r for r in references() if (what, name) in r.parts]


def parts_used(run: Run) -> list[Part]:
    """What a run used that may have a source: criteria, estimators, allocations, granularities, schedules and data."""
    records, config = run.records, _table(run.experiment.get("config"))
    found: list[Part] = []
    for column in ("criterion", "allocation", "granularity"):
        found += [(column, name) for name in _names(records[column])]
    found += [("estimator", name) for name in _names(records.loc[records["metric"].isin(INFORMATION), "estimator"])]
    listed, recorded = config.get("variant"), set(records["variant"].unique())
    for variant in [v for v in listed if isinstance(v, dict)] if isinstance(listed, list) else [{}]:
        if "name" not in variant or str(variant["name"]) in recorded:
            found += _over_time({**_table(config.get("prune")), **_table(variant.get("prune"))})
    found.append(("data", str(_table(config.get("data")).get("name", ""))))
    return list(dict.fromkeys(found))


def _over_time(prune: dict[str, Any]) -> list[Part]:
    when = prune.get("when")
    found = [("when", "rewind")] if when == "rewind" else []
    if when in ROUNDS:
        found.append(("schedule", str(prune.get("schedule") or ROUNDS[str(when)])))
    if when == "dynamic":
        found.append(("growth", str(prune.get("grow", "rigl"))))
    return found


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _names(column: pd.Series) -> list[str]:
    return [str(name) for name in column.unique() if str(name)]


def cited(run: Run) -> tuple[list[tuple[Reference, list[Part]]], list[Part]]:
    """(entries with the parts of the run that they are the source of, parts without a paper: controls, one's own functions)."""
    found: dict[str, tuple[Reference, list[Part]]] = {}
    without = []
    for part in parts_used(run):
        mine = sources(part)
        for reference in mine:
            found.setdefault(reference.key, (reference, []))[1].append(part)
        if not mine and part[1]:
            without.append(part)
    return list(found.values()), without


def cite(run: Run | str | Path | None = None) -> str:
    """BibTeX text: prunescope's own entry, then one entry a paper that `run` (or the run in that folder) used, with what for.

    >>> print(cite().splitlines()[0])
    @software{prunescope,
    """
    run = load(run) if isinstance(run, str | Path) else run
    version = "" if run is None else re.sub(r"[^\w.+-]", "", str(_table(run.experiment.get("versions")).get("prunescope", "")))
    own = [own_entry(version)]
    if run is None:
        return own[0] + "\n"
    entries, without = cited(run)
    told = [f"% {', '.join(' '.join(p) for p in parts)}\n{reference.bibtex}" for reference, parts in entries]
    if without:
        names = ", ".join(f"{what} {name}" for what, name in without)
        told.append("% no paper is named for: " + re.sub(r"[\r\n%@]+", " ", names))
    return "\n\n".join([*own, *told]) + "\n"


def own_entry(version: str = "") -> str:
    """The entry for prunescope itself, with the version that made the run where it is known."""
    from prunescope import __version__

    title = "prunescope: prune any {PyTorch} network and see what it does to accuracy, size, speed and the flow of information"
    fields = {"author": "{The prunescope developers}", "title": title, "version": version or __version__, "year": "2026"}
    return Reference("prunescope", "software", fields, frozenset()).bibtex


def readable(reference: Reference) -> str:
    """The entry as one line of plain text: authors, title, where, year.

    >>> readable(next(r for r in references() if r.key == "hotelling1936"))
    'Hotelling (1936). Relations Between Two Sets of Variates. Biometrika 28.'
    """
    fields = {name: plain(value) for name, value in reference.fields.items()}
    surnames = [name.split(",")[0] for name in fields["author"].split(" and ")]
    authors = " & ".join(surnames) if len(surnames) < 3 else f"{surnames[0]} et al."
    where = next((fields[name] for name in ("journal", "booktitle", "publisher", "howpublished") if name in fields), "")
    where = f"{where} {fields['volume']}" if "volume" in fields else where
    if "eprint" in fields:
        where = f"{where}, arXiv:{fields['eprint']}".removeprefix(", ")
    return f"{authors} ({fields['year']}). {fields['title'].rstrip('.')}{'' if fields['title'].endswith('?') else '.'} {where}."


ACCENTS = {r"\'e": "é", r"\'a": "á", r'\"o': "ö", r'\"a': "ä", r"\'E": "É", r"\c{c}": "ç", r"\&": "&", r"$\alpha$": "α"}


def plain(text: str) -> str:
    """BibTeX's accents and braces as plain text.

    >>> plain(r"{R\\'enyi's} st\\"ogbauer")
    "Rényi's stögbauer"
    """
    for written, meant in ACCENTS.items():
        text = text.replace(written, meant)
    return text.replace("{", "").replace("}", "")
