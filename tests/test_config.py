"""Configs: TOML and overrides in, every fault named at once, hashes of values alone."""

import json

import pytest

from prunescope import config
from prunescope.config import experiment_config, merge, override, parse_override, value_hash
from prunescope.experiments import presets
from prunescope.experiments.sweep import trials
from prunescope.types import ConfigError

FROZEN = {
    "w": ("d52c14091deee79f", "06573b362949ddf5"),
    "n": ("f5a52e7861544547", "06573b362949ddf5"),
    "r": ("5c706884e2e7e0de", "4b0892bb581986ed"),
}


def expand(tables):
    return trials(experiment_config(tables), tables)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("training.lr=1e-3", "training.lr", 0.001),
        ("data.name=no", "data.name", "no"),
        ("a=12:30", "a", "12:30"),
        ("a=true", "a", True),
        ("sparsity=[0.5, 0.9]", "sparsity", [0.5, 0.9]),
        ("a=x=y", "a", "x=y"),
        ('a="5"', "a", "5"),
        ("a=null", "a", None),
        ("a=", "a", ""),
    ],
)
def test_override_values_are_json_or_text(text, key, value):
    assert parse_override(text) == (key, value)


def test_overrides_nest_under_their_own_key_and_leave_the_source_alone():
    tables = {"data": {"name": "digits"}, "seeds": 3}
    changed = override(tables, {"data.pca": 4, "model.name": "cnn"})
    assert changed == {"data": {"name": "digits", "pca": 4}, "seeds": 3, "model": {"name": "cnn"}}
    assert tables == {"data": {"name": "digits"}, "seeds": 3}
    with pytest.raises(ConfigError, match="'seeds' is a value, not a table"):
        override(tables, {"seeds.first": 1})
    with pytest.raises(ConfigError, match="expected KEY=VALUE"):
        parse_override("training.epochs")


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"sparsity": [90]}, "for 90 % write 0.9"),
        ({"training": {"epoch": 3}}, "training.epoch: unknown key 'epoch': did you mean 'epochs'"),
        ({"variant": [{"name": "a", "prun": {}}]}, "did you mean 'prune'"),
        ({"sed": 1}, "did you mean 'seeds'"),
        ({"training": {"epochs": "three"}}, "training.epochs"),
        ({"training": {"batch_size": 0}}, "at least 1 or"),
        ({"training": {"milestones": [3]}}, 'set schedule = "milestones"'),
        ({"seeds": 0}, "number of replicates"),
        ({"baseline": "x", "variant": [{"name": "y"}]}, "unknown variant 'x'"),
        ({"variant": [{"name": "y"}, {"name": "y"}]}, "y stands more than once"),
        ({"prune": {"biases": "no"}}, "prune.biases"),
        ({"prune": {"begin": 0.8}}, "begin = 0.8 and end = 0.75: expected begin below end"),
        ({"prune": {"every": 0}}, "prune.every"),
        ({"prune": {"soft": True}}, 'soft = true goes with when = "during", not with "trained"'),
        ({"prune": {"when": "dynamic", "granularity": "neuron"}}, "exchanges single weights"),
        ({"prune": {"when": "rewind", "rewind": 10}}, "prune.rewind = 10: expected 0 or an epoch of the training between 0 and 10"),
        ({"prune": {"tickets": "reinitialised"}}, "is a control of when"),
        ({"prune": {"when": "rewind", "tickets": "random-mask", "granularity": "neuron"}}, "draws single weights"),
        ({"training": {"from_epoch": 11}}, "from_epoch 11 lies beyond epochs = 10"),
        ({"prune": {"when": "rewind", "rewind": -1}}, "prune.rewind"),
        ({"prune": {"when": "rewind", "rewind": "lr"}}, "prune.rewind"),
        ({"prune": {"when": "rewind"}, "finetune": {"epochs": 2}}, "leave finetune.epochs at 0, got 2"),
        ({"prune": {"when": "rewind", "rate": 0.2, "schedule": "linear"}}, "set one of them"),
    ],
)
def test_faults_are_named(tables, words):
    with pytest.raises(ConfigError, match=words.replace("[", r"\[")):
        experiment_config(tables)


