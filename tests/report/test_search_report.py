"""A search on the page and as a figure; a ranking that is damaged or foreign is said to be, and the rest of the page stands."""

import json

import pytest
from fakerun import Made, make_run

from prunescope.report import figure_names, write_figures
from prunescope.report.html import page
from prunescope.report.payload import payload
from prunescope.report.searching import searched


def rung(value, level=None, number=0, reason=None, trials=()):
    ends = {"low": None if value is None else value - 0.01, "high": None if value is None else value + 0.01}
    return {"rung": number, "level": level, "trials": list(trials), "reason": reason, "value": value, **ends, "seeds": {"0": value}}


def written(run, candidates, **changes):
    about = {"schema": 1, "finished": True, "method": "halving", "over": "training.epochs", "keys": ["training.lr", "model.widths"]}
    told = {**about, "log": ["training.lr"], "objective": {"metric": "accuracy", "maximised": True, "text": "validation accuracy"}}
    (run.folder / "search.json").write_text(json.dumps({**told, "candidates": candidates, **changes}))
    return run


@pytest.fixture
def run(tmp_path):
    made = Made(variants={"pruned": ((0.5,), False)}, groups=("lr 0.1", "lr 0.2"), seeds=2, epochs=1, information=False, gradients=False)
    run = make_run(tmp_path, made)
    best = run.trials.loc[run.trials["group"] == "lr 0.1", "hash"].tolist()
    return written(run, [
        {"rank": 1, "candidate": 2, "values": {"training.lr": 0.1, "model.widths": [8]},
         "rungs": [rung(0.8, 1), rung(0.9, 3, 1, trials=best)]},
        {"rank": 2, "candidate": 1, "values": {"training.lr": 0.2, "model.widths": [8, 4]}, "rungs": [rung(0.7, 1)]},
        {"rank": None, "candidate": 3, "values": {"training.lr": 9.0, "model.widths": [8]},
         "rungs": [rung(None, 1, reason="died </script>")]},
    ])  # fmt: skip


def test_ranking_and_points_reach_the_page(run):
    data = payload(run)
    found = data["search"]
    assert found["rank"] == [1, 1, 2, None]
    assert found["value"] == [0.8, 0.9, 0.7, None]
    assert found["last"] == [False, True, True, True]
    assert found["keys"][0] == {"name": "training.lr", "values": [0.1, 0.1, 0.2, 9.0], "log": True}
    assert found["keys"][1]["values"] == ["[8]", "[8]", "[8, 4]", "[8]"], "what is no number is a name"
    lines = dict(map(tuple, data["overview"]))
    assert "Best of 3 by validation accuracy: training.lr = 0.1, model.widths = [8], training.epochs = 3. 1 failed" in lines["Search"]
    assert "On the test set, which took no part in the choice" in lines["Search"]
    assert "for 3 candidates" in lines["Compared"]
    assert "died \\u003c/script>" in page(data)


def test_figure_has_a_panel_a_key(run):
    assert figure_names(run)[0] == "search"
    (path,) = write_figures(run, formats=("svg",), only=["search"])
    text = path.read_text()
    assert path.name == "search.svg"
    assert text.count('id="axes_') == 2
    assert searched(run)[0].best_group(run) == "lr 0.1"


@pytest.mark.parametrize(
    "changes",
    [
        {"candidates": [{"rank": 1}]}, {"candidates": 3}, {"keys": [3]}, {"objective": None}, {"method": ["random"]}, {"over": 3},
        {"candidates": [{"rank": 1, "candidate": 2, "values": [1, 2], "rungs": [rung(0.5)]}]},
        {"candidates": [{"rank": 1, "candidate": "x", "values": {}, "rungs": [rung(0.5)]}]},
    ],
)  # fmt: skip
def test_a_foreign_ranking_is_named_and_left_out(run, changes):
    written(run, **{"candidates": [], **changes})
    data = payload(run)
    assert data["search"] is None
    assert "search.json: not a ranking" in data["problems"][-1]
    assert "search" not in figure_names(run)


def test_a_damaged_file_is_named_and_a_search_without_results_has_no_section(run):
    (run.folder / "search.json").write_text("{")
    assert "search.json" in payload(run)["problems"][-1]
    data = payload(written(run, []))
    assert data["search"] is None
    assert data["problems"] == []
    lost = {"rank": None, "candidate": 1, "values": {"training.lr": 1.0, "model.widths": [1]}, "rungs": [rung(None, 1)]}
    found = searched(written(run, [lost]))
    assert found[0].best is None
    assert "No candidate" in found[0].sentence()
