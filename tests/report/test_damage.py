"""Run folders with damage: the report is still written, says what is missing, and runs nothing of what is in them."""

import json

import pytest
from fakerun import Made, write_run
from test_html import HOSTILE, data_of

from prunescope.report import write_figures, write_report
from prunescope.results import files, load, store

SMALL = Made(variants={"baseline": ((None,), False), "weights": ((0.5,), False)}, groups=("",), seeds=3, epochs=2, finetune=1)


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "run", SMALL)


def page_of(folder):
    text = write_report(load(folder)).read_text(encoding="utf-8")
    return data_of(text), text


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_text(path):
    """A table of records in which a value is no number."""
    records = store.read_records(path)
    store.write_records(path, records.assign(value=records["value"].astype(str).where(records.index != 3, "n/a")))


def without_a_column(path):
    store.write_records(path, store.read_records(path).drop(columns="metric"))


def test_bad_trials_leave_the_others(tmp_path):
    """Each kind of damage once, in one folder: each is told, and what is whole is in the page."""
    made = Made(variants={"baseline": ((None,), False), "weights": ((0.5,), False)}, groups=("",), seeds=6, epochs=2, finetune=1)
    trials = write_run(tmp_path / "run", made) / "trials"
    cut(trials / "00000" / "records.parquet")
    with_text(trials / "00001" / "records.parquet")
    without_a_column(trials / "00002" / "records.parquet")
    (trials / "00003" / "records.parquet").unlink()
    cut(trials / "00100" / "trial.json")
    (trials / "00101" / "trial.json").write_text("[1]")
    (trials / "00102" / "trial.json").unlink()
    files.write_json(trials / "00103" / "trial.json", {"status": "failed", "reason": "killed", "seconds": "three"})
    data, _ = page_of(tmp_path / "run")
    lost = {(t["variant"], t["seed"]): t["status"] for t in data["unfinished"]}
    assert lost == {("baseline", seed): "damaged" for seed in range(4)} | {
        ("weights", 0): "damaged", ("weights", 1): "damaged", ("weights", 2): "missing", ("weights", 3): "failed"
    }  # fmt: skip
    problems = " ".join(data["problems"])
    for told in (
        "00000/records.parquet: cannot be read as records",
        "00001/records.parquet: a column of the records has the wrong type",
        "00002/records.parquet: records without the columns metric",
        "00003/records.parquet: cannot be read as records",
        "00100/trial.json: cannot be read as JSON",
        "00101/trial.json: expected a JSON object, got list",
    ):
        assert told in problems
    assert data["summary"]["seeds"] == [2, 2]
    assert "8 trials without results" in data["overview"][0][1]
    assert len(data["plane"]["series"]) == 4


def test_unknown_schema_is_told_and_read_as_far_as_it_goes(folder):
    about = json.loads((folder / "experiment.json").read_text())
    (folder / "experiment.json").write_text(json.dumps(about | {"schema": 99, "later": {"a": 1}}))
    data, _ = page_of(folder)
    assert "schema 99, this version reads 1" in data["problems"][0]
    assert data["summary"]["seeds"] == [3, 3]


@pytest.mark.parametrize(
    "odd",
    [
        {"title": 7, "question": None, "notes": "one sentence", "faults": None, "versions": [1], "baseline": ["x"]},
        {"trials": "none", "config": 3},
        {"trials": [3, {"hash": None}, {"seed": "a"}], "command": {"a": "<b>"}},
    ],
    ids=["texts of other types", "no trials", "trials of other types"],
)
def test_an_experiment_file_of_other_types_still_gives_a_page(folder, odd):
    about = json.loads((folder / "experiment.json").read_text())
    (folder / "experiment.json").write_text(json.dumps(about | odd))
    data, _ = page_of(folder)
    assert data["overview"]
    if "trials" in odd:
        assert "trials" in " ".join(data["problems"])


def test_masks_that_cannot_be_read_are_told(folder):
    (folder / "trials" / "00100" / "masks.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{broken")
    data, _ = page_of(folder)
    assert "masks.safetensors: the masks cannot be read" in " ".join(data["problems"])


def test_an_empty_folder_of_results_still_gives_page_and_no_figures(folder):
    for place in (folder / "trials").iterdir():
        (place / "trial.json").unlink()
    data, _ = page_of(folder)
    assert len(data["unfinished"]) == 6
    assert write_figures(load(folder)) == []


NASTY = [
    HOSTILE, "</script><script>document.title='owned'</script>", "<img src=x onerror=alert(1)>", "a\"b'c`${1}\u2028\u2029<!--", "%%script%%"
]  # fmt: skip


def test_nothing_from_a_run_is_markup(tmp_path):
    variants = dict.fromkeys(NASTY, ((None,), False))
    made = Made(variants=variants, groups=(NASTY[1],), seeds=1, epochs=1, layers=tuple(NASTY), estimators=(NASTY[3],))
    told = dict(zip(("title", "question", "command", "toml", "machine"), NASTY, strict=True))
    lists = dict.fromkeys(("notes", "faults", "data_notes"), NASTY)
    folder = write_run(tmp_path / "run", made, **told, **lists, baseline=NASTY[1], versions={n: n for n in NASTY}, created=NASTY[3])
    files.write_json(folder / "trials" / "00100" / "trial.json", {"status": "failed", "reason": NASTY[1]})
    data, text = page_of(folder)
    assert {key: data["about"][key] for key in told} == told
    assert data["unfinished"][0]["reason"] == NASTY[1]
    assert text.count("</script>") == text.count("<script") == 2
    assert "<img" not in text
    assert "<!--" not in text
