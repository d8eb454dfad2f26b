"""What docs/how-to/reports.md shows is run, on two small runs with the names that the page uses."""

import re
import shlex
from pathlib import Path

from fakerun import Made, write_run

import prunescope as ps
from prunescope import cli

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "reports.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


def test_the_page_runs(tmp_path, monkeypatch, capsys):
    made = Made(variants={"unpruned": ((None,), False), "weights": ((0.5, 0.9), False)}, groups=("",), seeds=2, epochs=1, finetune=0)
    for name in ("quickstart", "longer"):
        write_run(tmp_path / "runs" / name, made, name=name, baseline="unpruned")
    monkeypatch.chdir(tmp_path)
    commands = [line for block in blocks("sh") for line in block.splitlines() if "--format pdf --width" not in line]
    assert len(commands) == 6
    for command in commands:
        monkeypatch.setattr("sys.argv", shlex.split(command.split(">")[0]))
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        else:
            code = 0
        assert not code, command
    assert (tmp_path / "comparison.html").exists()
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {f"{n}.{k}" for n in ("plane-binning", "sparsity") for k in ("pdf", "svg")}
    assert "@misc{shwartzziv2017" in capsys.readouterr().out
    (code,) = blocks("python")
    scope = {}
    exec(compile(code, "reports.md", "exec"), scope)
    assert scope["found"].table["paired"].all()
    assert scope["bibtex"].startswith("@software{prunescope")
    assert [p.name for p in (tmp_path / "paper").iterdir()] == ["sparsity.pdf"]


def test_the_citation_page_says_what_the_command_says():
    page = (Path(__file__).parents[2] / "docs" / "citation.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"^```bibtex\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    assert said.strip() == ps.cite().strip()
