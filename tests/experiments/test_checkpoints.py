"""Trainings that are killed go on from their checkpoint and give the records of a run that nobody disturbed."""

import json
import math
import random
from pathlib import Path

import drive
import numpy as np
import pandas as pd
import pytest
import torch

import prunescope as ps
from prunescope.experiments import checkpoints, together
from prunescope.experiments.checkpoints import FOLDER, Checkpoints, companies, read
from prunescope.experiments.planning import plan
from prunescope.experiments.tasks import Task, batches, trial_name
from prunescope.experiments.trial import Execution
from prunescope.results.schema import COLUMNS, Record
from prunescope.types import ConfigError

KEYS = [c for c in COLUMNS if c not in ("value", "stderr", "parameters")]
SMALL = {
    "name": "killed",
    "seeds": 3,
    "sparsity": [0.5],
    "data": {"name": "digits", "flatten": True, "classes": [0, 1, 2], "train_size": 150},
    "model": {"name": "mlp", "widths": [8, 6], "activation": "tanh"},
    "training": {"epochs": 6, "batch_size": 32, "optimizer": "adam", "lr": 0.005, "schedule": "milestones", "milestones": [3]},
    "measure": {"gradients": True, "plane": {"estimators": [{"name": "binning", "bins": 8, "range": "auto"}]}},
    "variant": [
        {"name": "dense", "prune": {"when": "never"}},
        {"name": "init", "prune": {"when": "init"}},
        {"name": "rounds", "prune": {"when": "iterative", "rounds": 3}, "finetune": {"epochs": 3}},
    ],
}
INTERVAL = 2  # epochs between checkpoints, by the clock of drive.py


def records(folder: Path) -> pd.DataFrame:
    return ps.load(folder).records.sort_values(KEYS, kind="stable").reset_index(drop=True)


EVERYTHING = {
    **SMALL,
    "seeds": 1,
    "model": {"name": "mlp", "mlp": {"widths": [8, 6], "activation": "tanh"}},
    "training": {**SMALL["training"], "epochs": 4},
    "variant": [
        {"name": "dense", "prune": {"when": "never"}},
        {"name": "init", "prune": {"when": "init"}, "training": {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "lr": 0.05}},
        {"name": "trained", "prune": {"when": "trained"}, "finetune": {"epochs": 2, "optimizer": "adamw", "weight_decay": 0.01}},
        {"name": "taught", "prune": {"when": "trained"}, "finetune": {"epochs": 2, "distill": {"alpha": 0.5}}},
        {"name": "aware", "prune": {"when": "trained"}, "finetune": {"epochs": 2}, "quantize": {"weights": "int8", "aware": True}},
        {"name": "rounds", "prune": {"when": "iterative", "rounds": 2}, "finetune": {"epochs": 2}},
        {"name": "ticket", "prune": {"when": "rewind", "rate": 0.3, "rewind": 1}},
        {"name": "control", "prune": {"when": "rewind", "rate": 0.3, "rewind": 1, "tickets": "random-mask"}},
        {"name": "during", "prune": {"when": "during", "every": 2, "every_in": "steps", "criterion": "taylor"}},
        {"name": "soft", "prune": {"when": "during", "soft": True, "schedule": "linear"}, "finetune": {"epochs": 2}},
        {"name": "set", "prune": {"when": "dynamic", "grow": "set"}},
        {"name": "rigl", "prune": {"when": "dynamic", "grow": "rigl", "every": 2, "every_in": "steps"}, "finetune": {"epochs": 2}},
        {
            "name": "normalised",
            "data": {"flatten": False},
            "model": {"name": "vgg", "stages": [[4]]},
            "prune": {"when": "trained", "granularity": "filter"},
            "finetune": {"epochs": 2, "recalibrate_batchnorm": True},
        },
    ],
}


class Driver:
    """Runs `config` in processes of their own, each of which writes down the epochs that it begins."""

    def __init__(self, place: Path, config: dict, **options) -> None:
        self.place, self.config, self.options, self.count = place, config, options, 0
        place.mkdir()

    def __call__(self, **kill) -> list[list]:
        log = self.place / f"log {self.count}"
        self.count += 1
        process = drive.start(self.config, self.place / "run", log, **{"checkpoint": float(INTERVAL), **self.options, **kill})
        process.join()
        self.code = process.exitcode
        assert self.code <= 0, log.with_suffix(".error").read_text()
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def records(self) -> pd.DataFrame:
        """All records, in the order in which they were stored."""
        return ps.load(self.place / "run").records


def same(one: Driver, other: Driver) -> None:
    pd.testing.assert_frame_equal(one.records(), other.records(), check_exact=True)


