"""Latency by back-end: points by stage, and the sparsity from which on a pruned network is faster, by hand."""

import json

import numpy as np
import pytest
from fakerun import Made, write_run

from prunescope.report.backends import backend_points, crossings, figure
from prunescope.report.drawing import styles
from prunescope.report.payload import payload
from prunescope.report.tables import cells
from prunescope.results.store import Run, read_records, write_records

MADE = Made(variants={"dense": ((None,), False), "weights": ((0.5, 0.9), False)}, groups=("",), seeds=2, epochs=1, finetune=0)


def timed(folder):
    """The dense network takes 10 ms, 30 in the sparse format; pruned in the sparse format 20 - 4 seed at 50 % and 4 at 90 %."""
    write_run(folder, MADE, baseline="dense")
    for place in sorted((folder / "trials").iterdir()):
        frame = read_records([place / "records.parquet"])
        first = frame.iloc[0]
        sparse = 30.0 if first["variant"] == "dense" else 20.0 - 4 * first["seed"] if first["sparsity"] == 0.5 else 4.0
        for backend, value in (("eager", 10.0), ("csr", sparse), ("absent", np.nan)):
            told = json.dumps({"backend": backend, "sparse": backend == "csr", "batch_size": 64})
            row = {"metric": "backend_ms", "phase": "final", "value": value, "unit": "ms", "n": 9, "split": "", "layer": ""}
            frame.loc[len(frame)] = {**first.to_dict(), **row, "parameters": told}
        write_records(place / "records.parquet", frame)
    return Run(folder)


def test_break_even_is_found_by_seed_with_a_margin_of_five_per_cent(tmp_path):
    run = timed(tmp_path / "run")
    points = backend_points(run)
    assert set(points["backend"]) == {"eager", "csr"}, "what could not be timed has no point"
    assert points.set_index(["cell", "backend"])["mean"].to_dict()[1, "csr"] == 18.0
    found = crossings(run).set_index("backend")
    assert found.loc["eager", "crossed"] == 0, "the same time is no gain"
    by_seed = [0.5 + 0.4 * (high - 9.5) / (high - 4.0) for high in (20.0, 16.0)]
    assert found.loc["csr", ["first", "last"]].tolist() == pytest.approx(sorted(by_seed))
    assert found.loc["csr", ["crossed", "seeds"]].tolist() == [2, 2]
    assert payload(run)["backends"]["batch"] == "64"
    known = cells(run)
    labels = [t.get_text() for t in figure(points, known, styles(known["variant"].tolist(), "dense"), "dense").legends[0].get_texts()]
    assert labels == ["dense, as trained, eager", "dense, as trained, csr", "weights, as trained, eager", "weights, as trained, csr"]


def test_runs_without_back_ends_have_no_section(tmp_path):
    write_run(tmp_path / "run", MADE, baseline="dense")
    run = Run(tmp_path / "run")
    assert backend_points(run) is None
    assert crossings(run) is None
    assert payload(run)["backends"] is None
