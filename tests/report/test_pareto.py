"""The Pareto front: who is on it, and that figure and page show it."""

import json

import numpy as np
import pandas as pd
import pytest
from fakerun import Made, make_run

from prunescope.report import write_figures
from prunescope.report.html import page
from prunescope.report.pareto import pareto, steps, undominated
from prunescope.report.payload import payload


@pytest.fixture
def staged(tmp_path):
    """Two variants of two seeds; what was compacted costs a quarter, int8 a sixteenth and a little accuracy."""
    variants = {"baseline": ((None,), False), "units": ((0.5,), False)}
    run = make_run(tmp_path, Made(variants=variants, groups=("",), seeds=2, epochs=1, information=False, gradients=False))
    final = run.records[(run.records["phase"] == "final") & (run.records["layer"] == "")]
    final = final[final["metric"].isin(["accuracy", "bytes"]) & final["split"].isin(["test", ""])]
    pruned = final[final["variant"] == "units"]
    made = []
    for phase, part, cheaper, worse in (("compacted", pruned, 4, 0.0), ("quantised", final, 16, 0.01)):
        rows = part.assign(phase=phase)
        rows["value"] = np.where(rows["metric"] == "bytes", rows["value"] / cheaper, rows["value"] - worse)
        made.append(rows)
    run.records = pd.concat([final, *made], ignore_index=True)
    return run


def test_only_what_nothing_beats_is_on_the_front():
    rng = np.random.default_rng(0)
    cost, gain = rng.integers(1, 9, 60), rng.integers(1, 9, 60)
    pairs = list(zip(cost.tolist(), gain.tolist(), strict=True))
    by_hand = [not any(c <= mine and g >= own and (c, g) != (mine, own) for c, g in pairs) for mine, own in pairs]
    assert undominated(cost, gain).tolist() == by_hand


def test_points_are_means_of_the_same_trials(staged):
    points = pareto(staged)
    assert set(points["stage"]) == {"final", "compacted", "quantised"}
    assert set(points["cost"]) == {"bytes"}, "the tested rows hold no count of non-zeros"
    final, small = (points[(points["stage"] == s) & (points["cell"] == 1)].iloc[0] for s in ("final", "compacted"))
    assert small["x"] == pytest.approx(final["x"] / 4)
    assert small["mean"] == final["mean"]
    assert small["n"] == 2
    assert not final["front"], "its compacted self costs less and is as good"
    x, y = steps(points[points["front"]])
    assert x == sorted(x)
    assert y == sorted(y)


def test_figure_and_page_have_it_and_other_runs_do_not(staged, small_run):
    assert "pareto.svg" in {p.name for p in write_figures(staged, formats=("svg",), only=["pareto"])}
    shown = payload(staged)["pareto"]
    assert len(shown["cell"]) == len(shown["front"]) == len(pareto(staged))
    assert json.dumps(shown["front"]) in page(payload(staged)).replace(",", ", ")
    assert set(payload(small_run)["pareto"]["cost"]) == {"nonzero"}, "zeros in place make neither file nor call cheaper"
    small_run.records = small_run.records[small_run.records["metric"] != "nonzero"]
    assert payload(small_run)["pareto"] is None