@pytest.mark.slow
@pytest.mark.parametrize(("stack", "kills"), [("on", [4, 9, 6]), ("off", [4, 10, 25])])
def test_kill_9_inside_a_training(tmp_path, stack, kills):
    """Killed in a shared training, in one of a pruned network and between rounds: same records, and no more done again than it says."""
    config = {**SMALL, "seeds": 3 if stack == "on" else 1}
    whole = Driver(tmp_path / "whole", config, stack=stack)
    undisturbed = whole()
    assert {n for _, _, n in undisturbed} == {3 if stack == "on" else 1}
    killed = Driver(tmp_path / "killed", config, stack=stack)
    last = -1
    for number in [*kills, 0]:
        if number > len(undisturbed) - last:
            number = 0
        epochs = killed(kill_at=number)
        starts = [s for s in range(max(0, last - INTERVAL), last + 2) if undisturbed[s : s + len(epochs)] == epochs]
        assert starts, f"begun: {epochs}, after {last} of {undisturbed}"
        last = starts[-1] + len(epochs) - 1
        if not number:
            break
    assert last == len(undisturbed) - 1
    same(killed, whole)
    assert not (tmp_path / "killed" / "run" / FOLDER).exists(), "what is done needs no checkpoint"


@pytest.mark.slow
def test_every_kind_of_training_goes_on_to_the_same_bits(tmp_path):
    """Killed at random moments of the processor's time, and at random files, as many times as it takes to get through."""
    whole = Driver(tmp_path / "whole", EVERYTHING)
    undisturbed = whole(checkpoint=math.inf)
    killed = Driver(tmp_path / "killed", EVERYTHING, checkpoint=1.0)
    draw = random.Random(8)
    epochs = 0
    for number in range(100):
        kill = {"kill_after": draw.uniform(0.3, 1.0)} if number % 2 else {"kill_writing": draw.randint(1, 60) + draw.choice([0, 0.5])}
        epochs += len(killed(**kill))
        if killed.code == 0:
            break
    assert killed.code == 0
    assert number > 3
    assert epochs <= len(undisturbed) + 2 * number, "each kill costs the epoch at work, or the one before where its end was not written"
    same(killed, whole)


def test_rounds_that_tickets_share_are_not_done_again_from_their_start(tmp_path):
    variants = [v for v in EVERYTHING["variant"] if v["name"] in ("ticket", "control")]
    config = {**EVERYTHING, "seeds": 2, "variant": variants}
    whole = Driver(tmp_path / "whole", config, stack="on")
    undisturbed = whole()
    killed = Driver(tmp_path / "killed", config, stack="on")
    first = killed(kill_at=7)  # the last of the three epochs of the first round
    assert first[-1][0] == "rewind 1"
    assert undisturbed == [*first[:-1], *killed()][: len(undisturbed)] or undisturbed == [*first[:-2], *killed()]
    same(killed, whole)


class EndedError(Exception):
    """Stands for a kill: nothing of the process may be used afterwards."""


def interrupted(monkeypatch, folder: Path, epochs: int, stack="on", config=SMALL) -> None:
    """A run that ends after `epochs` ends of an epoch, with a checkpoint at each."""
    real, seen = Checkpoints.reached, []

    def reached(self, pairs, *, measured=True):
        real(self, pairs, measured=measured)
        if measured:
            seen.append(1)
        if len(seen) == epochs:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "reached", reached)
        with pytest.raises(KeyboardInterrupt):
            ps.run(config, out=folder, engine="serial", stack=stack, checkpoint=0)


def test_what_was_stacked_may_go_on_alone_and_the_other_way_round(tmp_path, monkeypatch):
    ps.run(SMALL, out=tmp_path / "whole", engine="serial", stack="on")
    expected = records(tmp_path / "whole")
    for first, second in (("on", "off"), ("off", "on")):
        folder = tmp_path / first
        interrupted(monkeypatch, folder, 4, stack=first)
        assert companies(folder)
        ps.run(SMALL, out=folder, engine="serial", stack=second)
        found = records(folder)
        pd.testing.assert_frame_equal(found[KEYS], expected[KEYS])
        close = np.isclose(found["value"], expected["value"], rtol=1e-4, atol=1e-6, equal_nan=True) | (found["metric"] == "bytes")
        assert close.mean() > 0.99, "but for a sample at the edge of a bin, all agree"


def test_trials_that_were_killed_together_go_on_together(tmp_path):
    """Even where fewer are missing now, or other numbers of workers would share them otherwise."""
    todo = [Task(t, tmp_path, None, "cpu") for t in plan({**SMALL, "seeds": 6, "variant": SMALL["variant"][1:2]}).trials]
    names = [trial_name(t.trial) for t in todo]
    made, _ = batches(todo, lambda t: t.kind, stack="auto", jobs=2, before=[[names[1], names[4]], ["trials/other"]])
    assert [[todo.index(t) for t in b.tasks] for b in made] == [[1, 4], [0, 2, 3], [5]]
    assert [len(b.tasks) for b in batches(todo, lambda t: t.kind, stack="off", jobs=2, before=[names])[0]] == [1] * 6


