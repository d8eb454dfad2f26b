"""Several estimates of one network: each is told from the others, none loses a layer, and what is doubtful is marked."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from fakerun import Made, make_run

from prunescope.report import caveats, figure_names, tables, write_figures
from prunescope.report.convergence import convergence
from prunescope.report.payload import payload
from prunescope.report.planefigures import is_logarithmic
from prunescope.report.planes import planes

ALONE = {"tanh": ((None,), False)}
BINNINGS = ({"name": "binning", "bins": 6}, {"name": "binning", "bins": 30}, {"name": "binning", "bins": 6, "range": "quantile"})
SPECS = (*BINNINGS, {"name": "kde", "noise": 0.01, "bound": "upper"}, {"name": "kde", "noise": 0.01, "bound": "lower"}, {"name": "renyi"})
LABELS = ["binning, 6 bins", "binning, 30 bins", "binning, 6 bins, quantile", "kde, noise 0.01, upper", "kde, noise 0.01, lower", "renyi"]


def made_run(folder, specs=SPECS, **options):
    settings = {"groups": ("",), "seeds": 2, "epochs": 2, "finetune": 0, "variants": ALONE} | options
    return make_run(folder, Made(specs=specs, **settings))


def change(run, mine, **added):
    run.records.loc[mine, "parameters"] = [json.dumps(json.loads(text) | added) for text in run.records.loc[mine, "parameters"]]


def test_estimates_are_named_by_their_settings_and_keep_every_layer(tmp_path):
    run = made_run(tmp_path)
    found = planes(run.records)
    assert [e["label"] for e in found.estimates] == LABELS
    assert np.isfinite(found.x).all()
    assert np.isfinite(found.y).all()
    assert found.estimates[0]["resolution"] == "6 bins on [-1, 1]; 6 bins on [0, 1]"
    rows = run.records[(run.records["metric"] == "mi_input") & (run.records["layer"] == "output") & (run.records["epoch"] == 2)]
    mine = rows[rows["parameters"].map(lambda text: json.loads(text).get("range") == "quantile")]
    assert found.x[2, :, -1, 2].tolist() == mine["value"].tolist()


def test_what_differs_by_layer_is_no_setting(tmp_path):
    run = made_run(tmp_path, BINNINGS[:2])
    for number, layer in enumerate(("h1", "h2", "h3", "output")):
        change(run, run.records["layer"] == layer, lower=0.5 + number)
    assert [e["label"] for e in planes(run.records).estimates] == LABELS[:2]


def test_estimates_without_a_telling_setting_are_told_by_resolution_or_numbered(tmp_path):
    run = made_run(tmp_path, ({"name": "renyi"}, {"name": "renyi"}))
    found = planes(run.records)
    assert [e["label"] for e in found.estimates] == ["renyi (1)", "renyi (2)"]
    assert np.isfinite(found.x).all()
    rows = run.records["metric"].isin(["mi_input", "mi_label", "entropy"])
    key = ["trial", "epoch", "layer", "metric"]
    second = run.records[rows].groupby(key).cumcount().reindex(run.records.index) == 1
    change(run, rows, resolution="order 1.01")
    change(run, second, resolution="order 2")
    assert [e["label"] for e in planes(run.records).estimates] == ["renyi, order 1.01", "renyi, order 2"]


def test_values_above_an_earlier_layer_are_marked_and_explained(tmp_path):
    run = made_run(tmp_path)
    mine = (run.records["estimator"] == "renyi") & (run.records["metric"] == "mi_label") & (run.records["layer"] == "h3")
    change(run, mine & (run.records["epoch"] == 2), flags=["exceeds-earlier-layer"])
    found = planes(run.records)
    assert np.argwhere(found.exceeds).tolist() == [[1, 5, trial, 2, 2] for trial in (0, 1)]
    told = " ".join(caveats.caveats(run, tables.summary_table(run), found))
    assert "“renyi” (8 % of I(T;Y))" in told
    assert "data-processing inequality" in told
    marked = [s for s in payload(run)["plane"]["series"] if "exceeds" in s]
    assert [s["exceeds"] for s in marked] == [[[0, 0, 0, 0], [0, 0, [2], 0]]] * 2
    clean = planes(made_run(tmp_path).records)
    assert "data-processing" not in " ".join(caveats.caveats(run, tables.summary_table(run), clean))


def test_doubts_about_the_labels_information_are_told_too(tmp_path):
    """A value far above H(Y) is a value of I(T;Y): flags of that axis count as much as those of I(X;T)."""
    run = made_run(tmp_path)
    mine = (run.records["estimator"] == "renyi") & (run.records["metric"] == "mi_label") & (run.records["layer"] == "h3")
    change(run, mine, flags=["saturated", "above-ceiling"])
    found = planes(run.records)
    assert [e["flags"] for e in found.estimates if e["label"] == "renyi"] == [["above-ceiling"]]
    assert "flagged: above-ceiling" in " ".join(caveats.caveats(run, tables.summary_table(run), found))


def test_refused_values_are_listed_with_their_reason(tmp_path):
    run = made_run(tmp_path)
    mine = (run.records["estimator"] == "renyi") & (run.records["layer"] == "h1") & (run.records["metric"] != "entropy")
    run.records.loc[mine, "value"] = np.nan
    change(run, mine, flags=["refused"], why="too many samples")
    told = [(r["estimate"], r["layer"], r["metric"], r["first"], r["last"], r["count"], r["why"]) for r in payload(run)["plane"]["refused"]]
    assert sorted(told) == [(5, "h1", metric, 0, 2, 6, "too many samples") for metric in ("mi_input", "mi_label")]
    assert "12 values could not be had" in " ".join(payload(run)["caveats"])
    assert len(planes(run.records).estimates) == 6


def test_values_past_their_ceilings_and_other_quantities_are_told(tmp_path):
    run = made_run(tmp_path)
    mine = (run.records["estimator"] == "renyi") & (run.records["metric"] == "mi_label")
    run.records.loc[mine, "value"] = 21.0
    told = " ".join(payload(run)["caveats"])
    assert "“renyi” puts I(T;Y) at up to 21.00 where H(Y) is 3.32" in told
    assert "is not Shannon's" in told
    assert [bool(e["not_shannon"]) for e in payload(run)["plane"]["estimates"]] == [False] * 5 + [True]


def test_a_figure_shows_the_estimates_side_by_side(tmp_path):
    run = made_run(tmp_path)
    assert {"estimators", "plane-kde-noise-0.01-lower"} <= set(figure_names(run))
    names = {p.name for p in write_figures(run, formats=("svg",), only=["estimators", "plane-kde-noise-0.01-lower"])}
    assert {"estimators.svg", "plane-kde-noise-0.01-lower.svg"} <= names
    ElementTree.parse(tmp_path / "figures" / "estimators.svg")
    assert "estimators" not in figure_names(made_run(tmp_path, BINNINGS[:1]))


@pytest.mark.parametrize(
    ("epochs", "trained", "logarithmic"),
    [([0, 1, 2, 3, 5, 9, 17, 33, 65, 129], 129, True), (range(40), 39, False), ([0, 1, 2, 3, 5, 9, 17, 33, 65, 129], 65, False)],
)
def test_epochs_are_logarithmic_where_recorded_so(epochs, trained, logarithmic):
    assert is_logarithmic(np.asarray(epochs, float), trained) is logarithmic


def test_convergence_says_what_still_moves(tmp_path):
    run = made_run(tmp_path, BINNINGS, convergence=True)
    found = convergence(run)
    assert len(found) == 3 * 3 * 4
    assert found["n"].map(tuple).unique().tolist() == [(256, 512, 1024)]
    moving = found.groupby("metric")["moving"].agg(["all", "any"])
    assert moving.loc["mi_input"].tolist() == [True, True]
    assert moving.loc["mi_label"].tolist() == [False, False]
    assert found.loc[found["metric"] == "mi_input", "change"].to_numpy() == pytest.approx(1.0)
    assert list(dict.fromkeys(found["estimate"])) == LABELS[:3]
    data = payload(run)
    assert "still moves between N/2 and N is not yet an estimate" in data["convergence"]["meaning"]
    assert "24 of 36 values of the final networks still move" in " ".join(data["caveats"])
    assert [e["label"] for e in data["plane"]["estimates"]] == LABELS[:3]
    assert data["plane"]["phase"] == ["train"] * 3
    assert [p.name for p in write_figures(run, formats=("svg",), only=["convergence"])] == ["convergence.svg"]


def test_without_convergence_there_is_no_section(tmp_path):
    run = made_run(tmp_path, BINNINGS)
    assert payload(run)["convergence"] is None
    assert not [name for name in figure_names(run) if name.startswith("convergence")]
