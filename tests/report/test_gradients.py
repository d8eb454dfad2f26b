"""Gradient curves: what they hold is what was recorded, and they are left out where nothing was."""

import numpy as np
from fakerun import Made, make_run

from prunescope.report import figure_names
from prunescope.report.gradients import gradient_curves
from prunescope.report.payload import payload

ALONE = {"alone": ((None,), False)}


def made_run(folder, **options):
    return make_run(folder, Made(groups=("",), finetune=0, variants=ALONE, **options))


def test_median_and_band_are_those_of_the_seeds(tmp_path):
    run = made_run(tmp_path, seeds=3, epochs=4)
    mine = (run.records["metric"] == "gradient_snr") & (run.records["layer"] == "layers.1.weight") & (run.records["epoch"] == 2)
    run.records.loc[mine, "value"] = [0.25, 8.0, 2.0]
    found = gradient_curves(run)
    assert found.epochs.tolist() == [1, 2, 3, 4]
    assert found.layers == [f"layers.{i}.weight" for i in range(4)]
    assert len(found.curves) == 12
    (curve,) = [c for c in found.curves if (c.metric, c.layer) == ("gradient_snr", "layers.1.weight")]
    assert (curve.median[1], curve.low[1], curve.high[1], curve.seeds) == (2.0, 0.25, 8.0, 3)


def test_an_epoch_without_a_finite_value_is_a_gap(tmp_path):
    run = made_run(tmp_path, seeds=2, epochs=3)
    at = (run.records["metric"] == "gradient_snr") & (run.records["epoch"] == 2)
    run.records.loc[at & (run.records["seed"] == 0), "value"] = np.nan
    run.records.loc[at & (run.records["seed"] == 1), "value"] = np.inf
    for curve in gradient_curves(run).curves:
        for values in (curve.median, curve.low, curve.high):
            assert np.isnan(values).tolist() == [False, curve.metric == "gradient_snr", False]


def test_many_epochs_are_thinned_and_it_is_said(tmp_path):
    data = payload(made_run(tmp_path, seeds=1, epochs=300, information=False))["gradients"]
    assert (len(data["epoch"]), data["recorded"]) == (120, 300)
    assert (data["epoch"][0], data["epoch"][-1]) == (1, 300)
    assert all(len(c["median"]) == 120 and "low" not in c for c in data["curves"])


def test_without_such_records_there_is_neither_section_nor_figure(tmp_path):
    run = made_run(tmp_path, seeds=1, epochs=2, gradients=False)
    assert payload(run)["gradients"] is None
    assert not [name for name in figure_names(run) if name.startswith("gradients")]
