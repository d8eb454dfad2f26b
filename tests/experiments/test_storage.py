"""A storage that all machines reach: what travels by it, what is whole there, and what happens when it fails."""

import contextlib
import os
import secrets

import pandas as pd
import pytest
from clustered import SMALL, batch, ordered

import prunescope as ps
from prunescope.experiments import transport
from prunescope.experiments.checkpoints import Checkpoints
from prunescope.experiments.planning import plan
from prunescope.experiments.storage import Storage
from prunescope.experiments.tasks import Task, trial_batch
from prunescope.experiments.transport import Errand, carried
from prunescope.results.store import read_records
from prunescope.types import ConfigError, MissingExtraError, StoreError


@pytest.fixture(params=["file", "memory", "own"])
def url(request, tmp_path):
    """A folder; a store of objects, which has no folders and no renames; and one of your own, such as PRUNESCOPE_STORAGE=s3://bucket/tests."""
    if request.param == "file":
        yield f"file://{tmp_path}/there"
        return
    root = "memory://there" if request.param == "memory" else os.environ.get("PRUNESCOPE_STORAGE")
    if root is None:
        pytest.skip("PRUNESCOPE_STORAGE names no storage")
    found = f"{root}/{secrets.token_hex(8)}"
    yield found
    storage = Storage(found)
    with contextlib.suppress(FileNotFoundError):  # an empty one is not there
        storage._system.rm(storage._root, recursive=True)


def test_storage_brings_finished_trials_alone(serial, tmp_path, url):
    storage = Storage(url)
    assert storage.names("trials") == set()
    names = [f"trials/{h}" for h in serial.trials["hash"]]
    for name in names:
        storage.put(serial.folder, name)
    told = (serial.folder / names[0] / "trial.json").read_bytes().replace(b"finished", b"running")
    storage._system.pipe_file(f"{storage._root}/{names[0]}/trial.json", told)
    assert storage.names("trials") == set(names)
    assert storage.fetch_all(tmp_path / "here", names) == len(names) - 1
    assert not (tmp_path / "here" / names[0]).exists()
    assert all(transport.TrialFolder(tmp_path / "here" / n).finished() for n in names[1:])


def test_a_worker_in_a_folder_of_its_own_goes_on_from_the_checkpoint_in_the_storage(tmp_path, monkeypatch, url):
    """What a machine that was lost had come to is worth as much to the next one as in a folder that all see."""
    config = {**SMALL, "seeds": 1, "training": {"epochs": 6}, "variant": [{"name": "init", "prune": {"when": "init"}}]}
    (one,) = (Task(t, tmp_path / "run", None, "cpu", checkpoint=0) for t in plan(config).trials)
    whole = ps.run(config, out=tmp_path / "whole", engine="serial", stack="off")
    epochs = []
    errand = Errand(folder=tmp_path / "run", token="somebody-else's", storage=url, parcels={})
    real = Checkpoints.reached

    def reached(self, pairs, *, measured=True):
        real(self, pairs, measured=measured)
        if measured:
            epochs.append(pairs[0][1].epoch)
            if epochs == [1, 2, 3, 4]:
                raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "reached", reached)
    with pytest.raises(KeyboardInterrupt):
        carried(trial_batch, batch(one), errand, get=dict)
    (kept,) = Storage(url).names("checkpoints")
    done = carried(trial_batch, batch(one), transport.replace(errand, again=True), get=dict)
    assert done.result == [None]
    assert epochs == [1, 2, 3, 4, 5, 6], "none was done again"
    assert Storage(url).names("checkpoints") == set(), "what is done needs none"
    (name,) = done.stored
    assert Storage(url).fetch(tmp_path / "run", name)
    pd.testing.assert_frame_equal(
        ordered(read_records(tmp_path / "run" / name / "records.parquet")), ordered(whole.records), check_exact=True
    )
    assert kept.endswith(".safetensors")


def test_a_storage_keeps_replaces_brings_and_drops_a_file(tmp_path, url):
    storage = Storage(url)
    for content in (b"first", b"second"):
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        (tmp_path / "checkpoints" / "a.safetensors").write_bytes(content)
        storage.keep(tmp_path, "checkpoints/a.safetensors")
    assert storage.names("checkpoints") == {"checkpoints/a.safetensors"}
    assert storage.bring(tmp_path / "other", "checkpoints/a.safetensors")
    assert (tmp_path / "other" / "checkpoints" / "a.safetensors").read_bytes() == b"second"
    for _ in range(2):
        storage.drop("checkpoints/a.safetensors")
    assert not storage.bring(tmp_path / "third", "checkpoints/a.safetensors")


def test_a_checkpoint_that_the_storage_refuses_costs_its_copy_and_not_the_training(tmp_path, monkeypatch):
    config = {**SMALL, "seeds": 1, "variant": SMALL["variant"][:1]}
    (one,) = (Task(t, tmp_path / "run", None, "cpu", checkpoint=0) for t in plan(config).trials)
    monkeypatch.setattr(Storage, "keep", lambda *_: (_ for _ in ()).throw(StoreError("the bucket is full")))
    errand = Errand(folder=tmp_path / "run", token="somebody-else's", storage=f"file://{tmp_path}/there", parcels={})
    with pytest.warns(UserWarning, match="copy of a checkpoint: the bucket is full"):
        done = carried(trial_batch, batch(one), errand, get=dict)
    assert done.result == [None]
    assert done.stored


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [("folder", ConfigError, "expected a URL"), ("nonsense://x", ConfigError, "cannot be used"), ("s3://x", MissingExtraError, "s3fs")],
)
def test_a_storage_that_cannot_be_used_is_one_sentence(url, error, words):
    if url == "s3://x":
        try:
            import s3fs  # noqa: F401
        except ImportError:
            pass
        else:
            pytest.skip("s3fs is installed")
    with pytest.raises(error, match=words):
        Storage(url)


def test_a_storage_that_fails_is_named(tmp_path):
    (tmp_path / "there").write_text("a file where the folder should be")
    (tmp_path / "trials" / "x").mkdir(parents=True)
    (tmp_path / "trials" / "x" / "trial.json").write_text("{}")
    with pytest.raises(StoreError, match="could not write"):
        Storage(f"file://{tmp_path}/there").put(tmp_path, "trials/x")
