"""The figure files: which are written, that they are what they say, that names are plain text in them."""

import xml.etree.ElementTree as ElementTree

import pytest
from fakerun import Made, make_run

from prunescope.report import write_figures
from prunescope.report.figures import slug
from prunescope.types import ConfigError, StoreError


def test_each_figure_is_written_in_each_format(small_run):
    written = write_figures(small_run)
    names = {p.name for p in written}
    for stem in ("plane-binning", "information-binning", "epochs", "gradients", "sparsity", "weights-weights-90", "layers"):
        assert {f"{stem}.svg", f"{stem}.png"} <= names
    for path in written:
        assert path.parent == small_run.folder / "figures"
        if path.suffix == ".svg":
            ElementTree.parse(path)
        else:
            assert path.read_bytes().startswith(b"\x89PNG")
    assert {p.name for p in (small_run.folder / "figures").iterdir()} == names


def test_the_same_run_gives_the_same_bytes(small_run, tmp_path):
    first, second = (write_figures(small_run, tmp_path / name, formats=("svg",)) for name in ("a", "b"))
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
