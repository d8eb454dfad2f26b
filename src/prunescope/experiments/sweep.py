"""From an experiment to its trials: variants x sparsity levels x seeds x whatever the grid crosses."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from prunescope import limits
from prunescope.config import (
    DEFAULTS,
    LATER_SECTIONS,
    SECTIONS,
    ExperimentConfig,
    OpenSection,
    TrialConfig,
    VariantConfig,
    check_allowed,
    essence,
    merge,
    once,
    override,
    validated,
    value_hash,
)
from prunescope.discretion import refuse_secrets
from prunescope.pruning.granularity import fixed_sparsity
from prunescope.registry import Registry, allocations, criteria, datasets, granularities, models, optimizers, schedules, unknown
from prunescope.types import ConfigError


@dataclass(frozen=True)
class Trial:
    """One (variant, sparsity level, seed) of an experiment with all its settings; `sparsity` is None where a threshold or table rules."""

    experiment: str
    variant: str
    group: str
    sparsity: float | None
    seed: int
    config: TrialConfig

    @property
    def values(self) -> dict[str, Any]:
        """What the results depend on, in full: every setting, the options of the named data and model among them."""
        return {**self._names, **{name: _in_full(getattr(self.config, name)) for name in SECTIONS}}

    @functools.cached_property
    def hash(self) -> str:
        """The trial's name in the run folder: a hash of its values without those left at their defaults."""
        return value_hash({"defaults": DEFAULTS, **self._names, **self._essence(SECTIONS)})

    @functools.cached_property
    def dense_hash(self) -> str | None:
        """A hash of what training before pruning depends on; None for trials that are pruned by then, which share nothing."""
        prune = self.config.prune
        if prune.when in ("init", "during", "dynamic"):
            return None
        early = {"early": prune.rewind} if prune.when == "rewind" and prune.rewind not in (0, "rate") else {}  # weights kept from epoch k
        return value_hash({"defaults": DEFAULTS, "seed": self.seed, **early, **self._essence(("data", "model", "training", "measure"))})

    @functools.cached_property
    def rounds_hash(self) -> str:
        """A hash of what the rounds of "rewind" depend on beside the dense training: all levels and kinds of tickets share them."""
        kept = {k: v for k, v in essence(self.config.prune).items() if k not in ("tickets", "rounds", "rate", "schedule")}
        return value_hash({"defaults": DEFAULTS, "dense": self.dense_hash, "prune": kept})

    @property
    def _names(self) -> dict[str, Any]:
        return {"variant": self.variant, "group": self.group, "sparsity": self.sparsity, "seed": self.seed}

    def _essence(self, names: Sequence[str]) -> dict[str, Any]:
        found = _essences(self.config)
        return {name: found[name] for name in names if found[name] or name not in LATER_SECTIONS}

    @property
    def label(self) -> str:
        """What a person calls the trial: "tanh, neurons, 80 %, seed 3"."""
        level = "" if self.sparsity is None else f"{self.sparsity * 100:g} %"
        return ", ".join(part for part in (self.group, self.variant, level, f"seed {self.seed}") if part)

    def columns(self) -> dict[str, Any]:
        """The columns of the records that name the trial."""
        prune = self.config.prune
        dense = prune.when == "never"
        criterion = prune.grow if prune.when == "dynamic" else prune.criterion
        return {
            "experiment": self.experiment,
            "trial": self.hash,
            "group": self.group,
            "variant": self.variant,
            "criterion": "" if dense else ("threshold" if prune.threshold is not None else criterion),
            "granularity": "" if dense else prune.granularity,
            "allocation": "" if dense else ("table" if prune.table is not None else prune.allocation),
            "sparsity": float("nan") if self.sparsity is None else self.sparsity,
            "seed": self.seed,
        }


@once
def _essences(config: TrialConfig) -> dict[str, dict[str, Any]]:
    return {name: essence(getattr(config, name)) for name in SECTIONS}


def _in_full(section: BaseModel) -> dict[str, Any]:
    dumped = section.model_dump(mode="json")
    if not isinstance(section, OpenSection):
        return dumped
    return {**{k: v for k, v in dumped.items() if k in type(section).model_fields}, "options": section.options}


