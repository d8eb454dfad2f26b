"""The server answers this machine alone and has nothing but its page and the progress; the commands that start it."""

import dataclasses
import http.client
import json
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
import tomli_w
from tinyrun import TINY, ByHand

from prunescope import cli
from prunescope.live import Watch
from prunescope.types import ConfigError


def ask(watch, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", watch.port, timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, dict(answer.getheaders()), body


def test_it_has_two_answers_and_no_files(tmp_path):
    hand = ByHand(tmp_path)
    hand.epoch(0)
    (tmp_path / "secret.txt").write_text("secret")
    with Watch(tmp_path) as watch:
        status, headers, page = ask(watch, "/")
        assert status == 200
        assert "By hand" in page
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in policy
        assert "Access-Control-Allow-Origin" not in headers
        status, headers, text = ask(watch, "/state?since=x&plane=trials/00000000")
        state = json.loads(text)
        assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
        assert state["counts"] == {"running": 2}
        assert state["plane"]["name"] == "trials/00000000"
        for path in ("/secret.txt", "/../secret.txt", "/experiment.json", "//etc/passwd", "/state/", "/%2e%2e/secret.txt"):
            status, _, text = ask(watch, path)
            assert status == 404
            assert "secret" not in text
        assert ask(watch, "/", "POST")[0] == 501


def test_it_answers_this_machine_alone(tmp_path):
    ByHand(tmp_path)
    with Watch(tmp_path) as watch:
        assert watch._server.server_address[0] == "127.0.0.1"
        for host in ("evil.example", f"evil.example:{watch.port}", "127.0.0.1", f"127.0.0.1.evil.example:{watch.port}", ""):
            status, _, text = ask(watch, "/state", Host=host)
            assert status == 403
            assert "trials" not in text
        assert ask(watch, "/state", Host=f"localhost:{watch.port}")[0] == 200
        with pytest.raises(ConfigError, match="cannot be listened on"):
            Watch(tmp_path, watch.port)
    with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.1", watch.port), timeout=2):
        pass


def test_a_fault_is_an_answer(tmp_path, monkeypatch, capsys):
    ByHand(tmp_path)
    with Watch(tmp_path) as watch:
        monkeypatch.setattr(watch.board, "state", lambda *_: 1 / 0)
        status, _, text = ask(watch, "/state")
    assert (status, text) == (500, "ZeroDivisionError: division by zero\n")
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("made", [False, True])
def test_watch_refuses_what_is_no_run(tmp_path, monkeypatch, capsys, made):
    place = tmp_path / "file"
    if made:
        place.mkdir()
        place = tmp_path
    else:
        place.write_text("x")
    monkeypatch.setattr(sys, "argv", ["prunescope", "watch", str(place)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "run folder" in capsys.readouterr().err


def test_run_watch_serves_the_run_from_its_start(tmp_path, monkeypatch, capsys):
    """The page is there while trials are at work: the run itself is asked from inside."""
    monkeypatch.chdir(tmp_path)
    from prunescope.experiments import passes

    real, seen = passes.TRIALS.function, []

    def looked_at(batch, listener=None):
        address = capsys.readouterr().err.split("watch: ")[1].split()[0] if not seen else seen[0][0]
        with urllib.request.urlopen(address + "state", timeout=10) as answer:
            seen.append((address, json.loads(answer.read())["status"]))
        return real(batch, listener)

    monkeypatch.setattr(passes, "TRIALS", dataclasses.replace(passes.TRIALS, function=looked_at))
    monkeypatch.setattr("prunescope.report.write_figures", lambda run: [])  # takes seconds, and others test it
    (tmp_path / "tiny.toml").write_text(tomli_w.dumps(TINY))
    monkeypatch.setattr(sys, "argv", ["prunescope", "run", "tiny.toml", "-s", "seeds=1", "--engine", "serial", "--watch"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert not stopped.value.code
    assert {status for _, status in seen} == {"running"}
    assert (tmp_path / "runs" / "tiny" / "report.html").is_file()


def _hears_interrupts():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it


def test_watch_ends_with_an_interrupt(tmp_path):
    ByHand(tmp_path)
    command = [sys.executable, "-m", "prunescope.cli", "watch", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=_hears_interrupts) as watching:
        assert watching.stderr.readline().startswith("watch: http://127.0.0.1:")
        watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 0
        assert watching.stderr.read() == ""
