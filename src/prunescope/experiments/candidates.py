"""Candidates of a search: values for the searched keys (drawn, crossed or proposed) and the trials that they stand for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from pydantic import BaseModel

from prunescope import extras
from prunescope.config import SECTIONS, ExperimentConfig, Range, SearchConfig, experiment_config, override
from prunescope.experiments.sweep import Trial, trials
from prunescope.rng import stream_seed
from prunescope.types import ConfigError

DIGITS = 4  # significant digits of a drawn number: what a table shows is what was run
TRIES = 50  # draws for each candidate wanted, before a space counts as used up


@dataclass(frozen=True)
class Candidate:
    """What the searched keys are set to; `number` counts in the order in which candidates were thought of, from 1."""

    number: int
    values: Mapping[str, Any]


class Space:
    """The searched keys with their values, and what is drawn from them. Nothing here depends on what ran where or when."""

    def __init__(self, search: SearchConfig) -> None:
        self.search, self.keys = search, list(search.space)
        self.values = {key: _fitting(key, values) for key, values in search.space.items()}
        named = [*self.keys, *([search.halving.over] if search.halving else [])]
        last = [key.rpartition(".")[2] for key in named]
        self._short = {key: (short if last.count(short) == 1 else key) for key, short in zip(named, last, strict=True)}

    def label(self, values: Mapping[str, Any], level: float | None = None) -> str:
        """The values in words, as the group of the candidate's trials; a sparsity is told by the trial itself."""
        over = self.search.halving.over if self.search.halving and level is not None else None
        told = [*values.items(), *([(over, level)] if over else [])]
        return ", ".join(f"{self._short[k]} {_text(v)}" for k, v in told if k != "sparsity")

    def grid(self) -> list[Candidate]:
        """Every combination of the listed values, and of ranges that have a step."""
        every = []
        for key, values in self.values.items():
            step = values.step or (1 if _whole(values) and not values.log else None) if isinstance(values, Range) else None
            if isinstance(values, Range) and step is None:
                raise ConfigError(f"search.space: {key!r} is a range without steps, which a grid has no end of: list values or set step")
            every.append(_steps(values, step) if isinstance(values, Range) and step else values)
        return [Candidate(i, dict(zip(self.keys, v, strict=True))) for i, v in enumerate(itertools.product(*every), start=1)]

    def random(self, count: int) -> list[Candidate]:
        """`count` different candidates, or as many as there are: a longer list begins with the shorter."""
        study = self._study(None)
        found: dict[str, dict[str, Any]] = {}
        for _ in range(TRIES * count):
            values = self._ask(study)
            found.setdefault(repr(values), values)
            if len(found) == count:
                break
        return [Candidate(i, values) for i, values in enumerate(found.values(), start=1)]

    def proposed(self, past: Sequence[tuple[Candidate, float]], count: int, *, maximised: bool) -> list[Candidate]:
        """`count` proposals of the tree-structured Parzen estimator that knows `past`: candidates with their objective, NaN if failed.

        Source: Bergstra et al. 2011, by Optuna's TPESampler.
        """
        optuna, study = self._optuna(), self._study(len(past), maximised=maximised)
        state, distributions = optuna.trial.TrialState, self._distributions()
        for candidate, value in past:
            ended = {"value": value} if math.isfinite(value) else {"state": state.FAIL}
            chosen = {k: _index(self.values[k], v) for k, v in candidate.values.items()}
            study.add_trial(optuna.trial.create_trial(params=chosen, distributions=distributions, **ended))
        return [Candidate(len(past) + i, self._ask(study)) for i in range(1, count + 1)]

    def _optuna(self) -> Any:
        return extras.load("optuna", extra="search", purpose=f'a search with method = "{self.search.method}"')

    def _study(self, past: int | None, *, maximised: bool = True) -> Any:
        """A study in memory, made anew for each round: what is known is in the run folder, and the draws are the round's own."""
        optuna = self._optuna()
        purpose = "random" if past is None else f"tpe {past}"
        seed = stream_seed(self.search.seed, "search", purpose) % 2**32  # as many bits as Optuna takes
        with extras.quiet():
            tpe = optuna.samplers.TPESampler
            chosen = (
                optuna.samplers.RandomSampler(seed=seed)
                if past is None
                else tpe(seed=seed, n_startup_trials=self.search.startup, constant_liar=True)
            )
            return optuna.create_study(sampler=chosen, direction="maximize" if maximised else "minimize")

    def _distributions(self) -> dict[str, Any]:
        found, made = {}, self._optuna().distributions
        for key, values in self.values.items():
            if not isinstance(values, Range):
                found[key] = made.CategoricalDistribution(tuple(range(len(values))))  # by number: a value may be a list
            elif _whole(values):
                found[key] = made.IntDistribution(values.low, values.high, log=values.log, step=int(values.step or 1))
            else:
                found[key] = made.FloatDistribution(values.low, values.high, log=values.log, step=values.step)
        return found

    def _ask(self, study: Any) -> dict[str, Any]:
        with extras.quiet():
            drawn = study.ask(self._distributions()).params
        return {key: _value(values, drawn[key]) for key, values in self.values.items()}


