"""Limits and discretion: files that unpack to more than they should, that lie elsewhere, and secrets that must not be stored."""

import gzip
import io
import json
import os
import struct
import zipfile
import zlib

import duckdb
import numpy as np
import pytest
import tomli_w

import prunescope as ps
from commands import prunescope
from prunescope import limits
from prunescope.data import load
from prunescope.data.idx import read_idx
from prunescope.data.npz import read_npz
from prunescope.data.tishby import read_rule
from prunescope.discretion import discreet
from prunescope.live import Board
from prunescope.report import write_figures, write_report
from prunescope.results import schema
from prunescope.results.files import read_json, write_json
from prunescope.results.store import read_records, write_records
from prunescope.types import ConfigError, DataError, StoreError
from smallest import SMALL

SECRET = "hunter2-swordfish"


def test_limits_are_set_by_one_variable(monkeypatch):
    monkeypatch.setenv("PRUNESCOPE_LIMITS", " arrays=2G, trials=7 ,json=3k")
    assert [limits.limit(n) for n in ("arrays", "trials", "json", "config")] == [2 << 30, 7, 3 << 10, 4 << 20]
    for wrong in ("arrays", "arrays=-1", "array=3", "arrays=3GB"):
        monkeypatch.setenv("PRUNESCOPE_LIMITS", wrong)
        with pytest.raises(ConfigError, match=f"PRUNESCOPE_LIMITS: '{wrong}': expected NAME=NUMBER"):
            limits.limit("json")


def npy(shape, body=b"", kind="'<f8'"):
    head = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + body


def zipped(path, packing=zipfile.ZIP_DEFLATED, **members):
    with zipfile.ZipFile(path, "w", packing) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


