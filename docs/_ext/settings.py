"""The directive `settings`: every key of a config with its type, its default and what its section's docstring says of it."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

from docstrings import FIELD
from docutils import nodes
from pydantic import BaseModel
from registered import literal
from sphinx.util.docutils import SphinxDirective

from prunescope.config.search import HalvingConfig, ObjectiveConfig, Range, SearchConfig
from prunescope.config.sections import SECTIONS, DataConfig, ExperimentConfig, VariantConfig
from prunescope.data import load

SEARCH = {"search": SearchConfig, "search.objective": ObjectiveConfig, "search.halving": HalvingConfig, "search.space.KEY": Range}
LATER = {"search": ("search.objective", "search.halving")}  # tables of their own


def described(section: Any) -> tuple[str, dict[str, str]]:
    """The prose of a section's docstring, and what its columns say of each key."""
    prose: list[str] = []
    keys: dict[str, str] = {}
    names: list[str] = []
    for line in (inspect.getdoc(section) or "").splitlines():
        if found := FIELD.match(line):
            names = found["names"].split(", ")
            keys |= dict.fromkeys(names, found["text"])
        elif names and line.startswith(" "):
            keys |= {name: f"{keys[name]} {line.strip()}" for name in names}
        else:
            names = []
            prose.append(line)
    return "\n".join(prose).strip(), keys


def type_of(annotation: Any) -> str:
    """An annotation as a user would say it."""
    text = inspect.formatannotation(annotation)
    text = re.sub(r"Annotated\[(\w+), .*?\)\]", r"\1", text)
    text = re.sub(r"\b(typing|prunescope\.\w+(\.\w+)*)\.", "", text)
    text = re.sub(r"Literal\[(.*?)\]", lambda found: found[1].replace(", ", " | "), text)
    text = re.sub(r"^(?:Optional|Union)\[(.*?)\]$", lambda found: found[1].replace(", ", " | "), text)
    text = text.replace(" | NoneType", "").replace(" | None", "")
    return text.replace("'", '"')


def rows(section: type[BaseModel], path: str) -> list[str]:
    """The keys of a section as rows, with those of the tables inside it."""
    keys = described(section)[1] | (described(load)[1] if section is DataConfig else {})
    found: list[str] = []
    for name, field in section.model_fields.items():
        if inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel):
            found += rows(field.annotation, f"{path}{name}.")
            continue
        value = None if field.is_required() else field.get_default(call_default_factory=True)
        default = "required" if field.is_required() else "" if value is None else f"`{json.dumps(value)}`"
        found.append(f"| `{path}{name}` | {literal(type_of(field.annotation))} | {default} | {literal(keys.get(name, ''))} |")
    return found


def table(section: type[BaseModel], path: str, leave_out: tuple[str, ...] = ()) -> list[str]:
    """A table of a section's keys."""
    found = [row for row in rows(section, path) if not any(row.startswith((f"| `{k}.", f"| `{k}`")) for k in leave_out)]
    if all(row.endswith("|  |") for row in found):  # nothing more is said of any of them
        return ["| key | value | default |", "| --- | --- | --- |", *(row.removesuffix("  |") for row in found), ""]
    return ["| key | value | default | |", "| --- | --- | --- | --- |", *found, ""]


class Settings(SphinxDirective):
    """```{settings}```"""

    def run(self) -> list[nodes.Node]:
        """A section for the top of the file, for each table and for variants."""
        lines = ["## The experiment", "", literal(described(ExperimentConfig)[0]), ""]
        lines += table(ExperimentConfig, "", (*SECTIONS, "search", "variant"))
        for name in SECTIONS:
            section = ExperimentConfig.model_fields[name].annotation
            lines += [f"## \\[{name}\\]", "", literal(described(section)[0]), "", *table(section, f"{name}.")]
        for path, section in SEARCH.items():
            lines += [f"## \\[{path}\\]", "", literal(described(section)[0]), "", *table(section, f"{path}.", LATER.get(path, ()))]
        lines += ["## \\[\\[variant\\]\\]", "", literal(described(VariantConfig)[0]), "", *table(VariantConfig, "variant.")]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def setup(app: Any) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.add_directive("settings", Settings)
    return {"parallel_read_safe": True}
