"""Runs for the tests of faults, in children of one process: a fork takes milliseconds where a fresh interpreter takes seconds.

    python forks.py FOLDER COUNT

    kills     one run after another, each killed (SIGKILL) at a random moment, until COUNT were
    torn      the same, a fifth as often, where a rename is a copy that a kill cuts short
    pair      two runs at once in one folder
    widow     two runs at once, one of which is killed in the middle
    shards    three shards with folders of their own

Prints what came of each as JSON. The parent touches neither torch's threads nor the database, so that its children start clean.
"""

import contextlib
import functools
import json
import os
import random
import signal
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

import sklearn.datasets
import torch._dynamo  # every optimiser asks for it, and it takes seconds
import torch.optim

from prunescope.experiments import passes, run
from prunescope.results.store import TrialFolder, load
from prunescope.types import StoreError

SMALL = {
    "name": "small",
    "seeds": 2,
    "sparsity": [0.5],
    "data": {"name": "digits", "flatten": True, "classes": [0, 1, 2], "train_size": 150},
    "model": {"name": "mlp", "widths": [8, 6], "activation": "tanh"},
    "training": {"epochs": 6, "batch_size": 16, "optimizer": "adam", "lr": 0.01},
    "measure": {"plane": {"estimators": [{"name": "binning", "bins": 8}]}},
    "variant": [
        {"name": "dense", "prune": {"when": "never"}},
        {"name": "init", "prune": {"when": "init", "granularity": "neuron"}},
        {"name": "trained", "finetune": {"epochs": 3}},
        {"name": "rounds", "prune": {"when": "iterative", "rounds": 2}, "finetune": {"epochs": 2}},
        {"name": "ticket", "prune": {"when": "rewind", "rounds": 2}},
        {"name": "gradual", "prune": {"when": "during"}},
    ],
}


def child(work) -> int:
    """The process number of a child that does `work` and ends."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """How a child ended: its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def told(work):
    """What `work` returns in a child of its own: reading a folder starts threads that a fork must not inherit."""
    reading, writing = os.pipe()
    pid = child(lambda: os.write(writing, json.dumps(work()).encode()))
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    assert ended(pid) == 0
    return json.loads(answer)


def standing(folder: Path) -> dict:
    """What can be read of a run: its finished trials and when they were stored; problems are what a reader would be told."""
    if not (folder / "experiment.json").exists():
        return {"finished": {}, "problems": []}
    try:
        found = load(folder)
    except StoreError as error:
        return {"finished": {}, "problems": [str(error)]}
    done = found.trials.loc[found.trials["status"] == "finished", "hash"]
    places = {h: TrialFolder(folder / "trials" / h) for h in done}
    whole = {h: p.status_file.stat().st_mtime_ns for h, p in places.items() if p.finished()}
    return {"finished": whole, "problems": found.problems, "records": len(found.records)}


def copying(self: Path, target: Path) -> Path:
    """A rename as an object store does it: the new file grows under its name, then the old one goes."""
    content = self.read_bytes()
    with Path(target).open("wb", buffering=0) as file:
        for part in range(0, len(content), max(1, len(content) // 4)):
            file.write(content[part : part + max(1, len(content) // 4)])
            time.sleep(0.0005)
    self.unlink()
    return Path(target)


def killed(folder: Path, count: int, torn: bool) -> dict:
    """Kill runs `count` times at random moments; where a run came to its end first, another folder is begun."""
    draw, kills, redone, problems, number = random.Random(8), 0, 0, [], 0
    finished: list[str] = []

    def work() -> None:
        if torn:
            Path.replace = copying
        run(SMALL, out=folder / str(number), engine="serial", stack="off", checkpoint=0)

    before: dict = {}
    while kills < count:
        pid = child(work)
        time.sleep(draw.uniform(0.02, 0.35))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        code = ended(pid)
        assert code in (0, -signal.SIGKILL), code
        kills += code != 0
        now = told(functools.partial(standing, folder / str(number)))
        redone += sum(now["finished"].get(h) != t for h, t in before.items())
        problems += now["problems"]
        before = now["finished"]
        if code == 0:
            finished.append(str(number))
            number, before = number + 1, {}
    assert ended(child(work)) == 0
    return {"kills": kills, "redone": redone, "problems": problems, "whole": [*finished, str(number)]}


def logged(folder: Path, log: Path, **options) -> None:
    """A run that writes down each trial when it has carried it out."""
    real = passes.TRIALS.function

    def function(batch, listener=None):
        errors = real(batch, listener)
        with log.open("a") as file:
            file.writelines(f"{t.trial.hash}\n" for t in batch.tasks)
        time.sleep(0.05)  # so that both have their share, however small the trials are
        return errors

    passes.TRIALS = replace(passes.TRIALS, function=function)
    run(SMALL, out=folder, engine="serial", stack="off", **options)


def pair(folder: Path, kill: bool) -> dict:
    """Two runs at once in one folder; with `kill` the first dies when it has finished a trial."""
    logs = [folder / f"log {i}" for i in range(2)]
    pids = [child(lambda log=log: logged(folder / "0", log)) for log in logs]
    if kill:
        while not (logs[0].exists() and logs[0].read_text()):
            time.sleep(0.002)
        os.kill(pids[0], signal.SIGKILL)
    codes = [ended(pid) for pid in pids]
    return {"codes": codes, "trials": [log.read_text().split() if log.exists() else [] for log in logs]}


def shards(folder: Path) -> dict:
    """Three runs, each of a third of the trials, in folders of their own."""
    pids = [child(lambda i=i: logged(folder / str(i), folder / f"log {i}", shard=f"{i}/3")) for i in (1, 2, 3)]
    return {"codes": [ended(p) for p in pids], "trials": [(folder / f"log {i}").read_text().split() for i in (1, 2, 3)]}


def main(folder: Path, count: int) -> dict:
    places = {name: folder / name for name in ("kills", "torn", "pair", "widow", "shards")}
    for place in places.values():
        place.mkdir(parents=True)
    return {
        "kills": killed(places["kills"], count, torn=False),
        "torn": killed(places["torn"], count // 5, torn=True),
        "pair": pair(places["pair"], kill=False),
        "widow": pair(places["widow"], kill=True),
        "shards": shards(places["shards"]),
    }


if __name__ == "__main__":  # pytest's doctests import this file too
    sklearn.datasets.load_digits()
    torch.set_num_threads(1)
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
