"""Engine ray: what workers do without a cluster, then a small local cluster, then one that loses workers and machines all the time."""

import json
import os
import random
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from clustered import SMALL, batch, equal, tasks

import prunescope as ps
from prunescope.config import ResourcesConfig
from prunescope.experiments import cluster, transport
from prunescope.experiments.planning import plan
from prunescope.experiments.storage import unpacked
from prunescope.experiments.tasks import Batch, dense_batch, trial_batch
from prunescope.experiments.transport import Errand, carried
from prunescope.types import ConfigError, DataError, MissingExtraError, StoreError

QUIET = SimpleNamespace(started=lambda label: None, ended=lambda label: None)


# ---- without a cluster: what a worker does


def test_a_worker_that_does_not_see_the_folder_hands_over_what_is_finished(serial, tmp_path):
    folder, one = tmp_path / "run", tasks(tmp_path / "run")[-1]
    folder.mkdir()
    errand = Errand(folder=folder, token="somebody-else's")
    assert carried(trial_batch, batch(one), errand, get=dict).lacking, "it says that it needs the dense training, and does nothing"
    trained = carried(dense_batch, batch(one), transport.replace(errand, parcels={}), get=dict)
    assert {Path(f).name for f in trained.files} == {"weights.safetensors", "records.parquet"}
    done = carried(trial_batch, batch(one), transport.replace(errand, parcels={"x": trained.files}), get=dict)
    assert done.result == [None]
    assert {f.split("/")[0] for f in done.files} == {"trials"}, "the dense training that it was given is not sent back"
    assert not list(folder.iterdir()), "nothing was written where somebody else's folder may be"
    unpacked(folder, {**trained.files, **done.files})
    assert transport.TrialFolder(folder / "trials" / one.trial.hash).finished()
    for name, content in done.files.items():
        if not name.endswith("trial.json"):
            assert (serial.folder / name).read_bytes() == content or name.endswith(".parquet")
    stored = folder / "trials" / one.trial.hash / "trial.json"
    before = stored.stat().st_ino
    unpacked(folder, done.files)
    assert stored.stat().st_ino == before, "what is stored first stays"


def test_a_worker_that_sees_the_folder_works_in_it_and_never_does_a_stored_trial_again(tmp_path):
    folder, one = tmp_path / "run", tasks(tmp_path / "run")[0]
    folder.mkdir()
    (folder / "token").touch()
    done = carried(trial_batch, batch(one), Errand(folder=folder, token="token"), get=dict)
    stored = folder / "trials" / one.trial.hash / "trial.json"
    assert done.result == [None]
    assert not done.files
    assert json.loads(stored.read_text())["status"] == "finished"
    before = stored.stat().st_ino
    again = carried(trial_batch, batch(one), Errand(folder=folder, token="token", again=True), get=dict)
    assert again.result == [None]
    assert stored.stat().st_ino == before
    both = Batch((one, tasks(folder)[1]), "off")
    assert carried(trial_batch, both, Errand(folder=folder, token="token", again=True), get=dict).result == [None, None]
    assert stored.stat().st_ino == before, "its companion was done, it was not"


def test_data_that_a_worker_lacks_and_other_versions_are_named(tmp_path):
    one = tasks(tmp_path, tmp_path / "no such data")[0]
    found = carried(trial_batch, batch(one), Errand(folder=tmp_path), get=dict, node="ab12").result
    assert isinstance(found, DataError)
    assert "no such data: this folder of data is not there on worker node ab12" in str(found)
    found = carried(len, [], Errand(versions={"prunescope": "0", "torch": "1"}), get=dict, node="ab12").result
    assert isinstance(found, ConfigError)
    assert "torch 1" in str(found)


def test_files_that_would_be_written_elsewhere_are_refused(tmp_path):
    for name in ("../x", "trials/../../x", "/etc/x", "trials/x", "other/a/b", "trials/a\\..\\b/c"):
        with pytest.raises(StoreError, match="not the name of a file"):
            unpacked(tmp_path, {name: b""})
    assert not list(tmp_path.iterdir())


def test_an_exception_that_cannot_travel_is_replaced_by_one_that_says_the_same():
    class Awkward(Exception):
        def __init__(self, a, b):
            super().__init__(f"{a} and {b}")

    assert "1 and 2" in str(transport.sendable([None, Awkward(1, 2)])[1])
    assert isinstance(transport.sendable(ValueError("x")), ValueError)


