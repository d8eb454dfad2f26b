"""Tables, curves and planes: what is counted, paired and thinned."""

import json

import numpy as np
import pytest
from fakerun import Made, make_run

from prunescope.report import caveats, curves, overview, planes, tables, weights
from prunescope.results import stats


def one(table, label, group="tanh"):
    return table[(table["label"] == label) & (table["group"] == group)].iloc[0]


def test_cells_come_baseline_first_and_by_sparsity(run):
    known = tables.cells(run)
    assert known["label"].iloc[0] == "baseline"
    assert known["label"].tolist().count("magnitude + fine-tuning 90 %") == 2
    levels = known[(known["variant"] == "magnitude + fine-tuning") & (known["group"] == "relu")]["sparsity"]
    assert levels.is_monotonic_increasing


def test_summary_agrees_with_the_records(run):
    row = one(tables.summary_table(run), "weights at init")
    records = stats.select(run.records, "accuracy", phase="final", split="test")
    mine = records[(records["group"] == "tanh") & (records["variant"] == "weights at init")].sort_values("seed")["value"].to_numpy()
    dense = records[(records["group"] == "tanh") & (records["variant"] == "baseline")].sort_values("seed")["value"].to_numpy()
    assert row["accuracy"] == pytest.approx(mine.mean())
    assert row["difference"] == pytest.approx((mine - dense).mean())
    assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
    assert (row["seeds"], row["failed"], row["pairs"], row["judged"]) == (5, 0, 5, 5)


def test_baseline_is_not_compared_with_itself(run):
    assert np.isnan(one(tables.summary_table(run), "baseline")["difference"])


def test_a_failed_trial_is_counted_and_listed(tmp_path):
    run = make_run(tmp_path, Made(groups=("",), seeds=3))
    run.trials.loc[0, ["status", "reason", "seconds"]] = ["failed", "loss is NaN", np.nan]
    run.records = run.records[run.records["trial"] != run.trials["hash"][0]]
    row = one(tables.summary_table(run), "baseline", "")
    assert (row["seeds"], row["failed"]) == (2, 1)
    assert tables.unfinished(run)["reason"].tolist() == ["loss is NaN"]
    assert "1 trial without results" in overview.overview(run, tables.summary_table(run), None)[0][1]


def test_pruned_at_initialisation_is_told_from_pruned_after_training(run):
    early = tables.at_initialisation(run.records)
    assert set(run.records["variant"][early]) == {"weights at init", "neurons at init", "random at init"}


def test_curve_drops_at_the_last_training_epoch(run):
    known = tables.cells(run)
    found, timeline = curves.epoch_curves(run)
    cell = known.index[(known["label"] == "magnitude + fine-tuning 98 %") & (known["group"] == "tanh")][0]
    curve = next(c for c in found if c.cell == cell and c.metric == "accuracy" and c.split == "validation")
    at_pruning = np.flatnonzero(curve.x == timeline.trained)
    assert len(at_pruning) == 2
    assert curve.mean[at_pruning[1]] < curve.mean[at_pruning[0]] - 0.3
    assert curve.x[-1] == timeline.trained + 3
    assert (np.diff(curve.x) >= 0).all()


def test_intervals_of_a_curve_are_those_of_its_points(small_run):
    curve = curves.epoch_curves(small_run)[0][0]
    assert (curve.low <= curve.mean + 1e-12).all()
    assert (curve.high >= curve.mean - 1e-12).all()


def test_planes_hold_every_value_at_its_place(run):
    found = planes.planes(run.records)
    rows = stats.select(run.records, "mi_label", phase="finetune", layer="h3")
    row = rows[rows["epoch"] == 2].iloc[7]
    trial = found.trials.index[found.trials["trial"] == row["trial"]][0]
    moment = found.moments.index[(found.moments["phase"] == "finetune") & (found.moments["epoch"] == 2)][0]
    assert found.y[0, trial, found.layers.index("h3"), moment] == row["value"]
    assert found.layers == ["h1", "h2", "h3", "output"]
    assert found.estimates[0]["ceilings"] == {"H(X)": 10.0, "H(Y)": 3.32, "log2 N": 10.0}


def test_saturated_values_are_marked(tmp_path):
    run = make_run(tmp_path, Made(groups=("",), seeds=1, layers=("only",)))
    details = run.records["parameters"].map(json.loads)
    flagged = (run.records["metric"] == "mi_input") & details.map(lambda d: "saturated" in d.get("flags", []))
    run.records.loc[flagged, "parameters"] = "{}"
    assert not planes.planes(run.records).saturated.any()
    run.records.loc[run.records["metric"] == "mi_input", "parameters"] = json.dumps({"flags": ["saturated"]})
    found = planes.planes(run.records)
    assert (found.saturated == np.isfinite(found.x)).all()


