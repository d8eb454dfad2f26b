"""What README and docs show is run: Python blocks as they stand, commands parsed and experiments planned, some with shortened training."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
import typer

import prunescope as ps
from commands import prunescope
from prunescope import cli
from prunescope.config import TrainingConfig
from prunescope.config.tables import parse_override
from prunescope.experiments import presets
from prunescope.registry import criteria, granularities
from prunescope.training.optim import build

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
HOW_TO = DOCS / "how-to"
BUILT = DOCS / "_build"
PAGES = [ROOT / "README.md", *sorted(p for p in DOCS.rglob("*.md") if BUILT not in p.parents)]
NOTEBOOKS = [p for p in PAGES if "\nkernelspec:" in p.read_text()]  # executed when the site is built: tests/test_site.py
SHORT = ["-s", "training.epochs=1", "-s", "finetune.epochs=1", "-s", "seeds=1", "--engine", "serial"]
SMALL = [*SHORT, "-s", "sparsity=[0.5]", "-s", "grid={}"]
OF_HOW_TO = (
    "your-model",
    "your-data",
    "your-criterion",
    "your-optimiser",
    "your-network",
    "granularities",
    "loop",
    "compact",
    "deploy",
    "records",
    "reports",  # tests/report/test_how_to.py
)
OWN_TESTS = [ROOT / "README.md", DOCS / "science" / "criteria.md", *(HOW_TO / f"{page}.md" for page in OF_HOW_TO)]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def write_files(page: Path, folder: Path) -> None:
    """Blocks that begin with a file's name become that file; blocks of `mine.py` of one page follow each other in it."""
    for language, kind in (("python", r"mine\.py"), ("toml", r"[\w-]+\.toml")):
        for block in blocks(page, language):
            if found := re.match(rf"# ({kind})\n", block):
                with (folder / found[1]).open("a") as file:
                    file.write(block)


def run_page(page: Path, folder: Path, monkeypatch) -> dict:
    """Run the Python of a page as one program in `folder`, files of its own beside it; its names."""
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    write_files(page, folder)
    scope: dict = {}
    for number, block in enumerate(b for b in blocks(page, "python") if not b.startswith("# mine.py")):
        exec(compile(block, f"{name(page)}, block {number}", "exec"), scope)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return scope


def carried_out(monkeypatch, command: str, *more: str) -> int:
    """The exit code of a line of a page."""
    first, *words = shlex.split(command, comments=True)
    assert first == "prunescope"
    return prunescope(monkeypatch, *words, *more)


WITH_PYTHON = [p for p in PAGES if blocks(p, "python") and p not in OWN_TESTS and p not in NOTEBOOKS]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name)
def test_python_of_a_page_runs(tmp_path, monkeypatch, page):
    before = set(criteria.names())
    scope = run_page(page, tmp_path, monkeypatch)
    for added in set(criteria.names()) - before:
        del criteria._entries[added]
    assert scope


def test_from_a_trained_network_in_ten_lines(tmp_path, monkeypatch):
    page = HOW_TO / "your-network.md"
    scope = run_page(page, tmp_path, monkeypatch)
    ten = [line for line in blocks(page, "python")[1].splitlines() if line and not line.startswith((" ", ")", "import"))]
    assert len(ten) <= 10
    assert scope["small"][0].out_channels == 8
    assert scope["file"].path.exists()
    assert scope["found"]["accuracy"].value > 0.6


def command_lines(page: Path) -> list[str]:
    """Every command of ours on a page: in fenced blocks and in indented ones."""
    text = page.read_text()
    fenced = [line for block in blocks(page, "(?:sh|console)") for line in block.splitlines()]
    lines = [part for line in fenced for part in re.split(r"&&| > ", line)] + re.findall(r"^    (prunescope .*)$", text, flags=re.MULTILINE)
    return [line.strip() for line in lines if line.strip().startswith("prunescope ")]


@pytest.mark.parametrize("page", [p for p in PAGES if command_lines(p)], ids=name)
def test_commands_of_a_page_exist_and_their_experiments_can_be_planned(tmp_path, monkeypatch, page):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    write_files(page, tmp_path)
    program = typer.main.get_command(cli.app)
    for line in command_lines(page):
        command, words = program, shlex.split(line, comments=True)[1:]
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert command is not program, f"{line}: no such command"
        given = command.make_context(command.name, words).params  # raises for an option that does not exist or a value that does not fit
        source = given.get("source")
        if command.name == "run" and (source in presets.names() or Path(source).exists()):
            assert ps.plan(source, [parse_override(s) for s in given["settings"] or []]).trials, line


def test_readme_python_runs(tmp_path, monkeypatch):
    assert len(blocks(ROOT / "README.md", "python")) == 1
    scope = run_page(ROOT / "README.md", tmp_path, monkeypatch)
    assert scope["masks"].sparsity() == pytest.approx(0.8, abs=1e-3)
    assert len(scope["plane"].to_frame()) == 5 * 3 * 3


