"""`prunescope prune hf:...` and `prunescope sensitivity` from the command line."""

import tomllib

import pandas as pd
import pytest
import torch

from commands import prunescope
from prunescope.experiments.scan import sensitivity_of
from prunescope.types import ConfigError

TINY = ("-s", "training.epochs=2", "-s", "model.widths=[6,5]")


def test_sensitivity_prints_a_table_and_the_levels_that_meet_a_target(monkeypatch, capsys, tmp_path):
    words = ("--levels", "0.5,0.9", "--sparsity", "0.8", "--out", str(tmp_path / "s.csv"))
    code = prunescope(monkeypatch, "sensitivity", "quickstart", *TINY, *words)
    printed = capsys.readouterr().out
    assert code == 0
    assert "fc1" in printed
    assert "table = {" in printed
    rows = pd.read_csv(tmp_path / "s.csv")
    assert list(rows.columns) == ["layer", "pieces", "sparsity", "loss", "increase"]
    assert set(rows["sparsity"]) == {0.5, 0.9}


def test_latency_prints_a_table_that_an_experiment_takes(monkeypatch, capsys, tmp_path):
    assert prunescope(monkeypatch, "latency", "quickstart", *TINY, "--batch-size", "4") == 0
    printed = capsys.readouterr().out
    times = tomllib.loads(printed)["prune"]["options"]["times"]
    assert all(set(entry) == {"all", "output", "input"} for entry in times.values())
    file = tmp_path / "mine.toml"
    file.write_text(f'extends = "quickstart"\nsparsity = [0.3]\n[prune]\ngranularity = "neuron"\nallocation = "latency"\n{printed}')
    assert prunescope(monkeypatch, "run", str(file), *TINY, "--dry-run") == 0


def test_the_table_meets_its_target_and_dense_is_the_trained_loss():
    overrides = {"training.epochs": 2, "model.widths": [6, 5]}
    found = sensitivity_of("quickstart", overrides=overrides, levels=(0.5, 0.9), target=0.7)
    assert found.table is not None
    gone = sum(found.table[n] * size for n, size in found.sizes.items())
    assert gone == pytest.approx(0.7 * sum(found.sizes.values()), rel=1e-3)
    again = sensitivity_of("quickstart", overrides=overrides, levels=(0.5,))
    assert again.scan.dense == found.scan.dense
    with pytest.raises(ConfigError, match="did you mean"):
        sensitivity_of("quickstart", overrides=overrides, variant="wieghts")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sensitivity", "quickstart", "--levels", "half"), "fractions separated by commas"),
        (("sensitivity", "quickstart", "--levels", "1.5"), "expected fractions removed"),
        (("prune", "model", "--out", "x", "--sparsity", "0.5"), "expected module:function"),
        (("prune", "hf:nowhere", "--out", "x"), "--sparsity FRACTION or --nm"),
        (("prune", "hf:nowhere", "--out", "x", "--sparsity", "0.5", "--nm", "2:4"), "leave --sparsity out"),
        (("prune", "hf:nowhere", "--out", "x", "--sparsity", "0.5", "--criterion", "magnitude"), "config.json"),
    ],
)
def test_mistakes_are_one_sentence(monkeypatch, capsys, tmp_path, words, said):
    monkeypatch.chdir(tmp_path)
    assert prunescope(monkeypatch, *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_a_checkpoint_is_pruned(monkeypatch, capsys, tmp_path):
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'prunescope[hf]'")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=32)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "dense")
    words = ("prune", f"hf:{tmp_path / 'dense'}", "--criterion", "magnitude", "--nm", "2:4", "--out", str(tmp_path / "sparse"))
    assert prunescope(monkeypatch, *words) == 0
    assert "(50.00%)" in capsys.readouterr().out
    loaded = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "sparse")
    assert float((loaded.transformer.h[1].mlp.c_fc.weight == 0).float().mean()) == 0.5
