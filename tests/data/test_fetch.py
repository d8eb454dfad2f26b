"""Downloads, from a server on this machine that serves small made-up files."""

import functools
import hashlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from prunescope.data import available, fetch, get
from prunescope.data.sources import SOURCES, Source
from prunescope.types import ConfigError, DataError

CONTENT = {"a.gz": b"first" * 100, "b.gz": b"second" * 70}


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder and remembers what was asked for."""

    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "served"
    folder.mkdir()
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    (folder / "wrong").mkdir()
    (folder / "wrong" / "a.gz").write_bytes(b"something else")
    Handler.asked = []
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}/"
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder; no other folder is searched, no proxy used."""
    monkeypatch.delenv("PRUNESCOPE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetch, "TIMEOUT", 2)
    return tmp_path / "data"


def publish(monkeypatch: pytest.MonkeyPatch, *mirrors: str) -> None:
    sources = tuple(Source(n, hashlib.sha256(c).hexdigest(), len(c), mirrors) for n, c in CONTENT.items())
    monkeypatch.setitem(SOURCES, "mnist", sources)


def test_files_are_fetched_once_and_found_again(server: str, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, server)
    before = {row.name: row for row in available(target)}["mnist"]
    assert (before.found, before.where, before.size) == (False, "prunescope data get mnist", 920)
    paths = get("mnist", target)
    assert [p.read_bytes() for p in paths] == list(CONTENT.values())
    assert [p.parent for p in paths] == [target / "mnist"] * 2
    assert get("mnist", target) == paths
    assert Handler.asked == ["/a.gz", "/b.gz"]
    after = {row.name: row for row in available(target)}["mnist"]
    assert (after.found, after.where, after.size) == (True, str(target / "mnist"), 920)
    assert sorted(p.name for p in (target / "mnist").iterdir()) == ["a.gz", "b.gz"]  # no temporary file is left


def test_progress_is_shown_unless_it_is_not_wanted(
    server: str, target: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    publish(monkeypatch, server)
    get("mnist", target, progress=False)
    assert capfd.readouterr().err == ""
    for path in (target / "mnist").iterdir():
        path.unlink()
    get("mnist", target)
    assert "100%" in capfd.readouterr().err


def test_only_damaged_files_are_fetched_again(server: str, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, server)
    get("mnist", target)
    (target / "mnist" / "a.gz").write_bytes(b"x" * 500)
    Handler.asked.clear()
    get("mnist", target)
    assert Handler.asked == ["/a.gz"]
    assert (target / "mnist" / "a.gz").read_bytes() == CONTENT["a.gz"]


def test_the_next_mirror_is_tried(server: str, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, "http://127.0.0.1:9/", server + "nothing/", server + "wrong/", server)
    assert [p.read_bytes() for p in get("mnist", target)] == list(CONTENT.values())


def test_files_go_to_the_variable_then_to_the_cache(server: str, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, server)
    assert target.parent / "cache" in get("mnist")[0].parents
    monkeypatch.setenv("PRUNESCOPE_DATA", str(target))
    for path in (target.parent / "cache").rglob("*.gz"):
        path.unlink()
    assert get("mnist")[0].parent == target / "mnist"


@pytest.mark.parametrize(
    ("mirror", "message"),
    [
        ("http://127.0.0.1:9/", r"no connection to 127\.0\.0\.1:9"),
        ("{server}nothing/", "answered: 404"),
        ("{server}wrong/", "checksum mismatch"),
    ],
)
def test_one_sentence_when_nothing_comes(
    server: str, target: Path, monkeypatch: pytest.MonkeyPatch, mirror: str, message: str
) -> None:
    publish(monkeypatch, mirror.format(server=server))
    with pytest.raises(DataError, match=message) as error:
        get("mnist", target)
    text = str(error.value)
    assert "\n" not in text
    assert "mnist: a.gz could not be fetched" in text
    assert "`-s data.name=digits`" in text
    assert list((target / "mnist").iterdir()) == []  # neither wrong bytes nor a temporary file are left


def test_a_folder_that_cannot_be_made(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, "http://127.0.0.1:9/")
    target.write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"cannot be written \(Not a directory\): choose another folder with --data-dir"):
        get("mnist", target)


def test_a_folder_without_permission(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, "http://127.0.0.1:9/")
    monkeypatch.setattr(fetch.os, "access", lambda *_: False)  # root, who may run this, may write anywhere
    with pytest.raises(DataError, match=r"cannot be written \(no permission to write\)"):
        get("mnist", target)


def test_a_disk_that_fills_up(server: str, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    publish(monkeypatch, server)
    monkeypatch.setattr(pooch, "retrieve", full)
    with pytest.raises(DataError, match="No space left on device"):
        get("mnist", target)


def test_sets_without_download_and_unknown_ones(target: Path) -> None:
    assert get("digits", target) == []
    with pytest.raises(ConfigError, match="did you mean 'mnist'"):
        get("minst", target)


def test_published_files_are_listed_with_their_checksums() -> None:
    for sources in SOURCES.values():
        assert len({s.sha256 for s in sources}) == len(sources) == 4
        for source in sources:
            assert len(source.sha256) == 64
            assert len(source.mirrors) >= 2
            assert all(mirror.endswith("/") for mirror in source.mirrors)
