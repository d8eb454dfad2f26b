"""What an experiment is, as data: TOML in, validated and frozen settings out, with a hash of their values."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from prunescope.registry import unknown
from prunescope.types import ConfigError


def _fraction(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    hint = f"; for {value} % write {value / 100:g}" if isinstance(value, int | float) and 1 < value <= 100 else ""
    raise ValueError(f"expected the fraction removed, from 0 to 1, got {value!r}{hint}")


DEFAULTS = 1  # raise when a default changes its value or its meaning: settings left at their defaults take no part in a trial's hash

S = TypeVar("S", bound=BaseModel)
Sparsity = Annotated[float, BeforeValidator(_fraction)]


class Section(BaseModel):
    """A table of the config: unknown keys are errors, values never change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OpenSection(BaseModel):
    """A table that names a registered function; its further keys are that function's options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """Options of the named function: the further keys, then those of the sub-table that bears its name.

        Sub-tables for other functions are left alone, so that a preset can hold the options of each model that it may be run with.
        """
        further = dict(self.model_extra or {})
        own = further.get(self.name, {})
        return {**{k: v for k, v in further.items() if not isinstance(v, dict)}, **(own if isinstance(own, dict) else {})}


class DataConfig(OpenSection):
    """Which data, which part of them, and how they are prepared (see `prunescope.data.load`)."""

    name: str = "digits"
    classes: list[int] | None = None
    train_size: int | None = Field(None, ge=1)
    test_size: int | None = Field(None, ge=1)
    validation: float = Field(0.1, ge=0, lt=1)
    test: float | Literal["train"] | None = None
    scale: Literal["unit", "raw", "standard"] = "unit"
    pca: int | None = Field(None, ge=1)
    flatten: bool = False
    view: Literal["rows", "columns", "pixels"] | None = None
    stratify: bool = True
    split: Literal["shared", "per-seed"] = "shared"
    split_seed: int = 0


class ModelConfig(OpenSection):
    """Which network; further keys are its options."""

    name: str = "mlp"


class TrainingConfig(Section):
    """How the network is trained. With `from_epoch` the first epochs count as done: the learning rate starts where it would be then."""

    epochs: int = Field(10, ge=0)
    from_epoch: int = Field(0, ge=0)
    batch_size: int | Literal["full"] = 64
    drop_last: bool = False
    loss: Literal["cross-entropy", "nll", "binary-cross-entropy"] = "cross-entropy"
    optimizer: str = "sgd"
    lr: float = Field(0.1, gt=0)
    momentum: float = Field(0.0, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "milestones", "cosine"] = "constant"
    milestones: list[int] = []
    gamma: float = Field(0.1, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> TrainingConfig:
        if self.batch_size != "full" and self.batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1 or \"full\", got {self.batch_size}")
        if self.from_epoch > self.epochs:
            raise ValueError(f"from_epoch {self.from_epoch} lies beyond epochs = {self.epochs}: expected at most that")
        if self.milestones and self.schedule != "milestones":
            raise ValueError(f'milestones are set but schedule is "{self.schedule}": set schedule = "milestones"')
        if self.schedule == "milestones" and not self.milestones:
            raise ValueError('schedule = "milestones" needs milestones = [epoch, ...]')
        return self


class FinetuneConfig(Section):
    """Training after pruning. Keys left out are taken from `training`; `hold_masks = false` lets pruned weights grow back.

    `recalibrate_batchnorm` computes running means and variances anew over the training set, after fine-tuning or in its place.
    """

    epochs: int = Field(0, ge=0)
    hold_masks: bool = True
    recalibrate_batchnorm: bool = False
    lr: float | None = Field(None, gt=0)
    optimizer: str | None = None
    momentum: float | None = Field(None, ge=0, lt=1)
    weight_decay: float | None = Field(None, ge=0)
    schedule: Literal["constant", "milestones", "cosine"] = "constant"
    milestones: list[int] = []

    def as_training(self, training: TrainingConfig) -> TrainingConfig:
        """The full training settings of the fine-tuning phase."""
        own = self.model_dump(exclude={"hold_masks", "recalibrate_batchnorm"}, exclude_none=True)
        return training.model_copy(update={"from_epoch": 0, **own})


class PruneConfig(Section):
    """What is removed, by which criterion, how the budget is split and when.

    when         "never"; "init": before training; "trained": after it; "iterative": after it in rounds, each followed by fine-tuning;
                 "rewind": in rounds, each followed by training anew from early weights (lottery tickets); "during": little by little
                 while training; "dynamic": sparse from the start, masks change while training
    calibration  training samples (a seeded draw) for criteria that look at data
    rounds       of "iterative" and "rewind"; with `rate` (the fraction of what is left that a round removes) as many as the level needs
    schedule     how sparsity rises: through the rounds (default "geometric") or during training (default "cubic")
    begin, end   of pruning "during" training and of "dynamic" changes, as fractions of the training; `every` so many `every_in`
    soft         "during": masked weights go on learning behind their masks and may come back (straight-through)
    rewind       of "rewind": the epoch whose weights the kept ones return to, or "rate": weights stay, the learning rate starts again
    tickets      the last training of "rewind": the "winning" ticket, its masks on "reinitialised" weights, or a "random-mask" of its counts
    grow         of "dynamic": "set" or "rigl"; `grow_fraction` of each layer's weights are exchanged at first
    """

    when: Literal["never", "init", "trained", "iterative", "rewind", "during", "dynamic"] = "trained"
    criterion: str = "magnitude"
    granularity: str = "weight"
    allocation: str = "uniform"
    norm: Literal["l1", "l2", "linf"] = "l2"
    threshold: float | None = Field(None, ge=0)
    table: dict[str, Sparsity] | None = None
    layers: list[str] | None = None
    exclude: list[str] = []
    output: bool = False
    biases: Literal["with-unit", "keep", "drop"] = "with-unit"
    allow_empty: bool = False
    options: dict[str, Any] = {}
    calibration: int = Field(512, ge=1)
    rounds: int = Field(5, ge=1)
    rate: float | None = Field(None, gt=0, lt=1)
    schedule: str | None = None
    begin: float = Field(0.0, ge=0, lt=1)
    end: float = Field(0.75, gt=0, le=1)
    every: int = Field(1, ge=1)
    every_in: Literal["epochs", "steps"] = "epochs"
    soft: bool = False
    rewind: Annotated[int, Field(ge=0)] | Literal["rate"] = 0
    tickets: Literal["winning", "reinitialised", "random-mask"] = "winning"
    grow: Literal["set", "rigl"] = "rigl"
    grow_fraction: float = Field(0.3, gt=0, le=1)

    @model_validator(mode="after")
    def _consistent(self) -> PruneConfig:
        if self.begin >= self.end:
            raise ValueError(f"begin = {self.begin:g} and end = {self.end:g}: expected begin below end, both as fractions of the training")
        if self.soft and self.when not in ("during", "never"):
            raise ValueError(f'soft = true goes with when = "during", not with "{self.when}": there weights behind masks are not kept')
        if self.when == "dynamic" and self.granularity != "weight":
            raise ValueError(f'when = "dynamic" exchanges single weights: granularity "{self.granularity}" does not fit, use "weight"')
        if self.tickets != "winning" and (self.when not in ("rewind", "never") or self.rewind == "rate"):
            raise ValueError(f'tickets = "{self.tickets}" is a control of when = "rewind" to an epoch: leave it out or set both')
        if self.tickets == "random-mask" and self.granularity != "weight":
            raise ValueError(f'tickets = "random-mask" draws single weights: granularity "{self.granularity}" does not fit, use "weight"')
        if self.allocation == "latency" and not self.options.get("times"):
            raise ValueError('allocation = "latency" needs options.times, which `prunescope latency` measures and prints')
        if self.rate is not None and self.schedule not in (None, "geometric"):
            raise ValueError(f'rate = {self.rate:g} is the geometric schedule and schedule = "{self.schedule}" another: set one of them')
        return self


class PlaneConfig(Section):
    """The information plane: which estimators, on which samples, for which layers."""

    estimators: list[dict[str, Any]] = []
    split: Literal["train", "validation", "test", "all"] = "train"
    samples: int | None = Field(None, ge=2)
    layers: list[str] | None = None
    input: Literal["identity", "binned", "codes"] = "identity"
    input_bins: int = Field(30, ge=2)
    input_range: tuple[float, float] | None = None
    output: Literal["softmax", "raw"] = "softmax"
    spatial: Literal["flatten", "mean"] = "flatten"
    convergence: bool = False


class MeasureConfig(Section):
    """What is recorded and when: `epochs` is "all", "log" (about `points` log-spaced ones), "none" or a list."""

    epochs: Literal["all", "log", "none"] | list[int] = "all"
    points: int = Field(100, ge=2)
    plane: PlaneConfig = PlaneConfig()
    histogram_bins: int = Field(50, ge=0)
    gradients: bool = False
    latency: bool = False


class VariantConfig(Section):
    """One way of pruning: its name and the settings in which it differs from the experiment's own."""

    name: str = Field(min_length=1)
    sparsity: list[Sparsity] | None = None
    data: dict[str, Any] = {}
    model: dict[str, Any] = {}
    training: dict[str, Any] = {}
    finetune: dict[str, Any] = {}
    prune: dict[str, Any] = {}
    measure: dict[str, Any] = {}

    @property
    def changes(self) -> dict[str, Any]:
        """The sections that this variant changes."""
        return {k: v for k in SECTIONS if (v := getattr(self, k))}


