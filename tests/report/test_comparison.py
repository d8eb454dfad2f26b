"""Comparing runs: pairs where seeds match, what is said where they do not, and the tables and pages made of it."""

import re
import shutil

import numpy as np
import pytest
from fakerun import Made, make_run, write_run

import prunescope as ps
from commands import prunescope
from prunescope.report.comparison import flat
from prunescope.report.comparisontext import comparison_markdown, comparison_page, comparison_rows, verdicts, write_comparison
from prunescope.results import stats
from prunescope.types import ConfigError, DataError

VARIANTS = {"baseline": ((None,), False), "weights": ((0.5, 0.9), False)}


def one(folder, name="a", shift=0.0, **changes):
    made = Made(**{"variants": VARIANTS, "groups": ("",), "seeds": 5, "epochs": 1, "finetune": 1, "gradients": False} | changes)
    run = make_run(folder / name, made)
    mine = (run.records["metric"] == "accuracy") & (run.records["phase"] == "final")
    rng = np.random.default_rng(len(name))
    run.records.loc[mine, "value"] += shift + 0.002 * rng.normal(size=mine.sum())
    return run


def of_setting(records, variant, sparsity):
    rows = records[(records["metric"] == "accuracy") & (records["phase"] == "final") & (records["split"] == "test")]
    rows = rows[(rows["variant"] == variant) & (rows["sparsity"].fillna(-1) == (-1 if np.isnan(sparsity) else sparsity))]
    return rows.set_index("seed")["value"]


def accuracy(found):
    return found.table[found.table["metric"] == "accuracy"].reset_index(drop=True)


def test_differences_are_paired_by_seed(tmp_path):
    first, second = one(tmp_path), one(tmp_path, "bb", shift=-0.05)
    found = accuracy(ps.compare(first, second))
    assert found["paired"].all()
    assert found["n"].tolist() == [5, 5, 5]
    for row in found.itertuples():
        mine, theirs = (of_setting(r.records, row.variant, row.sparsity) for r in (second, first))
        by_hand = mine - theirs
        assert row.difference == pytest.approx(by_hand.mean())
        assert row.median == pytest.approx(by_hand.median())
        low, high = stats.bootstrap_interval(by_hand)
        assert (row.low, row.high) == pytest.approx((float(low), float(high)))
        assert row.difference == pytest.approx(row.of_run - row.of_reference)
    assert ps.compare(first, second).table.equals(ps.compare(first, second).table), "the bootstrap is seeded"
    assert verdicts(ps.compare(first, second, metrics=["accuracy"])) == [
        "test accuracy [%]: of 3 shared settings bb is better in 0, worse in 3, not told apart in 0."
    ]


def test_seeds_without_a_partner_are_left_out_and_it_is_said(tmp_path):
    found = ps.compare(one(tmp_path), one(tmp_path, "bb", seeds=3))
    assert accuracy(found)["n"].tolist() == [3, 3, 3]
    assert accuracy(found)["n_reference"].tolist() == [5, 5, 5]
    notes = " ".join(found.notes)
    assert "some seeds have no partner in the other run: they are left out" in notes
    assert "With 3 pairs an interval holds the truth at most 75 % of the time" in notes


def test_without_common_seeds_it_is_unpaired_and_says_so(tmp_path):
    second = one(tmp_path, "bb", shift=-0.05)
    for frame in (second.records, second.trials):
        frame["seed"] += 100
    found = ps.compare(one(tmp_path), second)
    row = accuracy(found).iloc[0]
    assert not row["paired"]
    assert np.isnan(row["median"])
    assert row["low"] < row["difference"] < row["high"] < 0
    assert "are UNPAIRED: no seed of the setting is in both runs" in " ".join(found.notes)
    assert comparison_rows(found, "accuracy")[1][0][-1] == "unpaired, 5 and 5"


def test_unpaired_intervals_cover_the_truth():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(300):
        a, b = rng.normal(1, 1, 8), rng.normal(0, 2, 12)
        about = stats.unpaired_difference(a, b, resamples=1000)
        inside += about["low"] <= 1 <= about["high"]
    assert 0.91 <= inside / 300 <= 0.99


def test_information_is_compared_layer_by_layer_at_the_last_moment(tmp_path):
    found = ps.compare(one(tmp_path), one(tmp_path, "bb"), metrics=["mi_label"])
    assert found.table["layer"].unique().tolist() == ["h1", "h2", "h3", "output"]
    assert len(found.table) == 3 * 4
    assert set(found.table["unit"]) == {"bits"}
    assert (found.table["difference"] == 0).all(), "the information of both is the same"


