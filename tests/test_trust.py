"""Trust: no file makes prunescope import or run code that the user did not allow."""

import json
import sys

import pytest
import safetensors.torch
import tomli_w
import torch

import prunescope as ps
from commands import prunescope
from prunescope import models
from prunescope.config import TrialConfig
from prunescope.experiments.opening import opened
from prunescope.experiments.saved import open_saved
from prunescope.experiments.scan import latency_of
from prunescope.report import write_report
from prunescope.types import ConfigError, StoreError
from smallest import SMALL

CODE = """
import pathlib
import torch
pathlib.Path(__file__).with_name("it-ran").touch()

def net(input_shape, classes):
    return torch.nn.Sequential(torch.nn.Linear(input_shape[0], 4), torch.nn.ReLU(), torch.nn.Linear(4, classes))

def score(weight):
    return weight.abs()

class Inner:
    @staticmethod
    def net(input_shape, classes):
        return net(input_shape, classes)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with code in it that says when it was imported."""
    (tmp_path / "strange.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("strange", None)


def written(folder, **tables):
    path = folder / "config.toml"
    path.write_text(tomli_w.dumps({**SMALL, **tables}))
    return path


def set_at(tables, place, value):
    *parents, last = place.split(".")
    for parent in parents:
        tables = tables.setdefault(parent, {})
    tables[last] = value


def text_places(schema, prefix=""):
    """Dotted keys of every setting of a trial that may be a text, or tables or lists of texts."""
    for name, field in schema.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and hasattr(kind, "model_fields"):
            yield from text_places(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


@pytest.mark.parametrize(("name", "where"), [("strange:Inner.net", "shared"), ("strange:net", "variant"), ("strange:net", "grid")])
def test_a_name_in_a_file_imports_nothing_wherever_it_stands(place, name, where):
    """Every key of a trial's settings, and keys that only another function would know, with a name in place of its value."""
    places = [*text_places(TrialConfig), "data.of", "model.inner", "prune.options.estimator", "model.strange:net.inner"]
    assert {"finetune.optimizer", "measure.plane.estimators", "deploy.backends", "prune.schedule"} <= set(places)
    for key in places:
        for value in (name, [name], {"name": name}, [[{"a": {"b": [name]}}]]) if where == "shared" else ([{"name": name}],):
            tables = {**SMALL}
            if where == "grid":
                tables["grid"] = {key: [value]}
            else:
                changes = {"prune": {"when": "trained"}}
                set_at(changes, key, value)
                tables |= {"variant": [{"name": "v", **changes}]} if where == "variant" else {**tables, **changes}
            never = key in ("prune.layers", "prune.exclude", "measure.plane.layers", "quantize.exclude") and value == [name]
            if not never:
                with pytest.raises(ConfigError):
                    ps.plan(written(place, **tables))
            assert "strange" not in sys.modules, key
    assert not (place / "it-ran").exists()


def test_the_refusal_is_one_sentence_with_what_to_do(place):
    path = written(place, model={"name": "strange:net"}, prune={"criterion": "strange:score"})
    with pytest.raises(ConfigError) as caught:
        ps.plan(path)
    assert str(caught.value) == (
        "variant 'pruned': model.name = 'strange:net' names code of its own, and a file may run none that was not allowed: if you trust "
        'it, add --allow strange:net --allow strange:score (in Python: allow=["strange:net", "strange:score"])'
    )
    with pytest.raises(ConfigError, match="add --allow strange:score "):
        ps.plan(path, allow=["strange:net"])
    with pytest.raises(ConfigError, match="add --allow strange:score "):
        ps.plan(path, {"model.name": "strange:net"})
    with pytest.raises(ConfigError, match=r"allow 'os.system\(\)': expected module:function"):
        ps.plan(path, allow=["os.system()"])
    assert not (place / "it-ran").exists()


@pytest.mark.parametrize(
    "how",
    [
        {"allow": ["strange"]},
        {"allow": ["strange:net", "strange:score"]},
        {"overrides": {"model.name": "strange:net", "prune": {"criterion": "strange:score"}}},
    ],
)
def test_what_the_user_names_is_allowed(place, how):
    assert len(ps.plan(written(place, model={"name": "strange:net"}, prune={"criterion": "strange:score"}), **how).trials) == 1


def test_names_that_are_registered_need_no_leave_where_they_are_and_only_there(place):
    (place / "hf.py").write_text(CODE)
    path = written(place, model={"name": "hf:gpt2", "n_layer": 1}, prune={"granularity": "2:4"})
    assert ps.plan(path).trials[0].config.model.name == "hf:gpt2"
    for settings in ({"criterion": "hf:gpt2"}, {"criterion": "n:m"}, {"options": {"by": "hf:gpt2"}}):
        with pytest.raises(ConfigError, match="names code of its own"):
            ps.plan(written(place, prune=settings))
    with pytest.raises(ConfigError, match="names code of its own"):
        ps.plan(written(place, data={"name": "digits:load"}), {"data.train_size": 5, "model.name": "digits"})
    assert not (place / "it-ran").exists()


def test_a_function_is_reached_through_its_own_module_alone():
    with pytest.raises(ConfigError, match="os is a module that shutil imports: name it directly"):
        models.build("shutil:os.getcwd", input_shape=(2,), classes=2, seed=0)
    with pytest.raises(ConfigError, match="both names as Python writes them"):
        models.build("../strange:net", input_shape=(2,), classes=2, seed=0)


def test_run_folders_and_files_name_no_code_either(place, monkeypatch):
    """A run that was made with leave asks for it again: whoever opens the folder may be somebody else."""
    path = written(place, model={"name": "strange:net"})
    assert prunescope(monkeypatch, "run", path, "--out", "run") == 2
    assert not (place / "run").exists()
    assert prunescope(monkeypatch, "run", path, "--dry-run", "--allow", "strange:net") == 0
    ps.run(path, out="run", allow=["strange"], engine="serial")
    told = json.loads((place / "run" / "experiment.json").read_text())
    assert told["command"] == f"prunescope run {path} --allow strange:net"
    (place / "it-ran").unlink()
    sys.modules.pop("strange")
    write_report(ps.load("run"))
    for call in (opened, open_saved):
        with pytest.raises(ConfigError, match="names code of its own"):
            call("run")
    for command in (("bench", "run", "--seconds", "0.001"), ("compact", "run"), ("export-model", "run")):
        assert prunescope(monkeypatch, *command) == 2
    with pytest.raises(ConfigError, match="names code of its own"):
        latency_of(str(place / "config.toml"))
    assert not (place / "it-ran").exists()
    assert prunescope(monkeypatch, "export-model", "run", "--out", "a.safetensors", "--allow", "strange:net") == 0
    with pytest.raises(ConfigError, match=r"model.name = 'strange:net' names code of its own"):
        open_saved("a.safetensors")
    assert isinstance(open_saved("a.safetensors", allow=["strange"]).model, torch.nn.Sequential)


def test_a_mapping_is_the_users_own_and_its_command_allows_what_it_names(place):
    run = ps.run({**SMALL, "model": {"name": "strange:net"}, "name": "mine"}, engine="serial", out=place / "run")
    assert run.experiment["command"].endswith("run/experiment.toml --allow strange:net")
    with pytest.raises(ConfigError, match="names code of its own"):
        ps.plan(place / "run" / "experiment.toml")


@pytest.mark.parametrize("odd", [{"input_shape": [2**40]}, {"classes": "ten"}, {"input_shape": 3}, {"model": "mlp"}, {"classes": -1}])
def test_a_header_that_states_nonsense_builds_nothing(tmp_path, odd):
    builder = {"model": {"name": "mlp", "widths": [2]}, "input_shape": [4], "classes": 2, **odd}
    path = tmp_path / "net.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, {"prunescope": json.dumps({"about": {"builder": builder}})})
    with pytest.raises((ConfigError, StoreError), match=r"net.safetensors: "):
        open_saved(str(path))


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("timm:resnet10t", {"checkpoint_path": "evil.pth"}, "checkpoint_path would fetch, unpickle or run"),
        ("timm:resnet10t", {"pretrained": True}, "pretrained would fetch"),
        ("hf:gpt2", {"trust_remote_code": True}, "trust_remote_code would fetch"),
        ("hf:gpt2", {"n_layer": 1, "attn_implementation": "somebody/kernel"}, "attention 'somebody/kernel' would be code from elsewhere"),
    ],
)
def test_options_of_other_packages_that_fetch_or_run_are_refused(name, options, told, monkeypatch):
    if name.startswith("timm"):  # refused whether timm is there or not
        monkeypatch.setitem(sys.modules, "timm", None)
    else:
        pytest.importorskip("transformers")
    with pytest.raises(ConfigError, match=told):
        models.build(name, input_shape=(3, 32, 32) if "timm" in name else (8, 8), classes=2, seed=0, options=options)