SECTIONS = ("data", "model", "training", "finetune", "prune", "measure")


class TrialConfig(Section):
    """The settings of one trial: what its results depend on, beside its sparsity and seed."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    prune: PruneConfig = PruneConfig()
    measure: MeasureConfig = MeasureConfig()

    @model_validator(mode="after")
    def _phases_fit(self) -> TrialConfig:
        prune = self.prune
        if prune.when != "rewind":
            return self
        first, last = self.training.from_epoch, self.training.epochs
        if isinstance(prune.rewind, int) and prune.rewind and not first < prune.rewind < last:
            raise ValueError(f"prune.rewind = {prune.rewind}: expected 0 or an epoch of the training between {first} and {last}")
        if self.finetune.epochs:
            raise ValueError(
                f'prune.when = "rewind" trains anew by the training\'s own schedule: leave finetune.epochs at 0, got {self.finetune.epochs}'
            )
        return self


class ExperimentConfig(TrialConfig):
    """A whole experiment: shared settings, the variants, the sparsity levels, the seeds and what else is crossed (`grid`)."""

    name: str = "experiment"
    title: str = ""
    question: str = ""
    notes: list[str] = []
    faults: list[str] = []
    baseline: str | None = None
    sparsity: list[Sparsity] = [0.5, 0.8, 0.9, 0.95]
    seeds: int | list[int] = 5
    grid: dict[str, list[Any]] = {}
    variant: list[VariantConfig] = []

    @model_validator(mode="after")
    def _consistent(self) -> ExperimentConfig:
        names = [v.name for v in self.variant]
        if twice := {n for n in names if names.count(n) > 1}:
            raise ValueError(f"variant names must differ: {', '.join(sorted(twice))} stands more than once")
        if self.baseline is not None and names and self.baseline not in names:
            raise ValueError(f"baseline: {unknown('variant', self.baseline, names)}")
        if not self.seed_list:
            raise ValueError("seeds: expected a number of replicates (at least 1) or a list of seeds")
        return self

    @property
    def seed_list(self) -> list[int]:
        """The seeds of the replicates: 0 to N-1 when a number was given."""
        return list(range(self.seeds)) if isinstance(self.seeds, int) else list(self.seeds)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, or one sentence on what is wrong with it."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"no config file {str(path)!r}: give a TOML file or a preset (`prunescope list presets`)") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def parse_override(text: str) -> tuple[str, Any]:
    """`KEY=VALUE` as a dotted key and a JSON value; what is not JSON is a string.

    >>> parse_override("training.lr=1e-3"), parse_override("data.name=fashion-mnist")
    (('training.lr', 0.001), ('data.name', 'fashion-mnist'))
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"-s {text!r}: expected KEY=VALUE, for example -s training.epochs=3")
    try:
        return key.strip(), json.loads(value)
    except json.JSONDecodeError:
        return key.strip(), value


