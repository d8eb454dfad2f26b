"""What is told of a run while it works: facts as they come, ends, failures, and runs that were killed."""

import threading
from dataclasses import replace

import pytest
from tinyrun import TINY, VARIANTS, ByHand

import prunescope as ps
from prunescope.live import Board
from prunescope.results import live
from prunescope.results.following import Following, facts_of
from prunescope.results.schema import Record
from prunescope.results.store import TrialFolder


def test_a_real_run_is_told_as_it_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "SECONDS", 0.0)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "badcriterion.py").write_text("def broken(weight):\n    raise RuntimeError('no scores')\n")
    following, news, seen = Following(tmp_path / "run"), [], threading.Event()
    from prunescope.experiments.broadcast import Broadcast

    class Looking(Broadcast):
        def epoch_end(self, states):
            super().epoch_end(states)
            news.extend(replace(n, facts=list(n.facts)) for n in following.news())  # somebody else looks after every epoch
            seen.set()

    monkeypatch.setattr("prunescope.experiments.tasks.Broadcast", Looking)
    run = ps.run({**TINY, "variant": VARIANTS}, out=tmp_path / "run", engine="serial")
    assert seen.is_set()
    assert not (tmp_path / "run" / live.FOLDER).exists()
    news += following.news()
    told = {kind: [n for n in news if n.what == kind] for kind in ("begun", "facts", "finished", "failed")}
    shared = [n for n in told["facts"] if n.trial.shared]
    assert {n.trial.variant for n in shared} == {"training that trials share"}
    assert {(n.trial.variant, n.trial.status) for n in told["failed"]} == {("bad", "failed")}
    assert all(n.trial.reason == "RuntimeError: no scores" for n in told["failed"])
    ended = [n for n in told["finished"] if not n.trial.shared]
    assert len(ended) == 2
    for item in ended:
        mine = [f for n in told["facts"] if n.trial is item.trial for f in n.facts]
        whole = facts_of(TrialFolder(run.folder / item.trial.name).records_file)
        assert len(whole) == len(item.facts)
        assert set(mine) <= set(whole)
        if item.trial.variant == "weights":
            assert {f.epoch for f in mine if f.phase == "finetune"} == {0.0, 1.0, 2.0} - ({0.0} if not _first(mine) else set())
    state = Board(tmp_path / "run").state()
    assert state["status"] == "finished"
    assert state["counts"] == {"finished": 2, "failed": 1}
    weights = next(t for t in state["trials"] if t["variant"] == "weights")
    assert weights["curves"]["accuracy/validation"][0] == [0, 1, 2, 3, 3, 3, 4, 5]  # the drop by pruning is at the training's end
    assert weights["final"]["accuracy"] is not None


def _first(facts):
    return any(f.phase == "finetune" and f.epoch == 0 for f in facts)


def test_only_what_changed_is_told_again(tmp_path):
    hand, board = ByHand(tmp_path), Board(tmp_path)
    assert board.state()["counts"] == {"waiting": 2}
    assert Board(tmp_path / "nothing").state()["status"] == "waiting"
    hand.epoch(0)
    first = board.state()
    assert first["counts"] == {"running": 2}
    assert board.state(first["version"])["trials"] == []
    hand.epoch(1)
    hand.finish(0)
    second = board.state(first["version"], "trials/00000000")
    assert [t["status"] for t in second["trials"]] == ["finished", "running"]
    assert second["trials"][1]["curves"]["loss/train"][0] == [0, 1]
    assert second["plane"]["estimates"]["binning"]["mi_label"]["h2"][0] == [0, 1]
    hand.finish(1, "it would not learn")
    third = board.state(second["version"])
    assert [(t["variant"], t["status"], t["reason"]) for t in third["trials"]] == [("neurons", "failed", "it would not learn")]
    assert third["status"] == "running"
    hand.end()
    assert board.state()["status"] == "finished"


def test_long_curves_are_thinned_and_keep_their_ends(tmp_path):
    hand = ByHand(tmp_path, variants=("weights",))
    for number in range(1000):
        hand.epoch(number)
    epochs = Board(tmp_path).state()["trials"][0]["curves"]["accuracy/train"][0]
    assert (len(epochs), epochs[0], epochs[-1]) == (120, 0, 999)


def test_a_killed_run_and_damage_are_told(tmp_path):
    hand, board = ByHand(tmp_path), Board(tmp_path)
    hand.epoch(0)
    with (tmp_path / live.FOLDER / "batch.jsonl").open("a") as file:
        file.write('{"half a line\n[7, [["accuracy"]]]\nnull\n[0, [["accuracy", "train", 5, "train", "", "", NaN]]]\n[0, [["acc')
    state = board.state()
    assert state["trials"][0]["curves"]["accuracy/train"] == [[0.0, 5.0], [pytest.approx(0.2), None]]
    hand.end()
    assert board.state()["status"] == "stopped"
    where = TrialFolder(tmp_path / "trials" / "00000000")
    where.folder.mkdir(parents=True)
    where.status_file.write_text("{")
    assert board.state()["counts"]["failed"] == 1
    hand.finish(0)
    where.records_file.write_bytes(b"PAR1 nothing")
    where.status_file.write_text('{"status": "finished"}\n')
    found = next(t for t in board.state()["trials"] if t["name"] == "trials/00000000")
    assert found["status"] == "failed"
    assert "cannot be read as records" in found["reason"]


def test_a_disk_that_is_full_costs_nobody_anything(tmp_path):
    (tmp_path / "file").write_text("in the way")
    file = live.LiveFile(tmp_path / "file" / "x.jsonl", [{"name": "a"}], seconds=0.0)
    file.write([[Record("loss", 1.0, "nats", "train")]])
    file.remove()
    assert (tmp_path / "file").read_text() == "in the way"