def test_all_faults_come_at_once():
    with pytest.raises(ConfigError) as caught:
        experiment_config({"training": {"epoch": 3, "lr": -1}, "sparsity": [2]})
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"prune": {"criterion": "magnitud"}}, "did you mean 'magnitude'"),
        ({"prune": {"granularity": "unit"}}, "unknown granularity"),
        ({"training": {"optimizer": "sgdd"}}, "did you mean 'sgd'"),
        ({"data": {"name": "mnst"}}, "did you mean 'mnist'"),
        ({"model": {"name": "mpl"}}, "did you mean 'mlp'"),
        ({"model": {"name": "mlp", "width": [3]}}, "did you mean 'widths'"),
        ({"data": {"name": "digits", "clases": [1]}}, "did you mean 'classes'"),
        ({"variant": [{"name": "a", "training": {"epoch": 1}}]}, "variant 'a': training.epoch"),
        ({"grid": {"activation": ["relu"]}}, "dotted key"),
        ({"variant": [{"name": "a", "sparsity": []}]}, "list of sparsity levels is empty"),
        ({"prune": {"threshold": 0.1, "table": {"fc1": 0.5}}}, "expected one of them"),
        ({"prune": {"when": "iterative", "threshold": 0.1}}, "goes by sparsity"),
        ({"prune": {"when": "dynamic", "table": {"fc1": 0.5}}}, "dynamic pruning goes by sparsity"),
        ({"prune": {"when": "during", "schedule": "cubical"}}, "did you mean 'cubic'"),
    ],
)
def test_names_and_combinations_are_checked_before_anything_runs(tables, words):
    with pytest.raises(ConfigError, match=words):
        expand(tables)


def test_trials_are_variants_times_levels_times_seeds_times_grid():
    tables = {
        "seeds": 2, "sparsity": [0.5, 0.9], "grid": {"model.activation": ["relu", "tanh"]},
        "variant": [{"name": "dense", "prune": {"when": "never"}}, {"name": "w"}, {"name": "t", "prune": {"threshold": 0.1}}],
    }  # fmt: skip
    found = expand(tables)
    assert len(found) == 2 * 2 * (1 + 2 + 1)
    assert len({t.hash for t in found}) == len(found)
    assert {t.sparsity for t in found if t.variant == "t"} == {None}
    assert {t.config.model.options["activation"] for t in found if t.group == "tanh"} == {"tanh"}


def test_hash_is_of_values_not_of_spelling_and_not_of_order():
    one = expand({"training": {"epochs": 3, "lr": 0.1}, "seeds": [0]})
    two = expand({"seeds": 1, "training": {"lr": 1e-1, "epochs": 3}, "title": "another title", "notes": ["x"]})
    assert [t.hash for t in one] == [t.hash for t in two]
    assert one[0].hash != expand({"training": {"epochs": 4, "lr": 0.1}, "seeds": [0]})[0].hash
    spelt_out = expand({"data": {"name": "digits", "validation": 0.1}, "training": {"epochs": 3, "lr": 0.1}, "seeds": 1})
    assert [t.hash for t in spelt_out] == [t.hash for t in one], "defaults written out change nothing"


def test_frozen_hash():
    """Finished trials of earlier versions are found again only while this stays: change it knowingly, with a schema version."""
    assert value_hash({"a": [1, 2.5, "x", None, True]}) == "781726d78a18d28b"


def test_hashes_of_trials_stay_what_they_were():
    """A run folder finds its finished trials by these. A key that is added changes none of them as long as it has its default."""
    tables = {
        "seeds": 1, "sparsity": [0.5], "data": {"name": "digits", "flatten": True}, "model": {"name": "mlp", "widths": [8]},
        "variant": [
            {"name": "w"},
            {"name": "n", "prune": {"granularity": "neuron"}, "finetune": {"epochs": 2}},
            {"name": "r", "prune": {"when": "rewind", "rewind": 2}},
        ],
    }  # fmt: skip
    assert {t.variant: (t.hash, t.dense_hash) for t in expand(tables)} == FROZEN


