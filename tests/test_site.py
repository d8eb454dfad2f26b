"""The documentation site builds without network and without a warning, its notebooks run, and every link in it leads somewhere."""

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import typer

import prunescope
from prunescope import catalogue, cli

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """What a page names, where its links lead, and what it loads to be shown."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids |= {given[k] for k in ("id", "name") if given.get(k)}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload"):
            self.loaded.append(given["href"])
        elif "src" in given:
            self.loaded.append(given["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("myst_nb", reason="the site needs the extra docs: pip install 'prunescope[docs]'")
    pytest.importorskip("furo", reason="the site needs the extra docs: pip install 'prunescope[docs]'")
    out = tmp_path_factory.mktemp("site") / "html"
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", str(ROOT / "docs"), str(out)]
    offline = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1,localhost"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env={**os.environ, **offline})
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_every_link_of_the_site_leads_somewhere_and_nothing_comes_from_the_network(site):
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert len(pages) > 60
    broken = []
    for path, page in pages.items():
        for target in [*page.links, *page.loaded]:
            parts = urlsplit(target)
            if parts.scheme == "data":
                continue
            if parts.scheme or parts.netloc:
                if target in page.loaded:
                    broken.append(f"{path.relative_to(site)} loads {target}")
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not there.exists():
                broken.append(f"{path.relative_to(site)} links to {target}")
            elif parts.fragment and there in pages and unquote(parts.fragment) not in pages[there].ids:
                broken.append(f"{path.relative_to(site)} links to {target}: no such heading")
    assert not broken, "\n".join(broken)


def test_the_notebooks_were_executed(site):
    notebooks = sorted(site.rglob("*.ipynb"))
    assert sorted(n.stem for n in notebooks) == ["first-network", "information-plane"]
    for notebook in notebooks:
        cells = [c for c in json.loads(notebook.read_text())["cells"] if c["cell_type"] == "code"]
        assert all(c["execution_count"] for c in cells)
        kinds = {kind for c in cells for o in c["outputs"] for kind in o.get("data", {})}
        assert "image/png" in kinds
        shown = " ".join("".join(o.get("text", "")) for c in cells for o in c["outputs"])
        assert "Warning" not in shown


def test_the_reference_names_everything_public(site):
    ids = set().union(*(Page(path).ids for path in (site / "reference").glob("*.html")))
    missing = [name for name in prunescope.__all__ if not name.startswith("_") and f"prunescope.{name}" not in ids]
    assert not missing, f"docs/reference lacks {missing}"
    registered = (site / "reference" / "registered.html").read_text(encoding="utf-8")
    for kind in catalogue.kinds():
        for name, _, _ in catalogue.rows(kind):
            assert f">{name}</span>" in registered or f'<span class="pre">{name}' in registered, f"{kind} {name}"
    commands = (site / "reference" / "command-line.html").read_text(encoding="utf-8")
    for name, command in typer.main.get_command(cli.app).commands.items():
        assert f"prunescope {name}<" in commands
        for option in (o for p in command.params for o in p.opts if o.startswith("--")):
            assert f">{option}</span>" in commands, f"{name} {option}"
