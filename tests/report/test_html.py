"""The page as a file: complete, self-contained, inert."""

import base64
import json
import re

import numpy as np
import pytest
from fakerun import Made, frame, make_run

from prunescope.report import write_report
from prunescope.report.html import SCRIPTS, asset, page
from prunescope.report.payload import payload
from prunescope.results import schema
from prunescope.types import StoreError

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"><b>'bold'</b> & \u2028"


def data_of(text):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(found.group(1))


def test_page_holds_the_run_and_needs_nothing_else(run):
    path = write_report(run)
    text = path.read_text(encoding="utf-8")
    assert path == run.folder / "report.html"
    data = data_of(text)
    assert data["about"]["title"] == "A made-up run"
    assert len(data["cells"]["label"]) == 24
    assert len(data["plane"]["series"]) == 120
    outside = re.findall(r"https?://[^\s\"'<)]+", text)
    assert set(outside) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(link|img|iframe|object|embed)\b|@import|url\(", text)
    assert not re.search(r"fetch\(|XMLHttpRequest|eval\(|innerHTML|insertAdjacentHTML", text)
    assert "default-src 'none'" in text
    assert [p.name for p in run.folder.iterdir() if p.name.startswith(".report")] == []


def test_names_from_the_run_cannot_end_the_data(tmp_path):
    made = Made(variants={HOSTILE: ((None,), False), "b": ((0.5,), False)}, groups=(HOSTILE,), seeds=2, epochs=1, layers=(HOSTILE, "z"))
    run = make_run(tmp_path, made, title=HOSTILE, question=HOSTILE, baseline=HOSTILE, notes=[HOSTILE], faults=[HOSTILE])
    text = write_report(run).read_text(encoding="utf-8")
    assert "<img" not in text
    assert text.count("</script>") == 2
    assert data_of(text)["about"]["title"] == HOSTILE


@pytest.mark.parametrize(
    "made", [Made(seeds=1, epochs=0, finetune=0, groups=("",)), Made(information=False, groups=("",), seeds=2, epochs=2)]
)
def test_what_was_not_recorded_is_left_out(tmp_path, made):
    data = data_of(page(payload(make_run(tmp_path, made))))
    assert (data["plane"] is None) == (not made.information)


def test_an_empty_run_still_gives_a_page(tmp_path):
    run = make_run(tmp_path, Made(groups=("",), seeds=1))
    run.records = schema.empty()
    run.trials = run.trials.assign(status="missing", reason=None, seconds=None)
    run.problems = ["trials/00000/records.parquet: cannot be read"]
    data = data_of(write_report(run).read_text(encoding="utf-8"))
    assert len(data["unfinished"]) == 12
    assert data["problems"] == run.problems


def test_infinite_and_missing_numbers_become_null(small_run):
    records = small_run.records
    records.loc[records["metric"] == "loss", "value"] = np.inf
    records.loc[(records["metric"] == "mi_input") & (records["epoch"] == 1), "value"] = np.nan
    data = data_of(page(payload(small_run)))  # json.loads would take NaN: page() refuses to write it
    assert all(v is None for c in data["epochs"]["curves"] if c["metric"] == "loss" for v in c["mean"])


def test_masks_are_checked_before_they_are_embedded(small_run):
    good = base64.b64encode(np.packbits([1, 0, 1, 1, 0, 1])).decode()
    common = {c: small_run.records[c].iloc[-1] for c in ("experiment", "trial", "group", "variant", "sparsity", "seed")}
    bad = [{"shape": [2, 3]}, {"shape": [2, 300], "kept": good}, {"shape": "<b>", "kept": good}, {"shape": [2, 3], "kept": "%%"}]
    texts = [json.dumps(details) for details in ({"shape": [2, 3], "kept": good}, *bad)]
    rows = [common | {"phase": "final", "metric": "mask", "layer": str(i), "value": 1.0, "parameters": t} for i, t in enumerate(texts)]
    named = dict.fromkeys(("criterion", "granularity", "allocation"), "")
    small_run.records = frame([named | row for row in rows])
    assert [(m["layer"], m["shape"], m["kept"]) for m in payload(small_run)["masks"]] == [("0", [2, 3], good)]


def test_a_place_that_cannot_be_written_is_named(small_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"report\.html: cannot be written"):
        write_report(small_run, tmp_path / "file" / "report.html")


def test_scripts_stay_small():
    for name in (*SCRIPTS, "page.css", "page.html"):
        assert len(asset(name).splitlines()) < 400
