"""The directive `registered`: a table of everything of a kind, read from the registries, with sources and the page that says more."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from prunescope import catalogue
from prunescope.registry import REGISTRIES

DOCS = Path(__file__).parent.parent


def literal(text: str) -> str:
    """A line of prose in Markdown: code in backquotes stays, everything else is literal, for a cell of a table."""
    pieces = re.split(r"(`[^`]+`)", " ".join(text.split()))
    made = [p if p.startswith("`") else re.sub(r"([\\*_<>$\[\]{}#~^])", r"\\\1", p) for p in pieces]
    return "".join(made).replace("|", "\\|")  # a bar ends a cell even inside code


def pages(kind: str) -> dict[str, str]:
    """Name -> the page and heading that say more about it, relative to the reference."""
    if kind == "estimators":
        found = {}
        for page in sorted((DOCS / "science" / "estimators").glob("*.md")):
            for name in re.findall(r"^#{1,2} ([a-z-]+)$", page.read_text(), flags=re.MULTILINE):
                found.setdefault(name, f"../science/estimators/{page.name}#{name}")
        return found
    if kind == "presets":
        return {page.stem: f"../results/{page.name}" for page in sorted((DOCS / "results").glob("*.md"))}
    return {}


def table(kind: str) -> str:
    """Everything of a kind as a Markdown table."""
    links = pages(kind)
    heads = ("name", "what it is", "question" if kind == "presets" else "source")
    lines = [f"| {' | '.join(heads)} |", "| --- | --- | --- |"]
    for name, what, source in catalogue.rows(kind):
        shown = f"[`{name}`]({links[name]})" if name in links else f"`{name}`"
        extra = options(kind, name)
        lines.append(f"| {shown} | {literal(what)}{extra} | {literal(source)} |")
    return "\n".join(lines)


def options(kind: str, name: str) -> str:
    """The options of a registered function with their defaults, as the end of a cell; nothing where it has none."""
    if kind not in ("criteria", "estimators", "models", "datasets", "granularities", "allocations", "schedules"):
        return ""
    found = {k: v for k, v in REGISTRIES[kind].get(name).options.items() if isinstance(v, bool | int | float | str | tuple | list | None)}
    return f" Options: {', '.join(f'`{k} = {v!r}`' for k, v in found.items())}." if found else ""


class Registered(SphinxDirective):
    """```{registered} criteria```"""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The parsed table."""
        return self.parse_text_to_nodes(table(self.arguments[0]))


def setup(app: Any) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.add_directive("registered", Registered)
    return {"parallel_read_safe": True}