def test_a_command_of_the_readme_is_carried_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert carried_out(monkeypatch, "prunescope run quickstart -s seeds=10 -s training.epochs=80", "--dry-run") == 0
    assert "trials" in capsys.readouterr().out
    assert carried_out(monkeypatch, "prunescope show tishby") == 0


@pytest.mark.slow
@pytest.mark.parametrize("page", ["your-model", "your-data", "your-criterion"])
def test_how_to_examples_run(tmp_path, monkeypatch, page):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    write_files(HOW_TO / f"{page}.md", tmp_path)
    (command,) = command_lines(HOW_TO / f"{page}.md")
    assert carried_out(monkeypatch, command, *SMALL) == 0
    monkeypatch.delitem(sys.modules, "mine", raising=False)


def test_how_to_optimiser_trains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    write_files(HOW_TO / "your-optimiser.md", tmp_path)
    built = build(torch.nn.Linear(2, 2), TrainingConfig(optimizer="mine:nadam", lr=0.002))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    assert isinstance(built, torch.optim.NAdam)
    assert built.param_groups[0]["lr"] == 0.002


def test_how_to_loops_run(tmp_path, monkeypatch, capsys):
    """The blocks of one's own loop, one after another in one program."""
    scope = run_page(HOW_TO / "loop.md", tmp_path, monkeypatch)
    assert float(capsys.readouterr().out.split()[0]) == pytest.approx(0.9, abs=1e-3)
    assert "0.weight_orig" in scope["model"].state_dict()


def test_how_to_export_and_int8_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torchao")
    page = HOW_TO / "deploy.md"
    run_page(page, tmp_path, monkeypatch)
    assert "batches of 2 and 7" in capsys.readouterr().out
    assert "| `0.weight` | 64 x 20 | float32 | 80.0 % | 80.0 % |" in (tmp_path / "net.pt2.md").read_text()
    assert len(ps.plan(tmp_path / "smaller.toml").trials) == 65


@pytest.mark.parametrize(("page", "trials"), [("how-to/tickets.md", 110), ("tutorials/design-a-study.md", 50)])
def test_experiments_have_as_many_trials_as_is_said(tmp_path, monkeypatch, page, trials):
    monkeypatch.chdir(tmp_path)
    write_files(DOCS / page, tmp_path)
    (file,) = tmp_path.glob("*.toml")
    assert len(ps.plan(file).trials) == trials


def test_how_to_granularities(tmp_path, monkeypatch, capsys):
    page = HOW_TO / "granularities.md"
    scope = run_page(page, tmp_path, monkeypatch)
    assert capsys.readouterr().out.strip() == re.search(r"report\(\)\)  # (.*)", page.read_text())[1]
    assert scope["masks"].counts()["3.weight"] == (1440, 2880)
    named = re.findall(r"^\| (`.*?) \|", page.read_text(), flags=re.MULTILINE)
    assert {n for cell in named for n in re.findall(r"`(.*?)`", cell)} - {"2:4"} == set(granularities.names())


def test_how_to_compact(tmp_path, monkeypatch, capsys):
    page = HOW_TO / "compact.md"
    scope = run_page(page, tmp_path, monkeypatch)
    assert capsys.readouterr().out.splitlines()[0] == re.search(r"report\.error < 1e-10\)  # (.*)", page.read_text())[1]
    assert (scope["again"](scope["x"]) == scope["small"](scope["x"])).all()


@pytest.mark.slow
def test_how_to_experiment_runs_and_its_records_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_files(HOW_TO / "experiment.md", tmp_path)
    assert carried_out(monkeypatch, "prunescope run mine.toml", *SHORT) == 0
    reading = blocks(HOW_TO / "records.md", "python")[-1].replace("runs/quickstart", "runs/mine")
    scope: dict = {}
    exec(compile(reading, "records.md", "exec"), scope)
    assert set(scope["final"]["variant"]) == {"unpruned", "only the first layer"}


def test_criteria_page_runs_and_names_every_criterion(tmp_path, monkeypatch):
    page = DOCS / "science" / "criteria.md"
    assert sorted(re.findall(r"^\| `([\w-]+)` \|", page.read_text(), flags=re.MULTILINE)) == sorted(criteria.names())
    scope = run_page(page, tmp_path, monkeypatch)
    assert (scope["net"][0].weight == 0).any()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_that_are_there(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)", text):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
    assert page in NOTEBOOKS or text.startswith("#") or page.name == "changelog.md"  # which is the one outside


def test_every_how_to_page_is_in_the_index():
    listed = set(re.findall(r"\]\(how-to/([\w-]+)\.md\)", (DOCS / "how-to.md").read_text()))
    assert listed == {p.stem for p in HOW_TO.glob("*.md")}
    assert listed == set(re.findall(r"^how-to/([\w-]+)$", (DOCS / "how-to.md").read_text(), flags=re.MULTILINE))
