"""The command line: every mistake is one clear sentence and exit code 2 or 1, and every command does what it says."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from commands import prunescope
from prunescope import cli

TINY = """
name = "tiny"
seeds = 1
sparsity = [0.5]
baseline = "dense"
[data]
name = "digits"
classes = [0, 1]
[model]
widths = [6]
[training]
epochs = 1
[measure.plane]
estimators = [{ name = "binning", bins = 8 }]
[[variant]]
name = "dense"
prune = { when = "never" }
[[variant]]
name = "<b>weights</b> & 'co'"
"""


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Run the command line in this process, in a folder of its own: (exit code, output, errors)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(cli.out, "width", 200)
    (tmp_path / "tiny.toml").write_text(TINY)

    def run(*words: str) -> tuple[int, str, str]:
        code = prunescope(monkeypatch, *words)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def wrong_data(folder: Path) -> dict[str, Path]:
    mnist = folder / "cut" / "mnist"
    mnist.mkdir(parents=True)
    for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        (mnist / name).write_bytes(b"\x1f\x8b\x08\x00truncated")
    x = np.random.default_rng(0).random((50, 4))
    y = np.arange(50) % 2
    np.savez(folder / "nan.npz", x=np.where(x > 0.9, np.nan, x), y=y)
    np.savez(folder / "short.npz", x=x, y=y[:-1])
    return {"cut": folder / "cut", "nan": folder / "nan.npz", "short": folder / "short.npz"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "quikstart"], "unknown preset 'quikstart': did you mean 'quickstart'?"),
        (["run", "none.toml"], "no config file 'none.toml'"),
        (["run", "tiny.toml", "-s", "training.epoch=2"], "training.epoch: unknown key 'epoch': did you mean 'epochs'"),
        (["run", "tiny.toml", "-s", "prune.criterion=magnitud"], "unknown criterion 'magnitud': did you mean 'magnitude'"),
        (["run", "tiny.toml", "-s", "data.name=mnst"], "unknown dataset 'mnst': did you mean 'mnist'?"),
        (["run", "tiny.toml", "-s", "sparsity=[90]"], "for 90 % write 0.9"),
        (["run", "tiny.toml", "-s", "sparsity"], "expected KEY=VALUE"),
        (["run", "tiny.toml", "-s", "data.name=mnist", "--data-dir", "nowhere"], "prunescope data get mnist"),
        (["run", "tiny.toml", "-s", "data.name=mnist", "--data-dir", "cut"], "mnist"),
        (["run", "tiny.toml", "-s", "data.name=npz", "-s", "data.path=nan.npz"], "NaN"),
        (["run", "tiny.toml", "-s", "data.name=npz", "-s", "data.path=short.npz"], "49 labels"),
        (["run", "tiny.toml", "--engine", "spark"], "unknown engine 'spark'"),
        (["run", "tiny.toml", "-s", "model.name=nosuch:thing"], "no module named 'nosuch'"),
        (["list", "criterium"], "did you mean 'criteria'?"),
        (["show", "saxes"], "did you mean 'saxe'"),
        (["data", "get", "cifar"], "cifar"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(call, tmp_path, monkeypatch, words, sentence):
    wrong_data(tmp_path)
    monkeypatch.delenv("PRUNESCOPE_DATA", raising=False)
    code, _, errors = call(*words)
    assert code == 2
    assert sentence in errors
    assert errors.startswith("prunescope: ")
    assert len(errors.strip().splitlines()) == 1
    assert "Traceback" not in errors


def test_a_folder_that_cannot_be_written_is_exit_code_1(call, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, errors = call("run", "tiny.toml", "--out", "file/run")
    assert code == 1
    assert "cannot be written" in errors
    assert "--out" in errors
    code, _, errors = call("report", tmp_path)
    assert code == 1
    assert "not a run folder" in errors


def test_run_report_export(call, tmp_path):
    code, said, _ = call("run", "tiny.toml", "--engine", "serial")
    assert code == 0
    assert said.strip().endswith("runs/tiny/report.html")
    assert "<b>weights</b> & 'co'" in said
    page = tmp_path / "runs" / "tiny" / "report.html"
    assert page.stat().st_size > 10_000
    page.unlink()
    assert call("report", "runs/tiny")[0] == 0
    assert page.exists()
    for format, read in (("csv", pd.read_csv), ("json", pd.read_json)):
        code, said, _ = call("export", "runs/tiny", "--format", format)
        assert code == 0
        assert {"accuracy", "mi_input"} <= set(read(said.strip())["metric"])
    assert call("export", "runs/tiny", "--format", "xls")[0] == 2


def test_a_failed_trial_is_named_and_exit_code_1(call):
    code, said, _ = call("run", "tiny.toml", "--engine", "serial", "-s", "prune.granularity=filter")
    assert code == 1
    assert "failed: <b>weights</b>" in said
    assert "report:" in said


def test_dry_run_runs_nothing(call, tmp_path):
    code, said, _ = call("run", "quickstart", "--dry-run")
    assert code == 0
    assert "220 trials" in said
    assert not (tmp_path / "runs").exists()


def test_show_prints_a_config_that_runs(call, tmp_path):
    _, text, _ = call("show", "quickstart")
    (tmp_path / "mine.toml").write_text(text)
    assert "220 trials" in call("run", "mine.toml", "--dry-run")[1]


def test_list_names_everything(call):
    _, said, _ = call("list")
    for name in ("quickstart", "magnitude", "random", "neuron", "global", "binning", "digits", "mlp", "adamw", "accuracy"):
        assert name in said


def test_data_says_what_is_there_and_how_to_get_the_rest(call, monkeypatch):
    monkeypatch.delenv("PRUNESCOPE_DATA", raising=False)
    code, said, _ = call("data", "--data-dir", "empty")
    assert code == 0
    assert "digits" in said
    assert "prunescope data get mnist" in said


def test_help_is_quick_and_imports_nothing_heavy():
    """The time itself is measured in benchmarks/startup.py; what makes it is that torch stays away."""
    program = "import sys, prunescope.cli; print(sorted({'torch', 'numpy', 'pandas', 'pydantic'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


def test_version(call):
    from prunescope import __version__

    assert call("--version")[1].strip() == __version__
