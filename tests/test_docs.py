"""What README and docs show is run: Python blocks as they stand, commands with shortened training, links to files that are there."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from prunescope import cli
from prunescope.registry import granularities

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHORT = ["-s", "training.epochs=1", "-s", "finetune.epochs=1", "-s", "seeds=1", "--engine", "serial"]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def prunescope(monkeypatch, command: str, *more: str) -> int:
    words = shlex.split(command, comments=True)
    assert words[0] == "prunescope"
    monkeypatch.setattr(sys, "argv", [*words, *more])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_readme_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = blocks(ROOT / "README.md", "python")
    assert len(code) == 1
    scope: dict = {}
    exec(compile(code[0], "README.md", "exec"), scope)
    assert scope["masks"].sparsity() == pytest.approx(0.8, abs=1e-3)
    assert len(scope["plane"].to_frame()) == 5 * 3 * 3


def test_readme_commands_are_understood(tmp_path, monkeypatch, capsys):
    """Each preset and option that the README names exists; runs are planned, not carried out."""
    monkeypatch.chdir(tmp_path)
    lines = [line for block in blocks(ROOT / "README.md", "sh") for line in block.splitlines() if line.startswith("prunescope run")]
    assert len(lines) >= 3
    for line in lines:
        assert prunescope(monkeypatch, line.split("&&")[0].split("#")[0], "--dry-run") == 0, line
    assert "trials" in capsys.readouterr().out
    assert prunescope(monkeypatch, "prunescope show tishby") == 0


HOW_TO = ROOT / "docs" / "how-to.md"
EXAMPLES = re.findall(r"```python\n# mine\.py\n(.*?)```\n.*?```sh\n(.*?)```", HOW_TO.read_text(), flags=re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize(("code", "command"), EXAMPLES, ids=["model", "data", "criterion"])
def test_how_to_examples_run(tmp_path, monkeypatch, code, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(code)
    assert prunescope(monkeypatch, command.strip(), *SHORT) == 0
    monkeypatch.delitem(sys.modules, "mine", raising=False)


def test_how_to_loops_run():
    """The blocks of one's own loop, one after another in one program."""
    code = [b for b in blocks(HOW_TO, "python") if b.startswith("# loop.py")]
    assert len(code) == 3
    scope: dict = {}
    for number, block in enumerate(code):
        exec(compile(block, f"how-to.md, loop {number}", "exec"), scope)
        if number == 0:
            assert scope["masks"].sparsity() == pytest.approx(0.9, abs=1e-3)
    assert "0.weight_orig" in scope["model"].state_dict()


def test_how_to_export_and_int8_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torchao")
    monkeypatch.chdir(tmp_path)
    code = [b for b in blocks(HOW_TO, "python") if b.startswith("# export.py") or "ps.quantize" in b]
    assert len(code) == 2
    scope: dict = {}
    exec(compile("".join(code), "how-to.md", "exec"), scope)
    assert "batches of 2 and 7" in capsys.readouterr().out
    assert "| `0.weight` | 64 x 20 | float32 | 80.0 % | 80.0 % |" in (tmp_path / "net.pt2.md").read_text()
    (tmp_path / "smaller.toml").write_text(next(b for b in blocks(HOW_TO, "toml") if b.startswith("# smaller.toml")))
    assert prunescope(monkeypatch, "prunescope run smaller.toml", "--dry-run") == 0
    assert "65 trials" in capsys.readouterr().out


def test_how_to_tickets_are_planned(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = next(b for b in blocks(HOW_TO, "toml") if b.startswith("# tickets.toml"))
    (tmp_path / "tickets.toml").write_text(code)
    assert prunescope(monkeypatch, "prunescope run tickets.toml", "--dry-run") == 0
    assert "110 trials" in capsys.readouterr().out


def test_how_to_granularities(capsys):
    code = next(b for b in blocks(HOW_TO, "python") if "couple(net" in b)
    scope: dict = {}
    exec(compile(code, "how-to.md", "exec"), scope)
    assert capsys.readouterr().out.strip() == re.search(r"report\(\)\)  # (.*)", code)[1]
    assert scope["masks"].counts()["3.weight"] == (1440, 2880)
    section = HOW_TO.read_text().split("## Choose what goes as one piece")[1].split("\n## ")[0]
    named = re.findall(r"^\| (`.*?) \|", section, flags=re.MULTILINE)
    assert {n for cell in named for n in re.findall(r"`(.*?)`", cell)} - {"2:4"} == set(granularities.names())


def test_how_to_compact(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = next(b for b in blocks(HOW_TO, "python") if "ps.compact(net" in b)
    scope: dict = {}
    exec(compile(code, "how-to.md", "exec"), scope)
    assert capsys.readouterr().out.splitlines()[0] == re.search(r"report\.error < 1e-10\)  # (.*)", code)[1]
    assert (scope["again"](scope["x"]) == scope["small"](scope["x"])).all()


@pytest.mark.slow
def test_how_to_experiment_runs_and_its_records_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(blocks(HOW_TO, "toml")[0])
    assert prunescope(monkeypatch, "prunescope run mine.toml", *SHORT) == 0
    reading = blocks(HOW_TO, "python")[-1].replace("runs/quickstart", "runs/mine")
    scope: dict = {}
    exec(compile(reading, "how-to.md", "exec"), scope)
    assert set(scope["final"]["variant"]) == {"unpruned", "only the first layer"}


def test_criteria_page_runs_and_names_every_criterion(tmp_path, monkeypatch):
    import prunescope.pruning  # noqa: F401 (fills the registry)
    from prunescope.registry import criteria

    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "science" / "criteria.md"
    assert sorted(re.findall(r"^\| `([\w-]+)` \|", page.read_text(), flags=re.MULTILINE)) == sorted(criteria.names())
    code = blocks(page, "python")
    assert len(code) == 1
    scope: dict = {}
    exec(compile(code[0], "criteria.md", "exec"), scope)
    assert (scope["net"][0].weight == 0).any()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_files_that_are_there(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
    assert page.read_text().startswith("#")