def test_arrays_are_no_larger_than_what_is_in_the_file(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    with pytest.raises(DataError, match="header of 'x' states 8,000,000,000,000 bytes and 16 follow"):
        read_npz(zipped(path, x=npy("(1000000000000,)", bytes(16))))
    with pytest.raises(DataError, match="never unpickled"):
        read_npz(zipped(path, x=npy("(2,)", bytes(16), "'|O'")))
    with pytest.raises(DataError, match=r"packed in a way that numpy.savez never does"):
        read_npz(zipped(path, zipfile.ZIP_LZMA, x=npy("(2,)", bytes(16))))
    monkeypatch.setenv("PRUNESCOPE_LIMITS", "arrays=1M")
    bomb = zipped(path, x=npy(f"({1 << 18},)", bytes(1 << 21)))
    assert path.stat().st_size < 10_000
    with pytest.raises(DataError, match=r"a.npz: its arrays unpack to 2,0.* PRUNESCOPE_LIMITS=arrays=NUMBER"):
        read_npz(bomb)
    np.savez(path, x=np.ones(1 << 18))  # as large and not packed: as large as its file, so no bomb
    assert read_npz(path)["x"].sum() == 1 << 18


def test_an_idx_file_is_read_no_further_than_its_header_says(tmp_path, monkeypatch):
    path = tmp_path / "a-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(struct.pack(">4I", 2051, 2**32 - 1, 2**16, 2**16) + bytes(9)))
    with pytest.raises(DataError, match=r"announces 18,446,744,069,414,584,320 bytes: more than the limit"):
        read_idx(path)
    path.write_bytes(gzip.compress(struct.pack(">4I", 2051, 1, 2, 2) + bytes(64 << 20), 1))
    with pytest.raises(DataError, match="1 x 2 x 2 = 4 bytes but many more follow"):
        read_idx(path)
    monkeypatch.setenv("PRUNESCOPE_LIMITS", "arrays=1G")
    path.write_bytes(gzip.compress(struct.pack(">4I", 2051, 1 << 10, 1 << 10, 1 << 9) + bytes(9)))
    with pytest.raises(DataError, match="536,870,912 bytes but 9 follow"):
        read_idx(path)


def test_a_matlab_file_that_unpacks_to_too_much(tmp_path, monkeypatch):
    from scipy.io import savemat

    savemat(out := io.BytesIO(), {"F": np.zeros((4096, 12)), "y": np.zeros((1, 4096))}, do_compression=True)
    bomb = zlib.compress(bytes(1 << 22))
    path = tmp_path / "var_u.mat"
    path.write_bytes(out.getvalue() + struct.pack("<II", 15, len(bomb)) + bomb)
    monkeypatch.setenv("PRUNESCOPE_LIMITS", "matlab=2M")
    with pytest.raises(DataError, match="unpack to more than is expected"):
        read_rule(path)
    path.write_bytes(out.getvalue())
    assert read_rule(path)[0].shape == (4096, 12)


def test_a_label_is_no_reason_for_a_million_million_classes(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones((10, 2)), y=np.arange(10) * 10**11)
    with pytest.raises(DataError, match=r"npz: a label is 900,000,000,000, .* limit of 1,000,000"):
        load("npz", options={"path": str(tmp_path / "a.npz")})


@pytest.fixture
def records(tmp_path):
    facts = [schema.Record("loss", float(i), "nats", "train", epoch=float(i)) for i in range(3)]
    trial = dict.fromkeys(schema.TRIAL_COLUMNS, "a") | {"sparsity": 0.5, "seed": 0}
    write_records(tmp_path / "records.parquet", schema.frame(facts, trial))
    return tmp_path / "records.parquet"


MANY = "SELECT * REPLACE(1.0 AS value) FROM m, range(30000)"
LONG = "SELECT * REPLACE(repeat('a', 90000) AS parameters) FROM m, range(900)"


@pytest.mark.parametrize(("made", "told"), [(MANY, "90,000 records"), (LONG, "bytes of text")])
def test_records_that_few_bytes_make_huge(records, monkeypatch, made, told):
    monkeypatch.setenv("PRUNESCOPE_LIMITS", "rows=50000,text=8M")
    assert len(read_records(records)) == 3
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE m AS SELECT * FROM '{records}'")
        connection.execute(f"COPY (SELECT * EXCLUDE range FROM ({made})) TO '{records}' (FORMAT parquet, COMPRESSION zstd)")
    assert records.stat().st_size < 1 << 20
    with pytest.raises(StoreError, match=rf"records.parquet: .*{told}: more than the limit"):
        read_records(records)


def test_json_and_toml_of_any_size_and_depth(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    for content in (b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}", b'{"a": "\xff"}'):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=r"a.json: cannot be read as JSON"):
            read_json(path)
    path.write_bytes(b'{"a": "\\ud800"}')
    assert read_json(path) == {"a": "?"}
    monkeypatch.setenv("PRUNESCOPE_LIMITS", "json=1k,config=1k,trials=100")
    path.write_bytes(b'{"a": "' + b"a" * 2000 + b'"}')
    with pytest.raises(StoreError, match=r"a.json: 2,009 bytes: more than the limit of 1,024"):
        read_json(path)
    toml = tmp_path / "a.toml"
    for content in ("a = " + "[" * 5000, "a = " + "9" * 5000, "[data]\nname = 1979-05-27", "[training]\nlr = nan", "#" * 2000):
        toml.write_text(content)
        with pytest.raises(ConfigError):
            ps.plan(toml)
    for many in ({"seeds": 10**15}, {"seeds": 10, "grid": {"model.a": [1] * 5, "model.b": [1] * 5}}):
        with pytest.raises(ConfigError, match="more than the limit of 100"):
            ps.plan(many)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "trial.json")
    with pytest.raises(StoreError, match="is no regular file"):
        read_json(tmp_path / "trial.json")


@pytest.fixture
def stranger(tmp_path):
    """A run folder whose links lead to what is somebody else's."""
    run = ps.run({**SMALL, "seeds": 3}, engine="serial", out=tmp_path / "run")
    (tmp_path / "private.json").write_text(json.dumps({"status": "failed", "reason": SECRET}))
    (tmp_path / "elsewhere").mkdir()
    first, second, third = (run.folder / "trials" / h for h in run.trials["hash"])
    (first / "trial.json").unlink()
    (first / "trial.json").symlink_to(tmp_path / "private.json")
    second.rename(tmp_path / "elsewhere" / second.name)
    second.symlink_to(tmp_path / "elsewhere" / second.name)
    (third / "masks.safetensors").unlink()
    os.mkfifo(third / "masks.safetensors")
    (run.folder / "figures").symlink_to(tmp_path / "elsewhere")
    return run.folder


def test_links_that_lead_out_of_a_run_folder(stranger, monkeypatch):
    run = ps.load(stranger)
    assert set(run.trials["status"]) == {"damaged"}
    assert "leads out of the run's folder through a link, and is not read" in run.problems[0]
    assert "is a pipe or device" in run.problems[2]
    write_report(run)
    with pytest.raises(StoreError, match="figures: leads out of the run's folder"):
        write_figures(run)
    assert SECRET not in json.dumps(Board(stranger).state())
    assert SECRET.encode() not in everything(stranger)
    monkeypatch.setenv("PRUNESCOPE_LIMITS", "links=1")
    assert sorted(ps.load(stranger).trials["status"]) == ["damaged", "failed", "finished"]
    (stranger / "experiment.json").rename(stranger.parent / "experiment.json")
    (stranger / "experiment.json").symlink_to(stranger.parent / "experiment.json")
    assert len(ps.load(stranger).trials) == 3
    monkeypatch.delenv("PRUNESCOPE_LIMITS")
    with pytest.raises(StoreError, match=r"experiment.json: leads out"):
        ps.load(stranger)


def test_hashes_that_lead_out_of_a_run_folder(stranger):
    about = read_json(stranger / "experiment.json")
    for odd in ("../../elsewhere", "/etc", "..", "a/b"):
        write_json(stranger / "experiment.json", about | {"trials": [about["trials"][0] | {"hash": odd}]})
        assert not len(ps.load(stranger).trials)
        assert Board(stranger).state()["trials"] == []


CODE = """
import os
import torch

def net(input_shape, classes, width=4):
    return torch.nn.Sequential(torch.nn.Linear(input_shape[0], width), torch.nn.ReLU(), torch.nn.Linear(width, classes))

class Fails(torch.optim.SGD):
    def step(self, closure=None):
        raise RuntimeError("no answer from https://me:" + os.environ["MINE_PASSWORD"] + "@host, key " + os.environ["SOME_API_KEY"])

def fails(parameters, settings):
    return Fails(parameters, lr=settings.lr)
"""


def everything(folder):
    return b"".join(p.read_bytes() + p.name.encode() for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


def test_secrets_are_in_no_file_of_a_run(tmp_path, monkeypatch):
    """In the environment, in the address of a tracker, and in what a trial fails with."""
    (tmp_path / "private.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINE_PASSWORD", SECRET)
    monkeypatch.setenv("SOME_API_KEY", f"key-{SECRET}")
    monkeypatch.setenv("HARMLESS", "a-long-value-of-the-environment")
    variants = [{"name": "good"}, {"name": "bad", "training": {"optimizer": "private:fails"}}]
    (tmp_path / "a.toml").write_text(tomli_w.dumps({**SMALL, "model": {"name": "private:net"}, "variant": variants}))
    told = []
    monkeypatch.setattr("prunescope.report.write_figures", lambda run: [])  # pictures take long and hold numbers alone
    monkeypatch.setattr("prunescope.integrations.mlflow.maker", lambda uri, folder: told.append(uri) or (lambda following: 1 / 0))
    words = ("--allow", "private", "--out", "run", "--engine", "serial", "--log", f"mlflow=http://me:{SECRET}@localhost:1")
    with pytest.warns(UserWarning, match="log mlflow: ended by"):
        assert prunescope(monkeypatch, "run", "a.toml", *words) == 1
    assert told == [f"http://me:{SECRET}@localhost:1"]
    failed = ps.load("run").trials.set_index("variant").loc["bad", "reason"]
    assert failed == "RuntimeError: no answer from https://***@host, key ***"
    good = ps.load("run").trials.set_index("variant").loc["good", "hash"]
    words = ("export-model", f"run:{good}", "--out", "run/net.safetensors", "--allow", "private")
    assert prunescope(monkeypatch, *words) == 0
    assert (tmp_path / "run" / "net.safetensors.md").exists()
    content = everything(tmp_path / "run")
    assert SECRET.encode() not in content
    assert b"a-long-value-of-the-environment" not in content


@pytest.mark.parametrize(
    "settings",
    [{"data": {"password": SECRET}}, {"data": {"name": "digits", "hf_token": SECRET}}, {"model": {"at": f"s3://me:{SECRET}@host/x"}}],
)
def test_secrets_among_settings_are_refused(settings, tmp_path):
    with pytest.raises(ConfigError, match="settings are stored in the run folder") as error:
        ps.run({**SMALL, **settings}, out=tmp_path / "run")
    assert SECRET not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_what_is_no_secret_stays(monkeypatch):
    monkeypatch.setenv("API_TOKEN", "abc")
    assert discreet("abc https://host/a:b@c http://host:80/x") == "abc https://host/a:b@c http://host:80/x"


def test_files_do_not_write_to_the_terminal_what_they_like(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text('[training]\nloss = "x"\n"a\\u001b[2Jb" = 1\n')
    assert prunescope(monkeypatch, "run", "a.toml") == 2
    assert "\x1b" not in capsys.readouterr().err