def test_a_damaged_checkpoint_costs_the_work_and_not_the_run(tmp_path, monkeypatch):
    interrupted(monkeypatch, tmp_path / "r", 3)
    (path,) = (tmp_path / "r" / FOLDER).glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="cannot be read as a checkpoint"):
        finished = ps.run(SMALL, out=tmp_path / "r", engine="serial", stack="on")
    assert (finished.trials["status"] == "finished").all()


def test_fresh_forgets_checkpoints(tmp_path, monkeypatch):
    interrupted(monkeypatch, tmp_path / "r", 3)
    assert companies(tmp_path / "r")
    checkpoints.forget(tmp_path / "r", ["trials/somebody else's"])
    assert companies(tmp_path / "r")
    real, found = Checkpoints.found, []

    def noted(self, training):
        found.append(real(self, training))
        return found[-1]

    monkeypatch.setattr(Checkpoints, "found", noted)
    ps.run(SMALL, out=tmp_path / "r", engine="serial", stack="on", fresh=True)
    assert found
    assert not any(found)


def test_a_negative_interval_is_refused(tmp_path):
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ConfigError, match="expected the seconds between checkpoints"):
            ps.run(SMALL, out=tmp_path / "r", checkpoint=wrong)


class Counter:
    """An actor that keeps something from epoch to epoch: it shrinks the weights a little more each time."""

    def __init__(self) -> None:
        self.factor = torch.tensor(1.0)

    def epoch_end(self, state):
        self.factor = self.factor * 0.99
        with torch.no_grad():
            for p in state.model.parameters():
                p.mul_(self.factor)

    def memory(self):
        return {"factor": self.factor}

    def remember(self, found):
        self.factor = found["factor"]


def trained(folder: Path, *, stop_after: int | None = None) -> list[Execution]:
    """Two networks with an actor each, as far as they come."""
    trials = plan({**SMALL, "seeds": 2, "variant": SMALL["variant"][:1]}).trials
    works = [Execution(t, data_dir=None, device="cpu", listeners=[Counter()]) for t in trials]
    kept = Checkpoints(folder, {id(w.model): trial_name(w.trial) for w in works}, 0)
    if stop_after is not None:

        class Stop:
            def epoch_end(self, state):
                if state.epoch > stop_after:
                    raise EndedError

        works[0].listeners.append(Stop())
    results = together.together([w.train() for w in works], checkpoints=kept)
    assert all(isinstance(r, EndedError) if stop_after is not None else r is None for r in results)
    return works


def test_what_listeners_remember_is_kept(tmp_path):
    whole = trained(tmp_path / "whole")
    trained(tmp_path / "r", stop_after=3)
    again = trained(tmp_path / "r")
    for one, two in zip(whole, again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True))
        assert one.recorder.records == two.recorder.records
        assert one.listeners[0].factor == two.listeners[0].factor


class Odd(torch.optim.SGD):
    """Keeps a list, which no tensor file holds."""

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            self.state[p].setdefault("steps", []).append(1)
        return super().step(closure)


def test_an_optimiser_that_keeps_more_than_tensors_trains_without_checkpoints(tmp_path, monkeypatch):
    source = "from test_checkpoints import Odd\ndef odd(parameters, settings):\n    return Odd(parameters, settings.lr)\n"
    (tmp_path / "odd.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    changes = {"training.optimizer": "odd:odd", "seeds": 1, "variant": SMALL["variant"][:1]}
    with pytest.warns(UserWarning, match="Odd keeps 'steps' of a parameter as list: expected tensors"):
        finished = ps.run(SMALL, overrides=changes, out=tmp_path / "r", engine="serial", checkpoint=0)
    assert (finished.trials["status"] == "finished").all()


def test_records_come_back_as_they_were():
    odd = [
        Record("loss", float("nan"), "nats", "train", 3, 2, "train", n=5, stderr=0.1),
        Record("accuracy", 1 / 3, "fraction", "final", 3, 2.5, layer='fc "1"', parameters='{"a":[1]}'),
        Record("loss", float("inf"), "nats", "train"),
    ]
    again = checkpoints._records_unpacked(checkpoints._records_packed(odd))
    assert repr(again) == repr(odd)
    assert checkpoints._records_unpacked(checkpoints._records_packed([])) == []


def test_of_several_checkpoints_the_furthest_counts(tmp_path, monkeypatch):
    interrupted(monkeypatch, tmp_path / "r", 4)
    (path,) = (tmp_path / "r" / FOLDER).glob("*.safetensors")
    (name, *_), *_ = companies(tmp_path / "r")
    older = tmp_path / "older"
    interrupted(monkeypatch, older, 2)
    for first in (True, False):
        copy = path.with_name(("0" if first else "z") + path.name)
        copy.write_bytes(next((older / FOLDER).glob("*.safetensors")).read_bytes())
        assert read(tmp_path / "r", [name])[name].current.training.epoch == 4
        copy.unlink()