def candidate_trials(
    experiment: ExperimentConfig,
    tables: Mapping[str, Any],
    space: Space,
    values: Mapping[str, Any],
    level: float | None,
    allowed: Collection[str] | None,
) -> list[Trial]:
    """The trials of a candidate, one a seed (and variant and level of sparsity); `level` is that of the rung, if there are rungs.

    `allowed` is the code of the user's own that its values may name (None: any).
    """
    search = space.search
    changes = {**values, **({search.halving.over: level} if search.halving and level is not None else {})}
    if "sparsity" in changes:
        changes["sparsity"] = [changes["sparsity"]]
    label = space.label(values, level)
    plain = override({k: v for k, v in tables.items() if k != "search"}, changes)
    changed = experiment_config(plain, source=label or "a candidate")
    if search.variant is not None:
        changed = changed.model_copy(update={"variant": [v for v in changed.variant if v.name == search.variant]})
    found = [replace(trial, group=label) for trial in trials(changed, plain, allowed)]
    if "sparsity" in changes and (other := next((t for t in found if t.sparsity != changes["sparsity"][0]), None)):
        raise ConfigError(
            f"search: variant {other.variant!r} does not go by the sparsity that is searched: set search.variant to one that does, "
            "and leave sparsity out of it"
        )
    return found


def check_space(experiment: ExperimentConfig, tables: Mapping[str, Any], space: Space, allowed: Collection[str] | None) -> None:
    """Refuse keys that are no settings, ends of a range that no setting can have, and keys that a variant sets for itself."""
    search = space.search
    named = [*space.keys, *([search.halving.over] if search.halving else [])]
    for key in named:
        section, _, rest = key.partition(".")
        if key != "sparsity" and (section not in SECTIONS or not rest):
            raise ConfigError(f'search: {key!r}: expected "sparsity" or a dotted key of {", ".join(SECTIONS)}, such as "training.lr"')
        for variant in experiment.variant:
            if search.variant in (None, variant.name) and _set(variant.changes, key.split(".")):
                raise ConfigError(f"search: variant {variant.name!r} sets {key} itself, so a search would change nothing: leave it out")
    halved = search.halving.rungs[-1] if search.halving else None
    for key, values in space.values.items():
        errors = []
        alone = [values.low, values.high] if isinstance(values, Range) else values
        for value in alone:
            try:
                candidate_trials(experiment, tables, space, {key: value}, halved, allowed)
            except ConfigError as error:
                errors.append(error)
        if errors and (isinstance(values, Range) or len(errors) == len(alone)):  # a listed value may go with others of other keys
            raise ConfigError(f"search.space: {errors[0]}") from errors[0]


def _set(changes: Mapping[str, Any], parts: Sequence[str]) -> bool:
    for part in parts:
        if not isinstance(changes, Mapping) or part not in changes:
            return False
        changes = changes[part]
    return True


def _fitting(key: str, values: Any) -> Any:
    """A range with ends of the key's own kind: "momentum" from 0 to 1 is any number between, "epochs" from 1 to 9 a whole one."""
    if not isinstance(values, Range) or not _whole(values) or not _takes_fractions(key):
        return values
    return values.model_copy(update={"low": float(values.low), "high": float(values.high)})


def _takes_fractions(key: str) -> bool:
    """Whether the config's key is a number that need not be whole; of options, which have no type here, the ends alone decide."""
    if key == "sparsity":
        return True
    section: Any = ExperimentConfig
    for part in key.split("."):
        field = section.model_fields.get(part) if isinstance(section, type) and issubclass(section, BaseModel) else None
        section = getattr(field, "annotation", None)
    kinds = {section, *get_args(section)}
    return float in kinds and int not in kinds


def _whole(values: Range) -> bool:
    return all(isinstance(v, int) for v in (values.low, values.high, values.step or 1))


def _steps(values: Range, step: float) -> list[Any]:
    count = math.floor((values.high - values.low) / step + 1e-9)
    return [_value(values, values.low + i * step) for i in range(count + 1)]


def _value(values: Any, drawn: Any) -> Any:
    """What a draw stands for: the listed value of that number, or the number, rounded and within its range."""
    if not isinstance(values, Range):
        return values[drawn]
    if _whole(values):
        return int(drawn)
    rounded = round(float(drawn), 10) if values.step else float(f"{drawn:.{DIGITS}g}")
    return min(max(rounded, float(values.low)), float(values.high))


def _index(values: Any, value: Any) -> Any:
    return value if isinstance(values, Range) else values.index(value)


def _text(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
