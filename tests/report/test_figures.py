"""The figure files: which are written, that they are what they say, that names are plain text in them."""

import re
import xml.etree.ElementTree as ElementTree

import pytest
from fakerun import Made, make_run

import prunescope as ps
from prunescope.report import figure_names, write_figures
from prunescope.report.figures import in_inches, slug
from prunescope.types import ConfigError, StoreError


def test_each_figure_is_written_in_each_format(small_run):
    written = write_figures(small_run, formats=("svg",)) + write_figures(small_run, only=["plane"])
    names = {p.name for p in written}
    assert names == {f"{name}.svg" for name in figure_names(small_run)} | {"plane-binning.png"}
    assert {"plane-binning", "information-binning", "epochs", "gradients", "sparsity", "layers"} <= set(figure_names(small_run))
    for path in written:
        assert path.parent == small_run.folder / "figures"
        if path.suffix == ".svg":
            ElementTree.parse(path)
        else:
            assert path.read_bytes().startswith(b"\x89PNG")
    assert {p.name for p in (small_run.folder / "figures").iterdir()} == names


def test_the_same_run_gives_the_same_bytes(small_run, tmp_path):
    first, second = (write_figures(small_run, tmp_path / name, ("svg", "pdf"), only=["plane"]) for name in ("a", "b"))
    assert len(first) == 2
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_names_with_markup_and_dollars_are_plain_text(tmp_path):
    odd = "a/b <c> & $x_{$ \\frac"
    made = Made(variants={odd: ((None,), False), "../b": ((0.5,), False)}, groups=("",), seeds=1, epochs=1, layers=(odd, "z"))
    for path in write_figures(make_run(tmp_path, made, baseline=odd), formats=("svg",)):
        assert path.parent == tmp_path / "figures"
        ElementTree.parse(path)


def test_without_records_there_are_no_figures(small_run):
    small_run.records = small_run.records[:0]
    assert write_figures(small_run) == []


def test_formats_and_places_are_checked(small_run, tmp_path):
    with pytest.raises(ConfigError, match="'gif': expected any of svg, png, pdf"):
        write_figures(small_run, formats=("gif",))
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write_figures(small_run, tmp_path / "file")


def test_slugs_hold_no_path():
    assert slug("..", "a/../b", "x\0y") == "a-..-b-x-y"


def test_figures_for_papers_are_as_wide_as_asked_and_hold_their_fonts(small_run, tmp_path):
    kinds = ("pdf", "svg", "png")
    written = ps.figures(small_run, tmp_path / "paper", format=kinds, width="3.25in", only=["plane", "sparsity", "pareto"])
    assert [p.name for p in written] == [f"{n}.{k}" for n in ("plane-binning", "sparsity", "pareto") for k in kinds]
    for path in written:
        raw = path.read_bytes()
        if path.suffix == ".pdf":
            assert re.search(rb"/MediaBox \[ 0 0 234 ", raw)
            assert b"/FontFile2" in raw, "TrueType, embedded"
            assert b"/Type3" not in raw
        elif path.suffix == ".svg":
            root = ElementTree.fromstring(raw)
            assert root.get("width") == "234pt"
            assert not [e for e in root.iter() if e.tag.endswith("text")], "letters are outlines: no font is needed"
        else:
            assert int.from_bytes(raw[16:20], "big") == 975, "300 dots an inch"


def test_figure_names_say_what_there_is(small_run, tmp_path):
    names = figure_names(small_run)
    assert {"plane-binning", "information-binning", "epochs", "sparsity", "pareto", "weights-weights-90", "layers"} <= set(names)
    with pytest.raises(ConfigError, match=r"unknown figure 'plain': did you mean .*plane"):
        ps.figures(small_run, tmp_path, only=["plain"])


@pytest.mark.parametrize("width", ["3.25", "82.55mm", "8.255 cm", "234pt"])
def test_widths_in_any_unit(width):
    assert in_inches(width) == pytest.approx(3.25)


@pytest.mark.parametrize("width", ["0in", "300in", "wide", "-3in", "3ft"])
def test_widths_that_no_page_has(width):
    with pytest.raises(ConfigError, match=r"expected 1\.5 to 20 inches"):
        in_inches(width)
