"""Every registered estimator has a section in docs/science/estimators with its formula, its failure and a figure of that failure."""

import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

import prunescope.information
from prunescope.registry import estimators

for module in pkgutil.iter_modules(prunescope.information.__path__):
    importlib.import_module(f"prunescope.information.{module.name}")

ROOT = Path(__file__).parent.parent.parent
PAGES = ROOT / "docs" / "science" / "estimators"
ENTRIES = [pytest.param(e, id=e.name) for e in estimators]
PARTS = ("Measures", "Formula", "Source", "Parameters", "Consistent", "Fails")
CHEAP = ("discrete", "cca", "quantised", "ksg-lnc", "kl-entropy")  # figures measured again here, a few seconds each
IMAGE = re.compile(r"!\[[^\]]*\]\((\.\./\.\./images/estimators/([\w-]+)\.png)\)")


def words(text: str) -> str:
    return " ".join(text.split())


@cache
def sections() -> dict[str, tuple[Path, str]]:
    """The page and the text of each second-level heading of the family pages."""
    found = {}
    for page in sorted(PAGES.glob("*.md")):
        if page.name == "README.md":
            continue
        for part in re.split(r"^## ", page.read_text(), flags=re.MULTILINE)[1:]:
            heading, _, text = part.partition("\n")
            assert heading not in found, f"{heading} stands twice in the pages"
            found[heading] = page, text
    return found


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_docstring_says_when_it_fails_whence_it_comes_and_where_the_figure_is(entry):
    text = words(inspect.getdoc(entry.function) or "")
    assert re.search(r"\bFails\b", text), "no word on when it fails"
    assert f"Source: {words(entry.source)}." in text, "the docstring's source is not the registered one"
    link = re.search(r"docs/science/estimators/([\w-]+\.md)#([\w-]+)", text)
    assert link, "no pointer to its page"
    page, anchor = link.groups()
    assert anchor == entry.name
    assert sections()[entry.name][0].name == page


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_section_is_complete(entry):
    assert entry.name in sections(), f"docs/science/estimators has no section '## {entry.name}'"
    text = sections()[entry.name][1]
    for part in PARTS:
        assert f"- **{part}**: " in text, f"no line '- **{part}**: '"
    said = {part: words(re.search(rf"- \*\*{part}\*\*: (.*?)(?=\n- \*\*|\n\n|\Z)", text, re.DOTALL)[1]) for part in PARTS}
    assert "nats" in said["Measures"] or "bits" in said["Measures"]
    assert "$" in said["Formula"] or "page" in said["Formula"] or "rule" in said["Formula"]
    assert said["Source"] == f"{words(entry.source)}."
    missing = [name for name in entry.options if name != "generator" and f"`{name}`" not in said["Parameters"]]
    assert not missing, f"parameters without a word: {missing}"
    assert said["Consistent"].startswith("yes" if entry.traits["consistent"] else "no")


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_section_shows_a_figure_that_is_there(entry):
    page, text = sections()[entry.name]
    shown = IMAGE.findall(text) or IMAGE.findall(page.read_text())
    assert shown, "no figure in the section or on its page"
    named = set(re.findall(r"\[figure\]\(#([\w-]+)\)", text))
    assert IMAGE.findall(text) or named, "neither a figure nor a link to the section that has it"
    assert all(IMAGE.findall(sections()[name][1]) for name in named)
    for target, _ in shown:
        assert (page.parent / target).stat().st_size > 5_000


def test_the_index_names_every_estimator_and_no_other():
    links = re.findall(r"\[([\w-]+)\]\(([\w-]+\.md)#([\w-]+)\)", (PAGES / "README.md").read_text())
    assert {name for name, _, _ in links} == {e.name for e in estimators}
    for name, page, anchor in links:
        assert name == anchor
        assert sections()[name][0].name == page
    assert set(sections()) == {e.name for e in estimators}


def captions() -> list:
    found = []
    for page in sorted(PAGES.glob("*.md")):
        for match in IMAGE.finditer(page.read_text()):
            caption = re.match(r"\n\n((?:> .*\n)+)", page.read_text()[match.end() :])
            assert caption, f"{page.name}: the figure {match[2]} has no caption (lines that begin with '> ' below it)"
            found.append(pytest.param(match[2], caption[1], id=f"{page.stem}-{match[2]}"))
    return found


@cache
def table() -> pd.DataFrame:
    return pd.read_csv(PAGES / "measured.csv")


@pytest.mark.parametrize(("figure", "caption"), captions())
def test_bold_numbers_of_a_caption_are_those_of_the_figure(figure, caption):
    """Medians that the script measured, to the places that the caption gives."""
    numbers = re.findall(r"\*\*([+-]?[\d.]+)\*\*", caption)
    assert len(numbers) >= 2, "a caption says what was measured"
    medians = table().loc[table()["figure"] == figure, "median"]
    for number in numbers:
        places = len(number.partition(".")[2])
        near = 0.5 * 10.0**-places * (1 + 1e-6)
        assert ((medians - float(number)).abs() <= near).any(), f"{number} is no median of figure {figure}: run the script again"


@cache
def script():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location("estimator_failures", ROOT / "benchmarks" / "estimator_failures.py")
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = loaded  # dataclasses look their module up
        spec.loader.exec_module(loaded)
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return loaded


def test_every_figure_of_the_script_is_shown_and_measured():
    shown = {name for page in PAGES.glob("*.md") for _, name in IMAGE.findall(page.read_text())}
    assert shown == set(script().FIGURES) == set(table()["figure"])
    assert shown == {path.stem for path in (ROOT / "docs" / "images" / "estimators").iterdir()}


@pytest.mark.parametrize("figure", CHEAP)
def test_the_table_holds_what_the_code_gives_now(figure):
    """One position of each panel is measured again: the figures do not lag behind the estimators."""
    panels = script().FIGURES[figure]()
    measured = sys.modules["failure_panels"].measured
    known = table()[table()["figure"] == figure]
    for panel in panels:
        for curve in panel.curves:
            x = panel.at[len(panel.at) // 2]
            here = (known["panel"] == panel.title) & (known["curve"] == curve.label) & ((known["x"] - x).abs() <= 1e-3 * abs(x))
            (row,) = known[here].index
            values = sorted(measured(panel, curve, x, seed)[0] for seed in range(panel.seeds))
            for name, value in (("lowest", values[0]), ("highest", values[-1]), ("median", values[len(values) // 2])):
                assert known.loc[row, name] == pytest.approx(value, rel=1e-4, abs=1e-6), f"{panel.title}, {curve.label}, {name}"