def test_resources_change_no_hash_and_no_variant_changes_them(tmp_path):
    plain = plan(SMALL).trials
    assert [t.hash for t in plan(SMALL, {"resources.memory": "2GB", "resources.gpus": 0.5}).trials] == [t.hash for t in plain]
    for wrong in ({"resources.memory": "much"}, {"resources.gpus": 1.5}, {"resources.cpu": 1}, {"grid": {"resources.cpus": [1]}}):
        with pytest.raises(ConfigError, match=r"resources|grid"):
            plan(SMALL, wrong)
    with pytest.raises(ConfigError, match=r"resources\.gpus"):
        ps.run(SMALL, out=tmp_path / "x", engine="ray", device="cuda")
    with pytest.raises(ConfigError, match="engine ray"):
        ps.run(SMALL, out=tmp_path / "x", engine="serial", storage="file:///x")
    with pytest.raises(ConfigError, match=r"expected ray, or ray=HOST:PORT"):
        ps.run(SMALL, out=tmp_path / "x", engine="ray=")


def test_without_ray_one_line_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'prunescope\[ray\]'"):
        ps.run(SMALL, out=tmp_path / "x", engine="ray")


def test_where_no_cluster_answers_it_is_said_at_once():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(ConfigError, match="nobody answers"):
            cluster.answering(address, seconds=0.3)
    began = time.monotonic()
    with pytest.raises(ConfigError, match="nobody answers"):
        cluster.answering(address)
    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=lambda: other.accept()[0].sendall(b"SSH-2.0-some"), daemon=True).start()
        with pytest.raises(ConfigError, match="no Ray cluster"):
            cluster.answering(f"127.0.0.1:{other.getsockname()[1]}")
    for wrong in ("somewhere", "ray://head:10001", "head:port"):
        with pytest.raises(ConfigError, match="expected HOST:PORT"):
            cluster.answering(wrong)
    assert time.monotonic() - began < 5


# ---- a local cluster of three machines


@pytest.fixture(scope="module")
def machines():
    """A Ray cluster of three nodes on this machine that this process has joined: a head, which stays, and two that may go."""
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'prunescope[ray]')")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's workers stand back (15) for all else, on a busy machine for minutes
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(2):
            found.add_node(num_cpus=1)
        with cluster.joined(found.address, threads=1, resources=ResourcesConfig()):
            yield found
    finally:
        found.shutdown()


@pytest.mark.slow
def test_tasks_on_a_cluster(machines, monkeypatch):
    """Drawn as there is room, errors are results, and a task that kills every worker is given up."""
    monkeypatch.setattr(cluster, "DEATHS", 1)
    drawn = []

    def draw():
        for number in range(30):
            drawn.append(number)
            yield number

    def work(number):
        if number == 3:
            raise ValueError("three")
        if number == 7:
            os.kill(os.getpid(), 9)
        return number, os.environ["OMP_NUM_THREADS"], __import__("torch").get_num_threads()

    results = {}
    with cluster.joined(None, threads=1, resources=ResourcesConfig()) as engine:  # this process is connected: that cluster is used
        assert engine.jobs == 3
        for number, result in engine.map(work, draw(), label=str, watcher=QUIET):
            results[number] = result
            assert len(drawn) - len(results) <= 3 + 2 + 1
    assert isinstance(results.pop(3), ValueError)
    assert "1 of its workers died while at it" in str(results.pop(7))
    assert results == {n: (n, "1", 1) for n in range(30) if n not in (3, 7)}
    with pytest.raises(ConfigError, match="another cluster"), cluster.joined("host:1", threads=1, resources=ResourcesConfig()):
        pass
    with (
        pytest.raises(ConfigError, match=r"gpus = 1.*the most that one has is 1 cores, 0 GPUs"),
        cluster.joined(None, threads=1, resources=ResourcesConfig(gpus=1)),
    ):
        pass


@pytest.mark.slow
def test_a_run_on_a_cluster_equals_a_serial_one_with_and_without_a_shared_folder(machines, serial, tmp_path, monkeypatch):
    name = f"ray={machines.address}"
    shared = ps.run(SMALL, out=tmp_path / "shared", engine=name, stack="off")
    equal(shared, serial)
    monkeypatch.setattr(cluster.Cluster, "_token", lambda self, folder: "what nobody sees")
    equal(ps.run(SMALL, out=tmp_path / "apart", engine=name, stack="off"), serial)
    url = f"file://{tmp_path}/storage"
    equal(ps.run(SMALL, out=tmp_path / "stored", engine=name, stack="off", storage=url), serial)
    assert {p.name for p in (tmp_path / "storage" / "small" / "trials").iterdir()} == set(serial.trials["hash"])
    for folder in ("shared", "apart", "stored"):
        left = {p.name for p in (tmp_path / folder).iterdir()} - {"experiment.json", "experiment.toml", "trials", "dense"}
        assert not left, f"{folder}: {left}"
    monkeypatch.setattr(cluster.Cluster, "_send", lambda *a: pytest.fail("what lies in the storage is not done again"))
    equal(ps.run(SMALL, out=tmp_path / "resumed", engine=name, stack="off", storage=url), serial)


