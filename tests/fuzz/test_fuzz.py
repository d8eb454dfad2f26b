"""Fuzzing in small: drawn inputs of every kind, and every input that ever failed. `python tests/fuzz/fuzzing.py` goes on for hours."""

import functools
import subprocess
import sys
from pathlib import Path

import fuzzing
import pytest
import targets
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

EXAMPLES = {"experiment": 25, "trial": 25, "live": 25, "records": 25, "masks": 8}
FILES = sorted(p for p in targets.CORPUS.rglob("*") if p.is_file())


@pytest.fixture(autouse=True)
def small_limits(monkeypatch):
    monkeypatch.setenv("PRUNESCOPE_LIMITS", targets.LIMITS)


@functools.cache
def seeds(kind):
    return targets.KINDS[kind].seeds()


@pytest.mark.parametrize("kind", targets.KINDS)
def test_bad_files_give_one_sentence(kind, tmp_path):
    @seed(0)
    @settings(max_examples=EXAMPLES.get(kind, 40), deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**32))
    def one(number):
        rng = fuzzing.Random(number)
        content = targets.KINDS[kind].make(rng.choice(seeds(kind)), rng)
        targets.check(kind, content, tmp_path, full=False)

    one()


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_what_failed_once_fails_no_more(path, tmp_path):
    targets.check(path.parent.name, path.read_bytes(), tmp_path, full=False)


def test_there_is_a_corpus_and_seeds_are_valid(tmp_path):
    assert len(FILES) >= 10
    for kind in ("config", "tables", "matlab", "experiment", "records", "live"):
        (place := tmp_path / kind).mkdir()
        for content in seeds(kind):
            targets.KINDS[kind].check(content, place, False)


def test_the_driver_notes_what_fails_hangs_and_kills(tmp_path, monkeypatch):
    """With a reader that is broken on purpose."""
    found = fuzzing.Counter()
    for error in (KeyError("x"), MemoryError(), RecursionError()):
        monkeypatch.setattr(targets, "check", lambda *a, error=error: (_ for _ in ()).throw(error))
        fuzzing.one("idx", repr(error).encode(), tmp_path, tmp_path / "keep", found)
    monkeypatch.setattr(fuzzing, "SECONDS", 0.05)
    before = fuzzing.signal.signal(fuzzing.signal.SIGPROF, fuzzing.hung)
    monkeypatch.setattr(targets, "check", lambda *a: [None for _ in iter(int, 1)])
    fuzzing.one("idx", b"hangs", tmp_path, tmp_path / "keep", found)
    fuzzing.signal.signal(fuzzing.signal.SIGPROF, before)
    assert sorted(name.split()[1] for name in found) == ["Hung", "KeyError", "MemoryError", "RecursionError"]
    assert len(list((tmp_path / "keep" / "idx").iterdir())) == 4


@pytest.mark.slow
def test_the_driver_runs(tmp_path):
    words = ["--inputs", "200", "--seed", "7", "--kind", "idx", "--kind", "npz", "--keep", str(tmp_path)]
    done = subprocess.run([sys.executable, Path(fuzzing.__file__), *words], capture_output=True, text=True, check=True)
    assert '"found": {}' in done.stdout, done.stdout
    assert '"inputs": 200' in done.stdout
