"""What can go wrong around a run: kills at any moment, other runs in the folder, renames that copy, disks, clocks."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from forks import SMALL

import prunescope as ps
from prunescope.experiments import passes, run
from prunescope.results.claims import CLAIMS, RUNNERS
from prunescope.results.schema import COLUMNS
from prunescope.types import StoreError

KILLS = 50


def records(folder: Path) -> pd.DataFrame:
    found = ps.load(folder)
    assert (found.trials["status"] == "finished").all()
    assert not found.problems
    return found.records.sort_values([c for c in COLUMNS if c not in ("value", "stderr", "parameters")]).reset_index(drop=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    run(SMALL, out=folder, engine="serial", stack="off")
    return records(folder)


@pytest.fixture(scope="module")
def forked(tmp_path_factory):
    """What forks.py makes of its scenarios, and where."""
    folder = tmp_path_factory.mktemp("forks")
    command = [sys.executable, str(Path(__file__).with_name("forks.py")), str(folder), str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


@pytest.mark.slow
def test_fifty_kills_at_random_moments_lose_nothing(forked, undisturbed):
    """After each the folder is readable and what was finished stays as it was; in the end the records are the same to the last bit."""
    folder, told = forked
    assert told["kills"]["kills"] == KILLS
    assert told["kills"]["problems"] == []
    assert told["kills"]["redone"] == 0, "finished trials are never done again"
    for whole in told["kills"]["whole"]:
        pd.testing.assert_frame_equal(records(folder / "kills" / whole), undisturbed, check_exact=True)
        left = [p for p in (folder / "kills" / whole).rglob("*") if p.name.startswith(".") or p.parent.name in (CLAIMS, RUNNERS)]
        assert left == [], "nothing half written, no claim and no checkpoint is left"


@pytest.mark.slow
def test_half_written_files_are_found_where_a_rename_copies(forked, undisturbed):
    folder, told = forked
    assert told["torn"]["kills"] == KILLS // 5
    assert told["torn"]["redone"] == 0
    for whole in told["torn"]["whole"]:
        pd.testing.assert_frame_equal(records(folder / "torn" / whole), undisturbed, check_exact=True)


@pytest.mark.slow
def test_two_runs_in_one_folder_share_the_trials(forked, undisturbed):
    folder, told = forked
    first, second = told["pair"]["trials"]
    assert told["pair"]["codes"] == [0, 0]
    assert all((first, second)), "both had their share"
    assert sorted(first + second) == sorted(set(undisturbed["trial"])), "each trial was done once"
    pd.testing.assert_frame_equal(records(folder / "pair" / "0"), undisturbed, check_exact=True)
    assert not (folder / "pair" / "0" / CLAIMS).exists()


@pytest.mark.slow
def test_what_a_killed_run_was_at_is_taken_over_by_the_other(forked, undisturbed):
    folder, told = forked
    assert told["widow"]["codes"] == [-9, 0]
    assert {h for part in told["widow"]["trials"] for h in part} == set(undisturbed["trial"])
    pd.testing.assert_frame_equal(records(folder / "widow" / "0"), undisturbed, check_exact=True)


@pytest.mark.slow
def test_shards_merge_by_copying(forked, undisturbed, tmp_path):
    folder, told = forked
    parts = told["shards"]["trials"]
    assert told["shards"]["codes"] == [0, 0, 0]
    assert all(parts), "each shard had trials"
    assert sorted(h for part in parts for h in part) == sorted(set(undisturbed["trial"]))
    for part in "123":
        shutil.copytree(folder / "shards" / part, tmp_path / "merged", dirs_exist_ok=True)
    pd.testing.assert_frame_equal(records(tmp_path / "merged"), undisturbed, check_exact=True)


def tiny(folder: Path, **changes) -> ps.load:
    small = {**SMALL, "seeds": 1, "training": {**SMALL["training"], "epochs": 1}, "variant": SMALL["variant"][:2]}
    return run(small, out=folder, engine="serial", **changes)


def test_another_runs_failed_trial_is_not_tried_again(tmp_path, monkeypatch):
    """The other run, on another machine, holds a claim; it gives the trial up while we wait."""
    from prunescope.experiments.planning import plan
    from prunescope.results.claims import Runner
    from prunescope.results.files import write_json
    from prunescope.results.store import TrialFolder

    one = {**SMALL, "seeds": 1, "variant": SMALL["variant"][1:2]}
    (trial,) = plan(one).trials
    ours = tmp_path / "run"
    tries = []
    with Runner(ours) as other:
        assert other.claim(f"trials/{trial.hash}")

        def gives_up(seconds):
            tries.append(seconds)
            write_json(TrialFolder(ours / "trials" / trial.hash).status_file, {"status": "failed", "reason": "out of luck"})
            other.release(f"trials/{trial.hash}")

        monkeypatch.setattr(passes.time, "sleep", gives_up)
        found = run(one, out=ours, engine="serial")
    assert len(tries) == 1
    assert found.trials["reason"].tolist() == ["out of luck"]


def test_fresh_is_refused_while_another_run_is_at_work(tmp_path):
    from prunescope.results.claims import Runner

    tiny(tmp_path / "run")
    with Runner(tmp_path / "run"), pytest.raises(StoreError, match="another run is at work"):
        tiny(tmp_path / "run", fresh=True)
    assert (ps.load(tmp_path / "run").trials["status"] == "finished").all()


def test_records_that_were_damaged_are_made_again(tmp_path):
    whole = tiny(tmp_path / "run").records
    place = next((tmp_path / "run" / "trials").glob("*/records.parquet"))
    content = bytearray(place.read_bytes())
    content[len(content) // 3] ^= 1  # the size stays
    place.write_bytes(content)
    (tmp_path / "run" / "experiment.json").write_text('{"cut sho')
    pd.testing.assert_frame_equal(tiny(tmp_path / "run").records, whole)


def mounted(place: Path, *options: str) -> None:
    place.mkdir(exist_ok=True)
    if shutil.which("mount") is None or subprocess.run(["mount", *options, str(place)], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small disk")


def test_a_disk_that_is_full_and_one_that_cannot_be_written_to(tmp_path):
    """A real disk of 400 kB: the run stops with one sentence, and goes on from what it had where there is room."""
    disk, room = tmp_path / "disk", tmp_path / "room"
    many = {**SMALL, "seeds": 12, "training": {**SMALL["training"], "epochs": 1}, "variant": SMALL["variant"][:2], "measure": {}}
    mounted(disk, "-t", "tmpfs", "-o", "size=400k", "tmpfs")
    try:
        with pytest.raises(StoreError, match="No space left on device"):
            run(many, out=disk / "run", engine="serial", stack="off")
        before = ps.load(disk / "run").trials["status"].value_counts()
        assert before["finished"] > 2
        shutil.copytree(disk / "run", room)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(StoreError, match="Read-only file system"):
            run(many, out=disk / "run", engine="serial", stack="off")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    stamps = {p: p.stat().st_mtime_ns for p in room.glob("trials/*/trial.json") if json.loads(p.read_text())["status"] == "finished"}
    assert len(stamps) == before["finished"]
    assert (run(many, out=room, engine="serial", stack="off").trials["status"] == "finished").all()
    assert stamps == {p: p.stat().st_mtime_ns for p in stamps}


def test_a_clock_that_goes_backwards(tmp_path, monkeypatch):
    now = [2e9]

    def back() -> float:
        now[0] -= 3600.0
        return now[0]

    monkeypatch.setattr(time, "time", back)
    found = tiny(tmp_path / "run", checkpoint=0.0)
    assert (found.trials["status"] == "finished").all()
    assert (found.trials["seconds"] >= 0).all()
    assert found.experiment["wall_seconds"] >= 0


def test_a_rename_that_copies_is_said(tmp_path, monkeypatch):
    from forks import copying

    monkeypatch.setattr(Path, "replace", copying)
    assert "a rename copies" in " ".join(tiny(tmp_path / "run").experiment["data_notes"])
    monkeypatch.setattr(Path, "replace", lambda self, target: Path(target))
    with pytest.raises(StoreError, match="does not take the place"):
        tiny(tmp_path / "other")