FAULTS = {
    **SMALL,
    "name": "faults",
    "seeds": 20,
    "sparsity": [0.05 * n for n in range(1, 11)],
    "measure": {"histogram_bins": 0, "epochs": "none"},
    "variant": [{"name": "init", "prune": {"when": "init", "criterion": "witness:magnitude"}}],
}
WITNESS = """
import os
from prunescope.experiments import tasks

def note(*words):
    with open({log!r}, "ab", buffering=0) as log:
        log.write((" ".join(map(str, words)) + "\\n").encode())

def magnitude(weight):
    note("begun", os.getpid())
    return weight.abs()

def write_json(path, content, inner=tasks.write_json):
    inner(path, content)
    if content["status"] == "finished":
        note("stored", os.getpid(), path.parent.name, path.stat().st_ino)

if os.getpid() != {driver}:
    tasks.write_json = write_json
"""


class Trouble:
    """Kills workers at work and machines of a cluster, at moments and in an order that a seed draws, and says what it killed."""

    def __init__(self, machines, log: Path, seed: int) -> None:
        self.machines, self.log, self.rng, self.killed = machines, log, random.Random(seed), []
        kinds = self.rng.sample(["worker", "worker", "machine", "machine"], 4)
        self.plan = list(zip(sorted(self.rng.sample(range(15, 150), 4)), kinds, strict=True))

    def look(self) -> None:
        """Strike, if it is time."""
        begun = [line.split()[1] for line in lines(self.log) if line.startswith("begun")]
        if not self.plan or len(begun) < self.plan[0][0]:
            return
        if self.plan.pop(0)[1] == "machine":
            gone = self.rng.choice(sorted(self.machines.worker_nodes, key=lambda node: node.unique_id))
            self.machines.remove_node(gone, allow_graceful=False)
            self.machines.add_node(num_cpus=1, wait=False)
            self.killed.append(f"a machine at trial {len(begun)}")
        else:
            alive = sorted({int(p) for p in begun if Path(f"/proc/{p}").exists()})
            os.kill(self.rng.choice(alive), signal.SIGKILL)
            self.killed.append(f"a worker at trial {len(begun)}")


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


@pytest.mark.slow
def test_a_sweep_while_workers_and_machines_are_killed_finishes_every_trial_once(machines, tmp_path, monkeypatch):
    """200 trials on three machines, of which two are killed, and two workers.

    "Once" means: whatever was begun again, a trial is stored once, and what is stored is never replaced.
    """
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "log"
    (tmp_path / "witness.py").write_text(WITNESS.format(log=str(log), driver=os.getpid()))
    reference = ps.run(FAULTS, out=tmp_path / "serial", engine="serial", stack="off")
    assert len(reference.trials) == 200
    log.unlink()
    trouble, inner = Trouble(machines, log, seed=8), cluster.Cluster._arrived

    def arrived(self, job, future):
        trouble.look()
        return inner(self, job, future)

    monkeypatch.setattr(cluster.Cluster, "_arrived", arrived)
    run = ps.run(FAULTS, out=tmp_path / "ray", engine=f"ray={machines.address}", stack="off")
    began = sum(line.startswith("begun") for line in lines(log))
    print(f"killed {', '.join(trouble.killed)}; 200 trials took {began} beginnings")
    assert sorted(what.split(" at ")[0] for what in trouble.killed) == ["a machine", "a machine", "a worker", "a worker"]
    assert (run.trials["status"] == "finished").all()
    stored = [line.split()[2:] for line in lines(log) if line.startswith("stored")]
    names = [name for name, _ in stored]
    assert len(names) == len(set(names)), "no trial was stored twice"
    assert len(names) >= 200 - len(trouble.killed), "a worker can be killed after storing and before it notes that"
    for name, inode in stored:
        assert (run.folder / "trials" / name / "trial.json").stat().st_ino == int(inode), "and what was stored first is what there is"
    equal(run, reference)