def test_code_in_a_folder_of_weights_is_not_run(place):
    """A checkpoint that brings its own classes (auto_map), asks for attention from a hub, or holds pickled weights beside a decoy."""
    transformers = pytest.importorskip("transformers")
    folder = place / "checkpoint"
    folder.mkdir()
    (folder / "code.py").write_text(CODE)
    sizes = {"n_layer": 1, "n_embd": 8, "n_head": 2, "n_positions": 8, "vocab_size": 20}
    own = {"auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    for about in ({"model_type": "odd", **own}, {"model_type": "gpt2", **sizes, **own}, {"model_type": "gpt2", **sizes}):
        (folder / "config.json").write_text(json.dumps(about))
        if about["model_type"] == "gpt2":
            models.build(f"hf:{folder}", input_shape=(4, 3), classes=2, seed=0)
        else:
            with pytest.raises(ConfigError):
                models.build(f"hf:{folder}", input_shape=(4, 3), classes=2, seed=0)
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", **sizes, "attn_implementation": "a/b"}))
    with pytest.raises(ConfigError, match="attention 'a/b' would be code from elsewhere"):
        models.build(f"hf:{folder}", input_shape=(4, 3), classes=2, seed=0)
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", **sizes}))
    safetensors.torch.save_file({"a": torch.zeros(1)}, folder / "decoy.safetensors")
    pickled = transformers.AutoModel.from_config(transformers.AutoConfig.from_pretrained(folder)).state_dict()
    torch.save(pickled, folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"safetensors"):
        models.build(f"hf:{folder}", input_shape=(4, 3), classes=2, seed=0)
    assert not list(place.rglob("it-ran"))


def test_a_graph_file_needs_trust(tmp_path):
    (tmp_path / "net.pt2").write_bytes(b"PK")
    with pytest.raises(StoreError, match=r"torch.export.load runs code that a .pt2 file names: pass trust=True"):
        ps.load_compact(None, tmp_path / "net.pt2")
    with pytest.raises(StoreError, match=r"cannot be read as a torch.export program"):
        ps.load_compact(None, tmp_path / "net.pt2", trust=True)


def test_sizes_in_a_compacted_file_replace_numbers_alone(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(3, 2))
    path = ps.save_compact(net, tmp_path / "net.safetensors")
    tensors = {n: t.clone() for n, t in net.state_dict().items()}
    about = json.loads(safetensors.safe_open(path, "pt").metadata()["prunescope"])
    for name, value in (("forward", 3), ("in_features", "three"), ("__class__", 1), ("training", 0)):
        safetensors.torch.save_file(tensors, path, {"prunescope": json.dumps(about | {"attributes": {"0": {name: value}}})})
        with pytest.raises(StoreError, match=r"does not fit this Sequential: .* is no size of a Linear"):
            ps.load_compact(net, path)