def trials(experiment: ExperimentConfig, tables: Mapping[str, Any], allowed: Collection[str] | None = None) -> list[Trial]:
    """All trials of `experiment`, validated; `tables` is the config as read, onto which each variant's changes are laid.

    allowed   the functions of one's own that the settings may name (`prunescope.config.trust`); None: any. What passes here is carried
              out by workers without being asked again
    """
    shared = {k: tables[k] for k in SECTIONS if k in tables}
    variants = experiment.variant or [VariantConfig(name="pruned")]
    levels = max(1, len(experiment.sparsity), *(len(v.sparsity or []) for v in variants))
    count = math.prod(len(values) for values in experiment.grid.values()) * len(variants) * levels * len(experiment.seed_list)
    if count > limits.limit("trials"):  # counted before they are made
        raise limits.beyond("trials", f"{experiment.name}: up to {count:,} trials", ConfigError)
    found = [
        Trial(experiment.name, variant.name, group, level, seed, config)
        for group, crossed in _groups(experiment.grid)
        for variant in variants
        for config in [_config(shared, crossed, variant, group, allowed)]
        for level in _levels(experiment, variant, config)
        for seed in experiment.seed_list
    ]
    by_hash: dict[str, Trial] = {}
    for trial in found:
        by_hash.setdefault(trial.hash, trial)
    return list(by_hash.values())


def _groups(grid: Mapping[str, list[Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, values in grid.items():
        if key.partition(".")[0] not in SECTIONS or not values:
            raise ConfigError(f"grid: {key!r} = {values!r}: expected a dotted key such as \"model.activation\" and a list of values for it")
    for combination in itertools.product(*grid.values()):
        yield ", ".join(map(str, combination)), dict(zip(grid, combination, strict=True))


def _config(
    shared: Mapping[str, Any], crossed: Mapping[str, Any], variant: VariantConfig, group: str, allowed: Collection[str] | None
) -> TrialConfig:
    tables = merge(override(shared, crossed), variant.changes)
    where = f"variant {variant.name!r}" + (f" of {group}" if group else "")
    config = validated(TrialConfig, tables, source=where)
    settings = config.model_dump()
    check_allowed(settings, allowed, where)
    refuse_secrets(settings, where)
    check_names(config, where)
    return config


def _levels(experiment: ExperimentConfig, variant: VariantConfig, config: TrialConfig) -> list[float | None]:
    prune = config.prune
    if prune.when == "never":
        return [0.0]
    if prune.threshold is not None or prune.table is not None:
        if prune.threshold is not None and prune.table is not None:
            raise ConfigError(f"variant {variant.name!r}: prune.threshold and prune.table are both set: expected one of them")
        if prune.when not in ("init", "trained"):
            raise ConfigError(f"variant {variant.name!r}: {prune.when} pruning goes by sparsity: leave prune.threshold and prune.table out")
        return [None]
    levels = experiment.sparsity if variant.sparsity is None else variant.sparsity
    fixed = _fixed_sparsity(config, f"variant {variant.name!r}")
    if fixed is not None:
        stated = variant.sparsity is not None or ("sparsity" in experiment.model_fields_set and "granularity" not in variant.prune)
        if stated and any(abs(level - fixed) > 1e-9 for level in levels):
            raise ConfigError(
                f"variant {variant.name!r}: {config.prune.granularity} always removes {fixed:g}, and sparsity is {levels}: "
                f"leave it out or set sparsity = [{fixed:g}]"
            )
        return [fixed]
    if not levels:
        raise ConfigError(f"variant {variant.name!r}: the list of sparsity levels is empty: give at least one, e.g. sparsity = [0.5]")
    return list(levels)


def _fixed_sparsity(config: TrialConfig, where: str) -> float | None:
    """The only sparsity that the granularity can have ("2:4": 0.5); None where it can have any. Such pruning is all or nothing."""
    prune = config.prune
    entry = granularities.get(prune.granularity)
    stated = {**entry.traits.get("stated", {}), **{k: v for k, v in prune.options.items() if k in entry.options}}
    fixed = fixed_sparsity(entry, stated)
    if fixed is not None and prune.when not in ("init", "trained"):
        raise ConfigError(f"{where}: {prune.granularity} is all or nothing: expected when = init or trained, got {prune.when!r}")
    return fixed


def check_names(config: TrialConfig, where: str) -> None:
    """Refuse names and options that no registry knows, before anything runs."""
    prune = config.prune
    for registry, name in ((criteria, prune.criterion), (granularities, prune.granularity), (allocations, prune.allocation)):
        _known(registry, name, where)
    if prune.schedule is not None:
        _known(schedules, prune.schedule, where)
    _known(optimizers, config.training.optimizer, where)
    for registry, section in ((datasets, config.data), (models, config.model)):
        _known(registry, section.name, where)
        entry = registry.get(section.name)
        if entry.traits.get("own") or entry.open:
            continue
        for option, value in (section.model_extra or {}).items():
            if isinstance(value, dict) and (option in registry or ":" in option):
                continue
            known = [*type(section).model_fields, *entry.options]
            if option not in known:
                raise ConfigError(f"{where}: " + unknown(f"key of {registry.kind} {section.name!r}", option, known))


def _known(registry: Registry, name: str, where: str) -> None:
    try:
        registry.get(name)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
