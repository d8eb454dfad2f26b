"""The sections of a config: their keys, defaults and what does not go together."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from prunescope.config.resources import ResourcesConfig
from prunescope.config.search import SearchConfig
from prunescope.limits import VARIABLE, limit
from prunescope.registry import unknown


def _fraction(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    hint = f"; for {value} % write {value / 100:g}" if isinstance(value, int | float) and 1 < value <= 100 else ""
    raise ValueError(f"expected the fraction removed, from 0 to 1, got {value!r}{hint}")


DEFAULTS = 1  # raise when a default changes its value or its meaning: settings left at their defaults take no part in a trial's hash

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


class DistillConfig(Section):
    """Learning from the dense network while fine-tuning: the share `alpha` of the loss (0: none), and the `temperature` that softens both.

    The loss is (1 - alpha) task + alpha temperature^2 KL(dense || pruned), Hinton et al. 2015 (`prunescope.training.distillation`).
    """

    alpha: float = Field(0.0, ge=0, le=1)
    temperature: float = Field(4.0, gt=0)


class FinetuneConfig(Section):
    """Training after pruning. Keys left out are taken from `training`; `hold_masks = false` lets pruned weights grow back.

    `recalibrate_batchnorm` computes running means and variances anew over the training set, after fine-tuning or in its place.
    With `distill.alpha` above 0 the dense network, as it was before pruning, teaches the pruned one.
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
    distill: DistillConfig = DistillConfig()

    def as_training(self, training: TrainingConfig) -> TrainingConfig:
        """The full training settings of the fine-tuning phase."""
        own = self.model_dump(exclude={"hold_masks", "recalibrate_batchnorm", "distill"}, exclude_none=True)
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


class QuantizeConfig(Section):
    """Int8 at the end, by torchao (extra `quant`): linear layers alone, all others stay as they are and the records say which.

    weights      "int8": one scale a row, symmetric; "float": nothing is quantised
    activations  "dynamic": int8 with a scale and a zero point a row, found as the rows come; "static": one scale and zero point a layer,
                 from the calibration samples (`prune.calibration`); "float": left alone
    aware        fine-tuning computes as int8 will, so that weights get used to it (quantisation-aware training)
    exclude      names of layers that stay as they are, with * and ?
    """

    weights: Literal["float", "int8"] = "float"
    activations: Literal["dynamic", "static", "float"] = "dynamic"
    aware: bool = False
    exclude: list[str] = []

    @model_validator(mode="after")
    def _consistent(self) -> QuantizeConfig:
        if self.aware and self.weights == "float":
            raise ValueError('aware = true has nothing to get used to with weights = "float": set weights = "int8"')
        if self.aware and self.activations == "static":
            raise ValueError('aware = true goes with activations = "dynamic" or "float": torchao\'s training has no static ones')
        return self


class DeployConfig(Section):
    """What is made of the network at the end, each stage measured: what is masked removed, then quantised, then written to files.

    compact   remove what the masks leave constant, for a smaller dense network of the same outputs
    formats   files written beside the weights and checked, their bytes recorded: "safetensors", "pt2", and "onnx" (extra `export`) of the
              last stage in floating point
    backends  each stage is timed on these (`prunescope list backends`), on batches of `batch_size`, one thread, processor time
    """

    compact: bool = False
    formats: list[Literal["safetensors", "onnx", "pt2"]] = []
    backends: list[str] = []
    batch_size: int = Field(64, ge=1)


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
    quantize: dict[str, Any] = {}
    deploy: dict[str, Any] = {}

    @property
    def changes(self) -> dict[str, Any]:
        """The sections that this variant changes."""
        return {k: v for k in SECTIONS if (v := getattr(self, k))}


LATER_SECTIONS = ("quantize", "deploy")  # take part in a hash only where something in them is set: older trials know nothing of them
SECTIONS = ("data", "model", "training", "finetune", "prune", "measure", *LATER_SECTIONS)


class TrialConfig(Section):
    """The settings of one trial: what its results depend on, beside its sparsity and seed."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    prune: PruneConfig = PruneConfig()
    measure: MeasureConfig = MeasureConfig()
    quantize: QuantizeConfig = QuantizeConfig()
    deploy: DeployConfig = DeployConfig()

    @model_validator(mode="after")
    def _finetuning_fits(self) -> TrialConfig:
        when, epochs = self.prune.when, self.finetune.epochs
        if self.finetune.distill.alpha and when != "never":
            if when not in ("trained", "iterative"):
                raise ValueError(f'finetune.distill needs a trained dense network to learn from: prune.when = "{when}" has none')
            if self.training.loss == "binary-cross-entropy":
                raise ValueError("finetune.distill softens a distribution over classes: it does not go with loss binary-cross-entropy")
        if self.quantize.aware and when in ("init", "rewind"):
            raise ValueError(f'quantize.aware takes place in fine-tuning, which prune.when = "{when}" has none of')
        named = {"finetune.distill.alpha": self.finetune.distill.alpha, "quantize.aware": self.quantize.aware}
        for key in (k for k, on in named.items() if on and not epochs and when != "never"):
            raise ValueError(f"{key} takes place in fine-tuning: set finetune.epochs to at least 1, got {epochs}")
        return self

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
    search: SearchConfig | None = None
    resources: ResourcesConfig = ResourcesConfig()
    variant: list[VariantConfig] = []

    @model_validator(mode="after")
    def _consistent(self) -> ExperimentConfig:
        names = [v.name for v in self.variant]
        if twice := {n for n in names if names.count(n) > 1}:
            raise ValueError(f"variant names must differ: {', '.join(sorted(twice))} stands more than once")
        if self.baseline is not None and names and self.baseline not in names:
            raise ValueError(f"baseline: {unknown('variant', self.baseline, names)}")
        count, most = self.seeds if isinstance(self.seeds, int) else len(self.seeds), limit("trials")
        if count > most:
            raise ValueError(f"seeds: {count} replicates are more than the limit of {most:,} trials ({VARIABLE}=trials=NUMBER raises it)")
        if not self.seed_list:
            raise ValueError("seeds: expected a number of replicates (at least 1) or a list of seeds")
        if self.search is not None and self.grid:
            raise ValueError("[grid] and [search] are both set: move the grid's keys into [search.space]")
        if self.search is not None and names and self.search.variant not in (None, *names):
            raise ValueError(f"search.variant: {unknown('variant', str(self.search.variant), names)}")
        return self

    @property
    def seed_list(self) -> list[int]:
        """The seeds of the replicates: 0 to N-1 when a number was given."""
        return list(range(self.seeds)) if isinstance(self.seeds, int) else list(self.seeds)