def test_values_in_nats_are_not_mixed_with_bits(run):
    records = run.records.copy()
    first = records.index[records["metric"] == "mi_input"][:1]
    before = planes.planes(run.records).x
    records.loc[first, "value"] *= np.log(2)
    records.loc[first, "unit"] = "nats"
    found = planes.planes(records)
    assert found.unit == "bits"
    assert np.allclose(found.x, before, equal_nan=True)


def test_two_estimators_are_two_estimates(tmp_path):
    run = make_run(tmp_path, Made(groups=("",), seeds=1, epochs=2, estimators=("binning", "kde")))
    assert [e["label"] for e in planes.planes(run.records).estimates] == ["binning", "kde"]
    run.records.loc[run.records["estimator"] == "kde", "parameters"] = json.dumps({"resolution": "noise 0.1"})
    run.records["estimator"] = run.records["estimator"].replace("kde", "binning")
    labels = [e["label"] for e in planes.planes(run.records).estimates]
    assert len(labels) == 2
    assert any("noise 0.1" in label for label in labels)


def test_thinning_keeps_the_ends_and_says_so(tmp_path):
    run = make_run(tmp_path, Made(groups=("",), seeds=1, epochs=300, variants={"baseline": ((None,), False)}))
    found = planes.planes(run.records)
    assert (len(found.moments), found.recorded) == (120, 301)
    assert found.moments["epoch"].iloc[[0, -1]].tolist() == [0, 300]
    assert "120 of 301 recorded moments" in " ".join(caveats.caveats(run, tables.summary_table(run), found))


def test_caveats_speak_of_what_is_there(small_run, tmp_path):
    told = " ".join(caveats.caveats(small_run, tables.summary_table(small_run), planes.planes(small_run.records)))
    assert "at most 50 %" in told
    assert "deterministic" in told
    single = make_run(tmp_path, Made(groups=("",), seeds=1, information=False))
    alone = " ".join(caveats.caveats(single, tables.summary_table(single), None))
    assert "ONCE" in alone
    assert "deterministic" not in alone


def test_negative_estimates_are_kept_and_told(small_run):
    rows = small_run.records["metric"] == "mi_label"
    small_run.records.loc[rows & (small_run.records["epoch"] == 0), "value"] = -0.2
    found = planes.planes(small_run.records)
    assert np.nanmin(found.y) == -0.2
    assert "negative" in " ".join(caveats.caveats(small_run, tables.summary_table(small_run), found))


def test_weights_that_grow_back_are_told(small_run):
    records = small_run.records
    records.loc[(records["metric"] == "sparsity") & (records["phase"] == "final"), "value"] *= 0.1
    lines = dict(overview.overview(small_run, tables.summary_table(small_run), None))
    assert "“weights” 70 % → 7 %" in lines["Zeros"]


def test_histograms_leave_the_exact_zeros_out(run):
    known = tables.cells(run)
    found = weights.histograms(run, known)
    mine = [h for h in found if known["label"][h["cell"]] == "magnitude + fine-tuning 90 %" and h["moment"] == "pruned"]
    assert mine
    for h in mine:
        assert sum(h["counts"]) <= (1 - h["zero"]) * h["n"] + 0.5
        assert h["zero"] == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize("parameters", ["{}", "not json", '{"edges": [0, 1], "counts": ["a"]}', '{"edges": [0], "counts": [1, 2]}', "[]"])
def test_damaged_histograms_are_left_out(small_run, parameters):
    small_run.records.loc[small_run.records["metric"] == "weight_histogram", "parameters"] = parameters
    assert weights.histograms(small_run, tables.cells(small_run)) is None


def test_figures_show_the_middle_level_or_the_nearest_to_it(run):
    known = tables.cells(run)
    shown = known.loc[tables.one_level(known)]
    assert shown["label"].tolist().count("magnitude + fine-tuning 90 %") == 2  # of 50, 80, 90, 95, 98
    assert len(shown) == known[["group", "variant"]].drop_duplicates().shape[0]


def test_without_comparison_the_course_of_the_last_layer_is_told(tmp_path):
    run = make_run(tmp_path, Made(groups=("",), seeds=2, variants={"alone": ((None,), False)}), baseline=None)
    lines = dict(overview.overview(run, tables.summary_table(run), planes.planes(run.records)))
    assert lines["Information"].startswith("In “alone” the last layer (output) moves over training: I(T;Y) from ")
    assert "Size" not in lines


def test_accuracy_right_after_pruning_stands_at_the_sparsity_of_that_moment(small_run):
    records = small_run.records
    records.loc[(records["metric"] == "sparsity") & (records["phase"] == "final"), "value"] = 0.01
    points = curves.sparsity_points(small_run)
    assert (points.loc[points["moment"] == "final", "x"] == 0.01).all()
    assert sorted(points.loc[points["moment"] == "pruned", "x"].unique()) == [0.5, 0.9]
