"""Docstrings as they are written here, for Sphinx: names in single backquotes, and parameters as `name   what it is` in columns."""

from __future__ import annotations

import re
from typing import Any

FIELD = re.compile(r"^(?P<names>\*{0,2}\w+(?:, \*{0,2}\w+)*) {2,}(?P<text>\S.*)$")


def plain(text: str) -> str:
    """A line of prose in reStructuredText: code in backquotes, everything else literal."""
    pieces = re.split(r"(`[^`]+`)", text)
    return "".join(f"`{piece}`" if piece.startswith("`") else escaped(piece) for piece in pieces if piece)


def escaped(text: str) -> str:
    """Characters that would be markup, made literal."""
    return re.sub(r"[*|\\`]|_(?=\W|$)", lambda found: "\\" + found[0], text)


def paragraphs(lines: list[str]) -> list[list[str]]:
    """Runs of lines without an empty one between them."""
    found: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return [run for run in found if run]


def converted(lines: list[str]) -> list[str]:
    """The same docstring in reStructuredText: doctests as they are, columns as lists of definitions, indented lines as literal blocks."""
    result: list[str] = []
    for run in paragraphs(lines):
        if run[0].lstrip().startswith(">>>"):
            result += run
        elif FIELD.match(run[0]):
            result += fields(run)
        elif run[0].startswith(" "):
            result += ["::", "", *(f"    {line}" for line in run)]
        else:
            result += prose(run)
        result.append("")
    return result


def fields(run: list[str]) -> list[str]:
    """`name   text` lines with their continuations as a list of definitions; a line at the margin ends it."""
    result: list[str] = []
    for number, line in enumerate(run):
        if found := FIELD.match(line):
            names = ", ".join(f"``{name}``" for name in found["names"].split(", "))
            result += [names, f"    {plain(found['text'])}"]
        elif line.startswith(" "):
            result.append(f"    {plain(line.strip())}")
        else:
            return [*result, "", *prose(run[number:])]
    return result


def prose(run: list[str]) -> list[str]:
    """A paragraph, or what of it comes before a table of parameters that follows without an empty line."""
    for number, line in enumerate(run):
        if number and FIELD.match(line) and not line.startswith(" "):
            return [*map(plain, run[:number]), "", *fields(run[number:])]
    return [plain(line.strip()) for line in run]


def convert(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Convert a docstring in place."""
    lines[:] = converted(lines)


def setup(app: Any) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect("autodoc-process-docstring", convert)
    return {"parallel_read_safe": True}