def test_what_differs_between_the_runs_is_told(tmp_path):
    first, second = one(tmp_path), one(tmp_path, "bb", variants=VARIANTS | {"more": ((0.5,), False)})
    second.experiment["config"] = {"data": {"name": "mnist"}, "variant": [{"name": "more", "prune": {"when": "init"}}]}
    second.trials.loc[0, ["status", "reason"]] = ["failed", "killed"]
    notes = " ".join(ps.compare(first, second).notes)
    assert "Only in bb: more" in notes
    assert "bb differs from a in data.name (digits → mnist), variant.more.name (not set → more), variant.more.prune.when" in notes
    assert "pairing neither helps nor harms" in notes
    assert "bb: 1 of 20 trials have no results." in notes
    assert flat({"a": [{"name": "x", "b": 1}], "c": []}) == {"a.x.name": "x", "a.x.b": 1, "c": []}


def test_mistakes_are_one_sentence(tmp_path):
    first = one(tmp_path)
    with pytest.raises(ConfigError, match="two runs or more, got 1"):
        ps.compare(first)
    with pytest.raises(ConfigError, match="the same run folder twice"):
        ps.compare(first, first)
    with pytest.raises(ConfigError, match="unknown metric 'acuracy': did you mean 'accuracy'"):
        ps.compare(first, one(tmp_path, "bb"), metrics=["acuracy"])
    with pytest.raises(DataError, match=r"a and bb: no \(group, variant, sparsity\) .* bb has other"):
        ps.compare(first, one(tmp_path, "bb", variants={"other": ((0.3,), False)}))
    with pytest.raises(ConfigError, match=r"ends in \.html, \.md, \.csv"):
        write_comparison(ps.compare(first, one(tmp_path, "bb")), tmp_path / "table.txt")


def test_page_and_tables_hold_names_as_text(tmp_path):
    name = "<img src=x onerror=alert(1)>|\"'"
    runs = [one(tmp_path, f"{n}<b>|", variants={name: ((0.5,), False)}) for n in ("a", "bb", "ccc")]
    found = ps.compare(*runs)
    assert found.runs == ["a<b>|", "bb<b>|", "ccc<b>|"]
    page, table = comparison_page(found), comparison_markdown(found)
    for text in (page, table):
        assert "<img" not in text
        assert "<b>" not in text
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page
    assert page.count("<svg") == len(found.table)
    cells = [re.split(r"(?<!\\)\|", line) for line in table.splitlines() if line.startswith("| ") and "img" in line]
    assert {len(c) for c in cells} == {9}
    written = write_comparison(found, tmp_path / "out" / "all.csv")
    assert len(written.read_text().splitlines()) >= 1 + len(found.table)


def test_command_compares_cites_and_draws(tmp_path, monkeypatch, capsys):

    made = Made(variants=VARIANTS, groups=("",), seeds=2, epochs=1, finetune=0)
    first = write_run(tmp_path / "first", made)
    shutil.copytree(first, tmp_path / "second")
    for run in (first, tmp_path / "second"):
        (run / "trials" / "00201" / "records.parquet").write_bytes(b"PAR1")

    def call(*words):
        return prunescope(monkeypatch, *words), *capsys.readouterr()

    code, out, _ = call("compare", first, tmp_path / "second", "--metric", "accuracy", "--out", tmp_path / "c.html")
    assert code == 0
    assert "test accuracy [%]" in out
    assert "second has the settings of first" in " ".join(out.split())
    assert (tmp_path / "c.html").read_text().startswith("<!doctype html>")
    assert call("compare", first, tmp_path / "second", "--out", "c.txt")[0] == 2
    assert call("compare", first)[0] == 2
    code, out, err = call("figures", first, "--format", "svg", "--width", "8.25cm", "--only", "plane", "--out", tmp_path / "figs")
    assert (code, out.split()) == (0, [str(tmp_path / "figs" / "plane-binning.svg")])
    assert "cannot be read" in err
    assert "sparsity" in call("figures", first, "--list")[1].split()
    assert call("figures", first, "--width", "3 feet")[0] == 2
    code, out, _ = call("cite", first)
    assert code == 0
    assert "@misc{shwartzziv2017," in out
    assert call("cite")[1].count("@") == 1
    assert call("cite", tmp_path)[0] == 1
