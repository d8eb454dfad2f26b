"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Allow = Annotated[
    list[str] | None,
    typer.Option("--allow", metavar="MODULE[:FUNCTION]", help="Code of your own that the file may have imported; may come again."),
]
