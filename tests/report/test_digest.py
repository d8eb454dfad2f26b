"""What the page and the figures have in common is worked out once, and means the same for both."""

import importlib

import numpy as np
import pandas as pd
import pytest

from prunescope.report import curves, digest, write_figures, write_report
from prunescope.results.columns import each, packed


def test_page_and_figures_of_a_digest_are_those_of_the_run_and_share_its_work(small_run, tmp_path, monkeypatch):
    apart = write_report(small_run, tmp_path / "run.html").read_bytes()
    figures = [p.read_bytes() for p in write_figures(small_run, tmp_path / "run", ("svg",))]
    module, counted = importlib.import_module("prunescope.report.digest"), []
    planes = module.planes
    monkeypatch.setattr(module, "planes", lambda records: counted.append(1) or planes(records))
    whole = digest(small_run)
    assert digest(whole) is whole
    assert write_report(whole, tmp_path / "digest.html").read_bytes() == apart
    assert [p.read_bytes() for p in write_figures(whole, tmp_path / "digest", ("svg",))] == figures
    assert len(figures) > 3
    assert counted == [1]


def test_of_a_value_recorded_again_a_curve_takes_the_last_that_is_a_number(small_run):
    records = small_run.records
    chosen = (records["metric"] == "accuracy") & (records["phase"] == "train") & (records["split"] == "validation")
    first = records[chosen & (records["seed"] == 0) & (records["epoch"] == 1) & (records["variant"] == "baseline")]
    other = records[chosen & (records["seed"] == 1) & (records["epoch"] == 1) & (records["variant"] == "baseline")]
    assert (len(first), len(other)) == (1, 1)
    small_run.records = pd.concat([records, first.assign(value=0.25), first.assign(value=np.nan)], ignore_index=True)
    curve = next(c for c in curves.epoch_curves(small_run)[0] if (c.cell, c.metric, c.split) == (0, "accuracy", "validation"))
    assert curve.mean[curve.x == 1] == pytest.approx((0.25 + other["value"].item()) / 2)
    assert curve.seeds == 2


@pytest.mark.parametrize("form", [pd.Series, lambda texts: packed(pd.DataFrame({"layer": texts}))["layer"]])
def test_each_calls_once_for_every_text_that_is_there(form):
    called = []
    column = form(["b", "a", "b", "c"])[:3]
    assert each(column, lambda text: called.append(text) or text * 2).tolist() == ["bb", "aa", "bb"]
    assert sorted(called) == ["a", "b"]
    assert each(column[:0], str.upper).tolist() == []
