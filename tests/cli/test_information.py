"""`prunescope mi` on files: values of known truth, a panel with its agreement, every mistake one sentence."""

import sys

import numpy as np
import pandas as pd
import pytest

from prunescope import cli
from prunescope.cli import information


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(information.out, "width", 220)
    draw = np.random.default_rng(0)
    x = draw.normal(size=2000)
    y = 0.8 * x + 0.6 * draw.normal(size=2000)  # I = -ln(0.6) nats = 0.737 bits
    label = (x > 0).astype(int)
    np.savez("s.npz", x=x, y=y, label=label, short=y[:-1], bad=np.where(x > 2, np.nan, x), constant=np.ones(2000))
    pd.DataFrame({"a": x, "b": y, "kind": np.where(label, "yes", "no")}).to_csv("s.csv", index=False)
    np.savez("objects.npz", x=np.array([{}, {}], dtype=object), y=label[:2])
    (tmp_path / "cut.npz").write_bytes((tmp_path / "s.npz").read_bytes()[:500])

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["prunescope", "mi", *words])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def value(said: str, estimator: str) -> float:
    line = next(line for line in said.splitlines() if line.startswith(f"{estimator} "))
    return float(line.split()[1])


def test_known_truth_from_npz_and_csv(call):
    code, said, _ = call("s.npz", "--estimator", "ksg")
    assert code == 0
    assert value(said, "ksg") == pytest.approx(0.737, abs=0.08)
    assert value(call("s.csv", "--x", "a", "--y", "b", "--estimator", "ksg")[1], "ksg") == pytest.approx(value(said, "ksg"), abs=1e-3)
    assert value(call("s.csv", "--x", "a", "--y", "kind", "--estimator", "ross")[1], "ross") == pytest.approx(1.0, abs=0.05)
    nats = value(call("s.npz", "--estimator", "ksg", "--unit", "nats")[1], "ksg")
    assert nats == pytest.approx(value(said, "ksg") * np.log(2), abs=2e-4)


def test_several_columns_are_one_variable(call):
    both = value(call("s.csv", "--x", "a,b", "--y", "kind", "--estimator", "gao-mixed")[1], "gao-mixed")
    assert both == pytest.approx(1.0, abs=0.1)


def test_a_panel_says_who_agrees(call):
    code, said, _ = call("s.npz", "--estimators", "ksg,gaussian,gaussian-copula,binning,plugin")
    assert code == 0
    assert "estimators without flags agree within" in said
    assert "choose one of" in said, "an estimator that does not apply is a row with its reason"


def test_parameters_are_given_to_their_estimator(call):
    assert "k=7" in call("s.npz", "--estimator", "ksg", "-s", "k=7")[1]
    assert "k=7" in call("s.npz", "--estimators", "ksg,gaussian", "-s", "ksg.k=7")[1]
    assert "say whose parameter" in call("s.npz", "--estimators", "ksg,gaussian", "-s", "k=7")[2]


def test_check_against_known_truth(call):
    code, said, _ = call("--check", "--estimators", "miller-madow", "--n", "2000", "--tasks", "discrete")
    assert code == 0
    assert "inside max(0.07 bit, 5 %): miller-madow 4 of 4" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "expected a file of samples"),
        (["none.npz"], "no such file"),
        (["s.npz", "--y", "z"], "unknown array 'z'"),
        (["s.csv", "--x", "A", "--y", "b"], "unknown column 'A'"),
        (["s.npz", "--y", "short"], "x has 2000 rows and short has 1999 rows"),
        (["s.npz", "--y", "bad"], "NaN"),
        (["objects.npz"], "holds Python objects, which are never unpickled"),
        (["cut.npz"], "not a readable npz file"),
        (["s.npz", "--estimator", "kgs"], "did you mean 'ksg'"),
        (["s.npz", "--estimator", "ksg", "-s", "kk=3"], "kk"),
        (["s.npz", "--y", "label", "--estimator", "ksg"], "choose one of"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(call, words, sentence):
    code, _, errors = call(*words)
    assert code == 2
    assert sentence in errors
    assert len(errors.strip().splitlines()) == 1
