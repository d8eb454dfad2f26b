"""The report page: one self-contained HTML file that works offline and executes nothing that came from the run."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from prunescope.report.digest import Digest
from prunescope.report.payload import Payload, payload
from prunescope.results.files import write_beside

if TYPE_CHECKING:
    from prunescope.results.store import Run

SCRIPTS = (
    "page.js", "axes.js", "plane.js", "charts.js", "layers.js", "tables.js", "sections.js", "information.js", "convergence.js",
    "gradients.js", "levels.js", "pareto.js", "backends.js",
    "search.js", "boot.js",
)  # fmt: skip


def write_report(run: Run | Digest, out: Path | None = None) -> Path:
    """The path of the page written: `out`, else report.html in the run's folder. Written beside and renamed, so never half there."""
    path = Path(out) if out is not None else run.folder / "report.html"
    text = page(payload(run))
    write_beside(path, lambda beside: beside.write_text(text, encoding="utf-8", newline="\n"))
    return path


def page(data: Payload) -> str:
    """The HTML text. The policy allows our own style and script by their hashes and nothing else to run or to load."""
    style, script = asset("page.css"), '"use strict";\n(() => {\n' + "\n".join(asset(name) for name in SCRIPTS) + "\n})();\n"
    title = str(data["about"].get("title") or data["about"].get("name") or "run")
    ours = f"style-src '{content_hash(style)}'; script-src '{content_hash(script)}'"
    parts = {
        "policy": f"default-src 'none'; {ours}; base-uri 'none'; form-action 'none'",
        "title": html.escape(f"{title} · prunescope"),
        "style": style,
        "data": embedded(data),
        "script": script,
    }
    pieces = asset("page.html").split("%%")
    return "".join(parts[piece] if i % 2 else piece for i, piece in enumerate(pieces))


def embedded(data: Payload) -> str:
    """JSON that cannot end its own script element.

    >>> embedded({"a": "</script>"})
    '{"a":"\\\\u003c/script>"}'
    """
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_plain).replace("<", "\\u003c")


def _plain(value: object) -> object:
    """numpy's scalars as Python's, anything else (a date, a path) as its text."""
    return value.item() if hasattr(value, "item") else str(value)


def asset(name: str) -> str:
    """The text of one of the page's own files."""
    return resources.files("prunescope.report").joinpath(name).read_text(encoding="utf-8")


def content_hash(text: str) -> str:
    """The hash by which a page's policy allows one inline style or script and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
