"""References: every part with a paper has an entry, the entries agree with the registry, and a run cites what it used and no more."""

import re

import pytest
from fakerun import Made, make_run

from prunescope import catalogue, cite
from prunescope.report import citation

KINDS = {
    "criterion": "criteria", "estimator": "estimators", "allocation": "allocations", "granularity": "granularities",
    "schedule": "schedules",
}  # fmt: skip
ENTRIES = [(kind, name, source) for kind, plural in KINDS.items() for name, _, source in catalogue.rows(plural)]


@pytest.mark.parametrize(("kind", "name", "source"), ENTRIES, ids=[f"{k} {n}" for k, n, _ in ENTRIES])
def test_each_part_that_names_a_paper_has_its_entry(kind, name, source):
    mine = citation.sources((kind, name))
    assert len(mine) >= (1 if re.search(r"\b(18|19|20)\d\d\b", source) else 0), f"{kind} {name}: {source!r} is not in references.bib"
    for reference in mine:
        surname = re.split(r"[ ,]", citation.plain(reference.fields["author"]).replace("van den ", "").replace("Sanchez ", ""))[0]
        assert surname in source, f"{reference.key} is not what {source!r} names"
        assert reference.fields["year"] in source, f"{reference.key}: its year is not that of {source!r}"


def test_keywords_name_things_that_exist():
    known = {(kind, name) for kind, name, _ in ENTRIES} | {("data", name) for name, _, _ in catalogue.rows("datasets")}
    known |= {("when", "rewind"), ("growth", "set"), ("growth", "rigl")}
    for reference in citation.references():
        assert reference.parts <= known, reference.key
        assert reference.parts, f"{reference.key} is cited for nothing"


def test_entries_are_whole_and_written_once():
    found = citation.references()
    assert len({r.key for r in found}) == len(found)
    text = citation.resources.files("prunescope.report").joinpath("references.bib").read_text(encoding="utf-8")
    assert text.count("\n@") == len(found), "each entry is one that the reader of the file finds"
    for r in found:
        assert {"author", "title", "year"} <= set(r.fields), r.key
        assert {"journal", "booktitle", "publisher", "howpublished", "eprint"} & set(r.fields), r.key
        assert r.bibtex.count("{") == r.bibtex.count("}"), r.key
        assert "doi" not in r.fields


def test_a_run_cites_what_it_used_and_no_more(tmp_path):
    made = Made(variants={"baseline": ((None,), False), "neurons": ((0.5,), False)}, groups=("",), seeds=1, epochs=1, estimators=("kde",))
    planned = [("neurons", {"when": "iterative", "criterion": "snip"}), ("never run", {"when": "rewind"})]
    config = {"data": {"name": "mnist"}, "variant": [{"name": name, "prune": prune} for name, prune in planned]}
    run = make_run(tmp_path, made, config=config, versions={"prunescope": "0.9.9}\n@evil{"})
    run.records["criterion"] = run.records["variant"].map({"baseline": "", "neurons": "mine:<b>\n}@x{"})
    text = cite(run)
    keys = re.findall(r"^@\w+\{([\w-]+),", text, flags=re.MULTILINE)
    assert keys[0] == "prunescope"
    assert {"kolchinsky2017", "saxe2018", "lecun1998", "frankle2019", "li2017"} <= set(keys)
    assert not {"lee2019", "hu2016", "kraskov2004"} & set(keys)
    assert "version = {0.9.9evil}" in text
    assert "@x" not in text
    assert re.search(r"^% no paper is named for: .*mine:", text, flags=re.MULTILINE)


@pytest.mark.parametrize("config", [None, 3, {"variant": 5, "prune": [], "data": "x"}, {"variant": ["a", {"name": 1}]}])
def test_damaged_configs_still_cite(tmp_path, config):
    run = make_run(tmp_path, Made(groups=("",), seeds=1, epochs=1), config=config)
    assert "shwartzziv2017" in cite(run)
