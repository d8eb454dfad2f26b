"""Pages that are lists of other pages on the forge, too: the site gives them their place in the table of contents.

`results/README.md` and `science/estimators/README.md` are read as plain Markdown, and some pages beside them are written by benchmarks, so
that none of them carries directives of Sphinx.
"""

from __future__ import annotations

from typing import Any

LISTS = ("results/README", "science/estimators/README")
CONTENTS = "\n\n```{toctree}\n:hidden:\n:glob:\n\n*\n```\n"


def add_contents(app: Any, name: str, source: list[str]) -> None:
    """Append to a list of pages the hidden table of contents that holds them."""
    if name in LISTS:
        source[0] += CONTENTS


def setup(app: Any) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect("source-read", add_contents)
    return {"parallel_read_safe": True}