def override(tables: Mapping[str, Any], changes: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A copy of `tables` with dotted keys set; tables in between are made, never replaced by a value."""
    result: dict[str, Any] = json.loads(json.dumps(tables))
    for key, value in dict(changes).items():
        *parents, last = key.split(".")
        place = result
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{key!r}: {parent!r} is a value, not a table, so nothing can be set inside it")
        place[last] = value
    return result


def merge(tables: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`tables` with the nested `changes` laid over them; tables merge, everything else is replaced."""
    merged = dict(tables)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def experiment_config(tables: Mapping[str, Any], *, source: str = "config") -> ExperimentConfig:
    """The validated experiment; every fault is named at once, with the near names of unknown keys."""
    return validated(ExperimentConfig, tables, source=source)


def validated(kind: type[S], tables: Mapping[str, Any], *, source: str) -> S:
    """`tables` as a `kind`, or a ConfigError that lists everything wrong with them."""
    try:
        return kind.model_validate(dict(tables))
    except ValidationError as error:
        faults = [_sentence(kind, e) for e in error.errors(include_url=False)]
        raise ConfigError("\n".join(f"{source}: {fault}" for fault in faults)) from error


def _sentence(kind: type[BaseModel], error: Any) -> str:
    internal = ("function-", "literal", "list[", "constrained")  # pydantic names the branch of a union in the location
    location = [p for p in error["loc"] if not (isinstance(p, str) and p.startswith(internal))]
    place = ".".join(str(p) for p in location if p not in ("int", "float", "str"))
    if error["type"] == "extra_forbidden":
        section, known = kind, list(kind.model_fields)
        for part in location[:-1]:
            section = _inner(section, part) or section
            known = list(section.model_fields)
        return f"{place}: " + unknown("key", str(location[-1]), known)
    message = error["msg"].removeprefix("Value error, ")
    came = "" if error["type"] == "value_error" else f", got {error['input']!r}"
    return f"{place}: {message}{came}" if place else message


def _inner(section: type[BaseModel], part: Any) -> type[BaseModel] | None:
    if isinstance(part, int):
        return section
    field = section.model_fields.get(part)
    inner = getattr(field, "annotation", None)
    candidates = (inner, *getattr(inner, "__args__", ()))
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def essence(section: BaseModel) -> dict[str, Any]:
    """The settings of `section` that differ from their defaults, JSON-ready: a key that is added later changes nothing of it."""
    dumped = section.model_dump(mode="json", exclude_defaults=True)
    if isinstance(section, OpenSection):
        dumped = {k: v for k, v in dumped.items() if k in type(section).model_fields} | {"name": section.name, "options": section.options}
    return dumped


def value_hash(values: Any) -> str:
    """16 hex digits that depend on the values alone: not on key order, on spelling or on where the run lives.

    >>> value_hash({"a": 1, "b": 0.5}) == value_hash({"b": 0.50, "a": 1})
    True
    """
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
