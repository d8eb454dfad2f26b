"""Plans: what an experiment's config stands for, its trials, checks before anything runs, and how it is written down."""

from __future__ import annotations

import contextlib
import json
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import tomli_w

from prunescope import __version__
from prunescope import config as configs
from prunescope.config import ExperimentConfig
from prunescope.experiments import engines, presets
from prunescope.experiments.deployment import check_extras
from prunescope.experiments.sweep import Trial, trials
from prunescope.experiments.trial import build_model, load_data
from prunescope.results import schema
from prunescope.training.optim import build as build_optimizer
from prunescope.types import ConfigError

OPTIONAL = ("onnx", "onnxruntime", "onnxscript", "optuna", "ray", "torchao")
PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "pandas", "duckdb", "safetensors")


@dataclass(frozen=True)
class Plan:
    """A resolved experiment: its config, its tables as read, and its trials.

    A search brings its own: with the `command` that reproduces it and the `notes` of a `check` that was made.
    """

    experiment: ExperimentConfig
    tables: Mapping[str, Any]
    trials: tuple[Trial, ...]
    command: str | None = None
    notes: tuple[str, ...] | None = None
    allowed: tuple[str, ...] | None = None  # code of the user's own that settings may name; None: any


def plan(
    source: str | Path | Mapping[str, Any] | Plan,
    overrides: Mapping[str, Any] | Sequence[tuple[str, Any]] = (),
    *,
    allow: Sequence[str] = (),
) -> Plan:
    """The trials that a preset's name, a TOML file or tables stand for, with dotted `overrides` laid over them; a Plan as it is.

    allow   functions "module:function" of one's own that a file may name, or whole modules; a mapping and overrides may name any
    """
    if isinstance(source, Plan):
        return source
    tables, name = presets.tables(source)
    return plan_tables(tables, overrides, name=name, allow=None if isinstance(source, Mapping) else allow)


def plan_tables(
    tables: Mapping[str, Any], overrides: Mapping[str, Any] | Sequence[tuple[str, Any]] = (), *, name: str, allow: Sequence[str] | None
) -> Plan:
    """The trials of tables that came from a file called `name`; `allow` None: they are the user's own."""
    allowed = None if allow is None else [*configs.allowing(allow), *configs.names_in(dict(overrides))]
    tables = configs.override(tables, overrides)
    experiment = configs.experiment_config(tables, source=name)
    found = tuple(trials(experiment, tables, allowed))
    return Plan(experiment, tables, found, allowed=None if allowed is None else tuple(allowed))


def in_shard(trials: Sequence[Trial], shard: str | None) -> list[Trial]:
    """The trials of part i of n, for `shard` "i/n"; all of them for None. Parts go by hashes: a trial is in one of them.

    >>> in_shard([], "3/2")
    Traceback (most recent call last):
        ...
    prunescope.types.ConfigError: shard '3/2': expected i/n with i from 1 to n, e.g. 3/20 for the third of twenty parts
    """
    if shard is None:
        return list(trials)
    part, _, parts = shard.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise ConfigError(f"shard {shard!r}: expected i/n with i from 1 to n, e.g. 3/20 for the third of twenty parts")
    return [t for t in trials if int(t.hash, 16) % int(parts) == int(part) - 1]


def check(planned: Plan, data_dir: Path | None) -> list[str]:
    """Load each data set and build each network and optimiser once, so that mistakes show before the sweep; returns the data's notes."""
    notes: dict[str, None] = {}
    seen = set()
    for trial in planned.trials:
        check_extras(trial.config)
        key = configs.value_hash({s: getattr(trial.config, s).model_dump(mode="json") for s in ("data", "model", "training")})
        if key in seen:
            continue
        seen.add(key)
        data = load_data(trial.config.data, trial.seed, data_dir)
        build_optimizer(build_model(trial, data), trial.config.training)
        notes |= dict.fromkeys(data.notes)
    return list(notes)


def reproduce(source: Any, overrides: Any, folder: Path, planned: Plan, *, verb: str = "run") -> str:
    """The command that runs the same experiment again, wherever the data lie; it allows by name the functions that the file names."""
    what = str(folder / "experiment.toml") if isinstance(source, Mapping) else str(source)
    changes = {} if isinstance(source, Mapping) else dict(overrides)
    settings = {id(t.config): t.config for t in planned.trials}.values()  # the trials of a variant share theirs
    named = dict.fromkeys(name for config in settings for name in configs.own_names(config.model_dump()).values())
    named |= dict.fromkeys(configs.names_in(planned.tables.get("search", {})))
    allowed = [name for name in named if name not in configs.names_in(changes)]
    words = [w for k, v in changes.items() for w in ("-s", f"{k}={json.dumps(v, ensure_ascii=False)}")]
    return shlex.join(["prunescope", verb, what, *words, *(w for name in allowed for w in ("--allow", name))])


def toml_text(planned: Plan) -> str:
    """The experiment's config as TOML that can be run; keys set to null are left out."""
    return tomli_w.dumps(_without_none(dict(planned.tables)))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return [_without_none(v) for v in value] if isinstance(value, list) else value


def describe(planned: Plan, data_notes: Sequence[str], command: str) -> dict[str, Any]:
    """What experiment.json holds: the experiment in full, where it ran and with what, and its planned trials."""
    experiment = planned.experiment
    return {
        "schema": schema.VERSION,
        "name": experiment.name,
        "title": experiment.title or experiment.name,
        "question": experiment.question,
        "notes": experiment.notes,
        "faults": experiment.faults,
        "baseline": experiment.baseline,
        "config": experiment.model_dump(mode="json"),
        "toml": toml_text(planned),
        "command": command,
        "data_notes": list(data_notes),
        "versions": versions(),
        "machine": f"{platform.machine()}, {engines.cores()} cores, Python {platform.python_version()}",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "trials": [{"hash": t.hash, **{c: getattr(t, c) for c in ("group", "variant", "sparsity", "seed")}} for t in planned.trials],
    }


def versions() -> dict[str, str]:
    """Versions of every package that has a part in the results; optional ones where they are installed."""
    found = {"prunescope": __version__}  # its source may be on the path without being installed
    for name in (*PACKAGES, *OPTIONAL):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
