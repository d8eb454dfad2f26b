"""Searches: which candidates there are, who goes on, that the run folder alone is remembered, and what is refused."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import prunescope as ps
from commands import prunescope
from prunescope import extras
from prunescope.config import HalvingConfig, SearchConfig
from prunescope.experiments.candidates import Candidate, Space
from prunescope.experiments.finding import planned
from prunescope.experiments.search import first_round, searching
from prunescope.types import ConfigError, DataError, MissingExtraError

TINY = {
    "name": "tiny",
    "seeds": 1,
    "sparsity": [0.5],
    "data": {"name": "digits", "flatten": True, "classes": [0, 1, 2], "train_size": 150},
    "model": {"name": "mlp", "widths": [8]},
    "training": {"epochs": 1, "batch_size": 32, "optimizer": "adam"},
    "measure": {"epochs": "none", "histogram_bins": 0},
    "prune": {"when": "init"},
    "search": {
        "method": "random",
        "candidates": 4,
        "space": {"training.lr": {"low": 1e-3, "high": 0.1, "log": True}, "model.activation": ["relu", "tanh"]},
    },
}
HALVING = {"search.method": "halving", "search.candidates": 6, "search.halving": {"begin": 1, "end": 4, "factor": 2}}
TPE = {"search.method": "tpe", "search.candidates": 5, "search.at_once": 2, "search.startup": 2}


def search(folder, **changes):
    options = {k: changes.pop(k) for k in ("told", "fresh") if k in changes}
    return ps.search(TINY, overrides=changes, out=folder, engine="serial", stack="off", **options)


def test_random_candidates_are_ranked_by_validation_and_a_longer_list_begins_with_the_shorter(tmp_path):
    found = search(tmp_path / "run", seeds=2)
    table = found.ranking
    assert table["objective"].is_monotonic_decreasing
    assert table["rank"].tolist() == [1, 2, 3, 4]
    assert table["training.lr"].between(1e-3, 0.1).all()
    assert found.best == {k: table[k].iloc[0] for k in ("training.lr", "model.activation")}
    assert "mean over 2 seeds" in found.text
    records = found.run.records
    final = records[(records["phase"] == "final") & (records["metric"] == "accuracy") & (records["split"] == "validation")]
    assert sorted(final.groupby("group")["value"].mean()) == pytest.approx(sorted(table["objective"]))
    space = Space(SearchConfig(**TINY["search"]))
    assert space.random(9)[:4] == space.random(4)
    assert {c.number for c in space.random(4)} == set(table["candidate"])
    trials = planned(found.run)
    assert set(found.run.trials["hash"]) == set(trials), "what the folder holds can be found again by name"


def test_grid_crosses_lists_and_steps_sparsity_too(tmp_path):
    changes = {"search.method": "grid", "search.candidates": None, "search.space": {"sparsity": {"low": 0.2, "high": 0.8, "step": 0.6}}}
    found = search(tmp_path / "run", **changes)
    assert sorted(found.ranking["sparsity"]) == [0.2, 0.8]
    assert sorted(found.run.trials["sparsity"]) == [0.2, 0.8]
    assert len(Space(SearchConfig(method="grid", space={"a.b": [1, 2], "a.c": {"low": 1, "high": 3}})).grid()) == 6
    with pytest.raises(ConfigError, match="without steps"):
        Space(SearchConfig(method="grid", space={"training.lr": {"low": 0.1, "high": 1.0}})).grid()


def test_tpe_learns_from_the_run_folder_and_a_killed_search_comes_to_the_same_end(tmp_path):
    whole = search(tmp_path / "whole", **TPE)
    options = {"overrides": TPE, "out": str(tmp_path / "killed"), "engine": "serial", "stack": "off"}
    child = subprocess.Popen([sys.executable, "-c", f"import prunescope as ps; ps.search({TINY!r}, **{options!r})"])
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "killed").glob("trials/*/trial.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    again = search(tmp_path / "killed", **TPE)
    pd.testing.assert_frame_equal(again.ranking, whole.ranking)
    assert set(again.run.trials["hash"]) == set(whole.run.trials["hash"])
    assert len(whole.ranking) == 5


def test_tpe_goes_where_it_was_good():
    space = Space(SearchConfig(method="tpe", startup=5, space={"training.lr": {"low": 0.0, "high": 1.0}}))
    past = [(Candidate(i, {"training.lr": i / 20}), -abs(i / 20 - 0.7)) for i in range(1, 20)]
    past.append((Candidate(20, {"training.lr": 0.2}), float("nan")))
    more = [c.values["training.lr"] for c in space.proposed(past, 8, maximised=True)]
    less = [c.values["training.lr"] for c in space.proposed(past, 8, maximised=False)]
    assert sum(abs(v - 0.7) for v in more) < sum(abs(v - 0.7) for v in less)
    assert more == [c.values["training.lr"] for c in space.proposed(past, 8, maximised=True)]


def test_halving_promotes_the_best_and_goes_on_where_it_was_stopped(tmp_path):
    lines = []
    whole = search(tmp_path / "whole", told=lines.append, **HALVING)
    assert lines[0] == "halving: 6 at 1, 3 at 2, 2 at 4 of training.epochs; each rung trains anew: 20 epochs a seed instead of 24"
    assert whole.ranking["training.epochs"].tolist() == [4, 4, 2, 1, 1, 1]
    told = json.loads((tmp_path / "whole" / "search.json").read_text())["candidates"]
    first = {c["candidate"]: c["rungs"][0]["value"] for c in told}
    best = sorted(first, key=lambda number: (-first[number], number))[:3]
    assert {c["candidate"] for c in told if len(c["rungs"]) > 1} == set(best)

    def stop(line):
        if line.startswith("rung 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "stopped", told=stop, **HALVING)
    shutil.rmtree(next((tmp_path / "stopped" / "trials").iterdir()))
    again = search(tmp_path / "stopped", **HALVING)
    pd.testing.assert_frame_equal(again.ranking, whole.ranking)


def test_halving_over_sparsity_shares_the_training_before_pruning(tmp_path):
    own = {"over": "sparsity", "begin": 0.5, "end": 0.9, "factor": 3}
    found = search(tmp_path / "run", **{"search.method": "halving", "search.candidates": 3, "search.halving": own, "prune.when": "trained"})
    assert found.ranking["sparsity"].tolist() == [0.9, 0.5, 0.5]
    assert len(list((tmp_path / "run" / "dense").iterdir())) == 3
    assert HalvingConfig(begin=1, end=9).rungs == [1, 3, 9]


def test_a_failed_candidate_is_a_row_with_its_reason_and_all_failed_is_an_error(tmp_path, monkeypatch, capsys):
    space = {"model.activation": ["tanh", "tanhh"], "training.optimizer": ["adam", "conftest:absent"]}
    table = search(tmp_path / "run", **{"search.space": space, "search.method": "grid", "search.candidates": None}).ranking
    assert table["rank"].notna().tolist() == [True, False, False, False]
    assert "did you mean 'tanh'" in table[table["model.activation"] == "tanhh"]["reason"].iloc[0]
    with pytest.raises(ConfigError, match="tanhh"):
        search(tmp_path / "none", **{"search.space": {"model.activation": ["tanhh", "rellu"]}})
    table = search(tmp_path / "loss", **{"search.objective": {"metric": "losss", "direction": "minimise"}, "search.candidates": 1}).ranking
    assert "this phase has accuracy" in table["reason"].iloc[0]


def test_less_is_better_for_a_loss_and_for_a_size(tmp_path):
    table = search(tmp_path / "run", **{"search.objective": {"metric": "loss"}, "search.candidates": 3}).ranking
    assert table["objective"].is_monotonic_increasing
    changes = {"search.objective": {"metric": "nonzero", "split": ""}, "search.space": {"sparsity": [0.2, 0.9]}, "search.candidates": 2}
    assert search(tmp_path / "run", fresh=True, **changes).best == {"sparsity": 0.9}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"search.space": {"training.learning_rate": [0.1]}}, "unknown key 'learning_rate'"),
        ({"search.space": {"seeds": [1, 2]}}, "'seeds': expected \"sparsity\" or a dotted key"),
        ({"search.space": {"training.lr": {"low": -1.0, "high": 0.1}}}, "greater than 0, got -1.0"),
        ({"search.space": {"training.lr": {"low": 0.2, "high": 0.1}}}, "low = 0.2 lies above high = 0.1"),
        ({"search.space": {"training.lr": {"low": 0.0, "high": 0.1, "log": True}}}, "above 0, got low = 0"),
        ({"search.space": {"training.lr": {"lo": 0.0, "high": 0.1}}}, "low"),
        ({"search.space": {"training.lr": 0.1}}, "expected a list of values or {low"),
        ({"search.objective": {"split": "test"}}, "split: Input should be 'train', 'validation' or ''"),
        ({"search.objective": {"metric": "mi_label"}}, "set direction"),
        ({"search.method": "halving"}, r"\[search.halving\] goes with method"),
        ({"search.method": "grid"}, "leave candidates out"),
        ({"search.method": "annealing"}, "search.method"),
        ({"search": None}, r"no \[search\] in this config"),
        ({"grid": {"model.activation": ["relu"]}}, r"\[grid\] and \[search\]"),
        ({"variant": [{"name": "a", "training": {"lr": 0.1}}]}, "variant 'a' sets training.lr itself"),
        ({"variant": [{"name": "a", "prune": {"when": "never"}}], "search.space": {"sparsity": [0.5]}}, "does not go by the sparsity"),
    ],
)
def test_what_does_not_fit_is_named_before_anything_runs(tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        search(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_data_without_validation_samples_cannot_be_chosen_by(tmp_path):
    with pytest.raises(DataError, match=r"set data\.validation"):
        search(tmp_path / "run", **{"data.validation": 0.0})


def test_optuna_is_asked_for_by_the_extra_that_brings_it_and_a_grid_needs_none(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"prunescope\[search\]"):
        search(tmp_path / "run")
    assert len(Space(SearchConfig(method="grid", space={"a.b": [1, 2]})).grid()) == 2
    assert extras.load("json", extra="search", purpose="a test")


def test_the_experiments_of_the_page_can_be_planned(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "search.md").read_text()
    numbers = []
    for block in re.findall(r"^```toml\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE):
        (tmp_path / "page.toml").write_text(block)
        numbers.append(len(first_round(searching(tmp_path / "page.toml"))))
    assert numbers == [30, 27]


def test_run_refuses_a_search_and_the_command_line_shows_it(tmp_path, monkeypatch, capsys):
    with pytest.raises(ConfigError, match="prunescope search"):
        ps.run(TINY, out=tmp_path / "run", engine="serial")
    file = tmp_path / "tiny.toml"
    from tomli_w import dumps

    file.write_text(dumps(TINY))
    assert prunescope(monkeypatch, "search", file, "--dry-run") == 0
    assert "4 candidates, 1 seed each" in capsys.readouterr().out
    assert prunescope(monkeypatch, "search", file, "--engine", "serial", "--out", tmp_path / "run", "-s", "search.candidates=1") == 0
    said = capsys.readouterr().out
    assert "validation accuracy (final), mean over 1 seed" in said
    assert "activation" in said
    assert json.loads((tmp_path / "run" / "experiment.json").read_text())["command"].startswith("prunescope search ")
    assert (tmp_path / "run" / "figures" / "search.svg").exists()
    again = ps.search(tmp_path / "run" / "experiment.toml", out=tmp_path / "run", engine="serial")
    assert len(again.ranking) == 1, "the folder's own config goes on where it was"