DEFAULT_SETTINGS = {
    "data": "digits None None None 0.1 None unit None False True shared 0",
    "model": "mlp",
    "training": "10 64 False cross-entropy sgd 0.1 0.0 False 0.0 constant [] 0.1",
    "finetune": "0 True None None None None constant []",
    "prune": "trained magnitude weight uniform l2 None None None [] False with-unit 5 False {}",
    "measure": "all 100 50 False False",
}
OLD_KEYS = {
    "data": "name classes train_size test_size validation test scale pca flatten stratify split split_seed",
    "model": "name",
    "training": "epochs batch_size drop_last loss optimizer lr momentum nesterov weight_decay schedule milestones gamma",
    "finetune": "epochs hold_masks lr optimizer momentum weight_decay schedule milestones",
    "prune": "when criterion granularity allocation norm threshold table layers exclude output biases rounds allow_empty options",
    "measure": "epochs points histogram_bins gradients latency",
}


@pytest.mark.parametrize("section", DEFAULT_SETTINGS)
def test_a_default_that_changes_needs_another_number(section):
    """Hashes leave defaults out: another value for a default would take the results of the old one for its own."""
    values = config.TrialConfig().model_dump()[section]
    assert " ".join(str(values[k]) for k in OLD_KEYS[section].split()) == DEFAULT_SETTINGS[section], "raise config.DEFAULTS, then this test"
    assert config.DEFAULTS == 1


def test_settings_at_their_defaults_are_stored_but_not_hashed():
    trial = expand({"seeds": 1, "prune": {"calibration": 512, "rounds": 5}})[0]
    assert trial.hash == expand({"seeds": 1})[0].hash
    assert trial.hash != expand({"seeds": 1, "prune": {"calibration": 100}})[0].hash
    assert trial.values["prune"]["calibration"] == 512
    assert trial.values["training"]["epochs"] == 10
    assert trial.values["measure"]["plane"]["input_bins"] == 30


def test_trials_with_the_same_training_share_their_dense_phase():
    tables = {"sparsity": [0.5, 0.9], "seeds": 1, "variant": [
        {"name": "w"},
        {"name": "n", "prune": {"granularity": "neuron"}, "finetune": {"epochs": 2}},
        {"name": "i", "prune": {"when": "init"}},
    ]}  # fmt: skip
    found = expand(tables)
    assert len({t.dense_hash for t in found if t.variant in "wn"}) == 1
    assert {t.dense_hash for t in found if t.variant == "i"} == {None}


def test_merge_replaces_lists_and_merges_tables():
    assert merge({"a": {"b": 1, "c": [1]}}, {"a": {"c": [2]}, "d": 3}) == {"a": {"b": 1, "c": [2]}, "d": 3}


STUDIES = ("pruning-information", "magnitude", "information-plane", "large-mlp", "weight-vs-neuron", "tishby", "saxe")


@pytest.mark.parametrize("name", presets.names())
def test_presets_are_valid_and_say_what_they_ask(name):
    tables, _ = presets.tables(name)
    experiment = experiment_config(tables, source=name)
    assert experiment.name == name
    assert experiment.title
    assert experiment.question.endswith("?")
    assert trials(experiment, tables)
    assert bool(experiment.faults) == name.endswith("-as-published"), "faults are what the as-published twins name"
    if name in STUDIES:
        assert f"{name}-as-published" in presets.names()


def test_files(tmp_path):
    (tmp_path / "mine.toml").write_text('extends = "quickstart"\nseeds = 1\n')
    tables, _ = presets.tables(tmp_path / "mine.toml")
    assert tables["name"] == "mine"
    assert tables["seeds"] == 1
    assert tables["model"]["name"] == "mlp"
    (tmp_path / "bad.toml").write_text("seeds = = 1")
    with pytest.raises(ConfigError, match="not valid TOML"):
        presets.tables(tmp_path / "bad.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read as text"):
        presets.tables(tmp_path / "bytes.toml")
    with pytest.raises(ConfigError, match="no config file"):
        presets.tables(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="did you mean 'quickstart'"):
        presets.tables("quikstart")


def test_config_dumps_to_json():
    text = json.dumps(config.ExperimentConfig().model_dump(mode="json"))
    assert experiment_config(json.loads(text)) == config.ExperimentConfig()
