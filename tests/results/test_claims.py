"""Claims: one of two has it, what a run that is gone had is free, and no clock is asked."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from prunescope.results import claims
from prunescope.results.claims import CLAIMS, RUNNERS, Runner
from prunescope.types import StoreError


def test_one_of_two_has_it_until_it_gives_it_back(tmp_path):
    with Runner(tmp_path) as one, Runner(tmp_path) as two:
        assert not one.alone()
        assert one.claim("trials/a")
        assert one.claim("trials/a"), "asked again, it is still its own"
        assert not two.claim("trials/a")
        assert two.claim("trials/b")
        one.release("trials/a")
        assert two.claim("trials/a")
    assert list(tmp_path.iterdir()) == [], "nothing is left"


def test_of_many_at_once_one_has_it(tmp_path):
    names = [f"trials/{n}" for n in range(40)]
    got: list[list[str]] = [[] for _ in range(6)]
    start = threading.Barrier(len(got))

    def work(mine: list[str]) -> None:
        with Runner(tmp_path) as runner:
            start.wait()
            mine += [name for name in names if runner.claim(name)]
            start.wait()

    threads = [threading.Thread(target=work, args=(mine,)) for mine in got]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for mine in got for name in mine) == sorted(names)


def test_a_killed_process_loses_its_claims_at_once(tmp_path):
    code = "import os, sys; from pathlib import Path; from prunescope.results.claims import Runner\n"
    code += "r = Runner(Path(sys.argv[1])); r.__enter__(); r.claim('trials/a'); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list((tmp_path / RUNNERS).iterdir())) == 1
    with Runner(tmp_path, lease=1e6) as runner:
        assert runner.alone()
        assert runner.claim("trials/a")


class Elsewhere:
    """A run on another machine, by the files that it leaves; `clock` is the steady clock of whoever looks on."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.now, self.beats = folder, 0.0, 0
        monkeypatch.setattr(claims, "time", SimpleNamespace(monotonic=lambda: self.now))
        for name in (CLAIMS, RUNNERS):
            (folder / name).mkdir(exist_ok=True)
        self.beat()
        os.link(folder / RUNNERS / "far.json", folder / CLAIMS / "trials-a.0")

    def beat(self):
        self.beats += 1
        about = {"runner": "far", "machine": "another", "pid": 1, "born": "1", "beat": self.beats}
        (self.folder / RUNNERS / "far.json").write_text(json.dumps(about))


def test_a_run_elsewhere_has_a_lease(tmp_path, monkeypatch):
    far = Elsewhere(tmp_path, monkeypatch)
    with Runner(tmp_path, lease=60) as here, Runner(tmp_path, lease=60) as third:
        for _ in range(5):  # as long as it beats, however long that is
            assert not here.claim("trials/a")
            far.now += 50
            far.beat()
        assert not here.claim("trials/a")
        far.now += 59
        assert not here.claim("trials/a")
        far.now += 2
        assert here.claim("trials/a")
        assert not third.claim("trials/a"), "the new claim counts, not the old one"
        far.beat()  # it only slept: what has been taken over stays with the other
        assert not third.claim("trials/a")
        here.release("trials/a")
        assert third.claim("trials/a")


def test_the_claim_of_a_run_that_ended_is_free(tmp_path, monkeypatch):
    Elsewhere(tmp_path, monkeypatch)
    (tmp_path / RUNNERS / "far.json").unlink()
    with Runner(tmp_path) as here:
        assert here.claim("trials/a")


@pytest.mark.parametrize("content", ["", "[]", '{"runner": 3', '{"runner": null}'])
def test_a_claim_that_nobody_can_read_has_a_lease_too(tmp_path, monkeypatch, content):
    far = Elsewhere(tmp_path, monkeypatch)
    (tmp_path / CLAIMS / "trials-b.0").write_text(content)
    with Runner(tmp_path, lease=60) as here:
        assert not here.claim("trials/b")
        far.now += 61
        assert here.claim("trials/b")


def test_without_second_names_for_files(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    with Runner(tmp_path) as one, Runner(tmp_path) as two:
        assert one.claim("trials/a")
        assert not two.claim("trials/a")


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / RUNNERS).write_text("a file")
    with pytest.raises(StoreError, match="give another folder with --out"), Runner(tmp_path):
        pass


def test_nothing_says_whose_machine_it_is(tmp_path):
    with Runner(tmp_path) as runner:
        runner.claim("trials/a")
        found = json.loads((tmp_path / CLAIMS / "trials-a.0").read_text())
    assert set(found) == {"runner", "machine", "pid", "born", "beat"}
    assert os.uname().nodename not in json.dumps(found)
