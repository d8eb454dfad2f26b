"""The directive `commands`: the command line's reference, read from the program itself."""

from __future__ import annotations

from typing import Any

import typer
from docutils import nodes
from registered import literal
from sphinx.util.docutils import SphinxDirective

from prunescope.cli import app as program


def value(parameter: Any) -> str:
    """What a parameter takes, as `--help` shows it."""
    if getattr(parameter, "is_flag", False):
        return ""
    if parameter.metavar:
        return parameter.metavar
    annotation = parameter.type_descriptor.annotation
    choices = getattr(annotation, "__args__", ())
    if choices and all(isinstance(choice, str) for choice in choices):
        return " or ".join(choices)
    names = {"str": "TEXT", "int": "NUMBER", "float": "NUMBER", "Path": "PATH"}
    return names.get(getattr(annotation, "__name__", ""), "TEXT")


def row(parameter: Any) -> str:
    """One argument or option as a row of a table."""
    if not any(name.startswith("-") for name in parameter.opts):
        names = f"`{parameter.metavar or parameter.name.upper()}`"
    else:
        both = [*sorted(parameter.opts, key=len, reverse=True), *parameter.secondary_opts]
        names = ", ".join(f"`{name}`" for name in both) + (f" {literal(value(parameter))}" if value(parameter) else "")
    notes = []
    if parameter.required:
        notes.append("Required.")
    if parameter.multiple:
        notes.append("May be given several times.")
    if parameter.default not in (None, False, "", ()) and not callable(parameter.default):
        notes.append(f"Default: `{parameter.default}`.")
    return f"| {names} | {literal(parameter.help or '')} {' '.join(notes)} |"


def section(path: str, command: Any) -> list[str]:
    """A command with its usage and parameters, then its subcommands."""
    parameters = [p for p in command.params if not p.hidden and p.name not in ("install_completion", "show_completion")]
    arguments = [p for p in parameters if not any(name.startswith("-") for name in p.opts)]
    usage = " ".join([path, *(p.metavar or p.name.upper() for p in arguments), *["[OPTIONS]"][: len(parameters) - len(arguments)]])
    lines = [f"## {path}", "", literal(command.help or ""), "", "```text", usage, "```", ""]
    if parameters:
        lines += ["| | |", "| --- | --- |", *(row(p) for p in parameters), ""]
    for name, below in getattr(command, "commands", {}).items():
        lines += section(f"{path} {name}", below)
    return lines


class Commands(SphinxDirective):
    """```{commands}```"""

    def run(self) -> list[nodes.Node]:
        """A section for each command."""
        lines: list[str] = []
        for name, command in sorted(typer.main.get_command(program).commands.items()):
            lines += section(f"prunescope {name}", command)
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def setup(app: Any) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
