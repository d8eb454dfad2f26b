"""The section [search]: which keys are searched, in which ranges, by which method, and for what."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MAXIMISED = ("accuracy",)
MINIMISED = ("loss", "latency_ms", "nonzero", "bytes", "flops", "macs", "parameters", "memory", "energy")


class SearchSection(BaseModel):
    """A table of [search]: unknown keys are errors, values never change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Range(SearchSection):
    """The values from `low` to `high`, ends included: whole numbers where both ends are (and the key takes them), else any.

    log    even by ratio instead of by difference
    step   only low, low + step, ...
    """

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> Range:
        if self.low > self.high:
            raise ValueError(f"low = {self.low:g} lies above high = {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"log = true needs a range above 0, got low = {self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("log and step are both set: leave one out, or list the values")
        return self


class ObjectiveConfig(SearchSection):
    """What a search is for: a metric of the records, at the end of a phase, averaged over the seeds. Never of test samples.

    metric      as in the records; `layer` and `estimator` too where the metric has them
    split       of which samples; "" for what has none (sizes, latency)
    direction   found from the metric where it is accuracy, loss, a size or a latency
    """

    metric: str = "accuracy"
    split: Literal["train", "validation", ""] = "validation"
    phase: str = "final"
    layer: str = ""
    estimator: str = ""
    direction: Literal["maximise", "minimise"] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ObjectiveConfig:
        if self.direction is None and self.metric not in (*MAXIMISED, *MINIMISED):
            raise ValueError(f'{self.metric!r}: whether more is better is not known: set direction = "maximise" or "minimise"')
        return self

    @property
    def maximised(self) -> bool:
        """Whether more is better."""
        return self.direction == "maximise" if self.direction is not None else self.metric in MAXIMISED

    @property
    def text(self) -> str:
        """What is looked at, in a few words."""
        where = ", ".join(f"{name} {value}" for name, value in (("layer", self.layer), ("estimator", self.estimator)) if value)
        return f"{self.split} {self.metric}".strip() + f" ({', '.join(p for p in (self.phase, where) if p)})"


class HalvingConfig(SearchSection):
    """Successive halving: all candidates at `begin`, the best 1/`factor` of them at the next rung, ..., the last at `end`.

    over     a key of which less is cheaper ("training.epochs", "data.train_size"), times `factor` from rung to rung, or "sparsity", where
             what is left of the weights is divided by `factor`
    """

    over: str = "training.epochs"
    begin: int | float
    end: int | float
    factor: int = Field(3, ge=2)

    @model_validator(mode="after")
    def _consistent(self) -> HalvingConfig:
        if not 0 < self.begin < self.end and not (self.over == "sparsity" and 0 <= self.begin < self.end):
            raise ValueError(f"begin = {self.begin:g} and end = {self.end:g}: expected begin below end, both above 0")
        if self.over == "sparsity" and self.end >= 1:
            raise ValueError(f"end = {self.end:g}: a sparsity is the fraction removed, below 1")
        return self

    @property
    def rungs(self) -> list[int | float]:
        """What `over` is at each rung; the last step may be shorter, by no more than the root of the factor, or longer, by as much.

        >>> HalvingConfig(begin=2, end=32).rungs, HalvingConfig(over="sparsity", begin=0.5, end=0.95).rungs
        ([2, 6, 18, 32], [0.5, 0.833333, 0.95])
        """
        found: list[int | float] = [self.begin]
        sparse, short = self.over == "sparsity", math.sqrt(self.factor)
        while True:
            level = round(1 - (1 - found[-1]) / self.factor, 6) if sparse else found[-1] * self.factor
            if ((1 - level) / short <= 1 - self.end) if sparse else level * short >= self.end:
                return [*found, self.end]
            found.append(level)


class SearchConfig(SearchSection):
    """A search over keys of the config (`prunescope search`): each candidate is a set of trials of the run, one a seed.

    method       "random"; "grid": every combination; "tpe": proposals that learn from what was found (extra `search`); "halving": random
                 candidates, of which only the best go on to more epochs or higher sparsity
    candidates   how many (default 50); a grid has as many as it has
    seed         of the draws
    at_once      "tpe" proposes so many at a time: more keep more workers busy, fewer learn sooner; the first `startup` are random
    variant      the one searched, where the experiment has several; else the objective is the mean over all of them
    space        a table from dotted keys ("training.lr", "sparsity") to lists of values or {low, high, log, step}
    """

    method: Literal["random", "grid", "tpe", "halving"] = "random"
    candidates: int | None = Field(None, ge=1)
    seed: int = 0
    at_once: int = Field(4, ge=1)
    startup: int = Field(10, ge=1)
    variant: str | None = None
    objective: ObjectiveConfig = ObjectiveConfig()
    space: dict[str, Range | list[Any]] = Field(min_length=1)
    halving: HalvingConfig | None = None

    @field_validator("space", mode="before")
    @classmethod
    def _lists_and_ranges(cls, space: Any) -> Any:
        for key, values in space.items() if isinstance(space, dict) else ():
            if not (isinstance(values, dict | Range) or (isinstance(values, list) and values)):
                raise ValueError(f"{key}: expected a list of values or {{low = ..., high = ...}}, got {values!r}")
        found = {k: Range.model_validate(v) if isinstance(v, dict) else v for k, v in space.items()} if isinstance(space, dict) else space
        return found

    @model_validator(mode="after")
    def _consistent(self) -> SearchConfig:
        if self.method == "grid" and self.candidates is not None:
            raise ValueError("a grid has as many candidates as combinations: leave candidates out")
        if (self.method == "halving") != (self.halving is not None):
            raise ValueError('[search.halving] goes with method = "halving", and that needs it: begin = ..., end = ...')
        if self.halving is not None and self.halving.over in self.space:
            raise ValueError(f"{self.halving.over!r} is searched and halved over at once: expected one of them")
        return self
