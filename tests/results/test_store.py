"""The run folder: written beside and renamed, read with patience, never a traceback."""

import errno
import json

import numpy as np
import pandas as pd
import pytest

from prunescope import results
from prunescope.results import files, schema, store
from prunescope.results.schema import Record
from prunescope.types import ConfigError, PrunescopeError, StoreError

TRIAL = {
    "experiment": "e", "trial": "h0", "group": "", "variant": "v", "criterion": "magnitude", "granularity": "weight",
    "allocation": "uniform", "sparsity": 0.5, "seed": 0,
}  # fmt: skip


def records(value: float = 0.5) -> pd.DataFrame:
    return schema.frame([Record("loss", value, "nats", "final", n=3), Record("accuracy", 1.0, "fraction", "final", stderr=0.1)], TRIAL)


@pytest.fixture
def folder(tmp_path):
    """A run of three planned trials: one finished, one failed, one never begun."""
    planned = [{"hash": f"h{i}", "group": "", "variant": "v", "sparsity": 0.5, "seed": i} for i in range(3)]
    files.write_json(tmp_path / "experiment.json", {"schema": 1, "name": "e", "trials": planned})
    store.write_records(tmp_path / "trials" / "h0" / "records.parquet", records())
    files.write_json(tmp_path / "trials" / "h0" / "trial.json", {"status": "finished", "seconds": 1.5})
    files.write_json(tmp_path / "trials" / "h1" / "trial.json", {"status": "failed", "reason": "ValueError: x"})
    return tmp_path


def test_records_round_trip_exactly(tmp_path):
    table = records(np.nextafter(0.1, 1))
    path = tmp_path / "it's here" / "r.parquet"
    store.write_records(path, table)
    pd.testing.assert_frame_equal(store.read_records(path), table)
    assert list(table.columns) == list(schema.COLUMNS)
    assert table["n"].isna().tolist() == [False, True]


def test_a_run_says_what_is_there(folder):
    run = results.load(folder)
    assert run.trials["status"].tolist() == ["finished", "failed", "missing"]
    assert run.trials["reason"].tolist()[1] == "ValueError: x"
    assert len(run.records) == 2
    assert not run.problems
    assert "1 finished" in repr(run)


@pytest.mark.parametrize("damage", [b"", b"PAR1 nonsense", b"\x00" * 100])
def test_one_damaged_file_does_not_hide_the_others(folder, damage):
    files.write_json(folder / "trials" / "h1" / "trial.json", {"status": "finished"})
    (folder / "trials" / "h1" / "records.parquet").write_bytes(damage)
    run = results.load(folder)
    assert len(run.records) == 2
    assert any("h1" in p and "cannot be read as records" in p for p in run.problems)
    assert run.trials["status"].tolist() == ["finished", "damaged", "missing"]
    assert not store.TrialFolder(folder / "trials" / "h1").finished(), "a trial whose records are gone is run again"


@pytest.mark.parametrize("text", ["", "{", "[1]", '"x"', "{\"a\": \xff"])
def test_damaged_status_is_said(folder, text):
    (folder / "trials" / "h1" / "trial.json").write_text(text, encoding="latin-1")
    run = results.load(folder)
    assert run.trials["status"].tolist()[1] == "damaged"
    assert run.problems


def test_other_columns_and_other_schema_are_said(folder):
    other = folder / "trials" / "h1" / "records.parquet"
    files.write_beside(other, lambda p: store.duckdb.sql(f"COPY (SELECT 1 AS a) TO '{p}' (FORMAT parquet)"))
    with pytest.raises(StoreError, match="without the columns experiment"):
        store.read_records(other)
    content = json.loads((folder / "experiment.json").read_text())
    files.write_json(folder / "experiment.json", {**content, "schema": 99})
    assert "schema 99" in results.load(folder).problems[0]


def test_not_a_run_folder(tmp_path):
    with pytest.raises(StoreError, match="not a run folder"):
        results.load(tmp_path)
    (tmp_path / "experiment.json").write_text("{")
    with pytest.raises(StoreError, match="cannot be read as JSON"):
        results.load(tmp_path)


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "f.json"
    files.write_json(path, {"a": 1})

    def full(temporary):
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StoreError, match=r"f\.json: could not be written \(No space left on device\)"):
        files.write_beside(path, full)
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["f.json"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="give another folder with --out"):
        files.write_json(tmp_path / "file" / "experiment.json", {})


@pytest.mark.parametrize("format", ["csv", "json", "parquet"])
def test_export_reads_back(folder, format):
    run = results.load(folder)
    path = store.export_records(run, format)
    reader = {"csv": pd.read_csv, "json": pd.read_json, "parquet": store.read_records}[format]
    assert reader(path)["value"].tolist() == run.records["value"].tolist()
    with pytest.raises(ConfigError, match="unknown format"):
        store.export_records(run, "xlsx")


def test_every_store_error_is_ours(folder):
    (folder / "experiment.json").unlink()
    with pytest.raises(PrunescopeError):
        results.load(folder)


def test_a_file_that_another_run_sweeps_up_while_it_is_written_is_written_again(tmp_path):
    """A run that starts finds itself alone and removes what looks like a killed one's; another has just begun, and is no runner yet."""
    tries = []

    def write(temporary, swept):
        tries.append(temporary)
        temporary.write_text("whole")
        if len(tries) <= swept:
            files.sweep(tmp_path, ("experiment.json",))

    files.write_beside(tmp_path / "experiment.json", lambda p: write(p, swept=2))
    assert len(tries) == 3
    assert (tmp_path / "experiment.json").read_text() == "whole"
    with pytest.raises(StoreError, match="could not be written"):
        files.write_beside(tmp_path / "experiment.json", lambda p: write(p, swept=1000))
    assert [p.name for p in tmp_path.iterdir()] == ["experiment.json"]
