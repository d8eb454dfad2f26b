"""`search`: candidates as trials of a run, round by round, ranked by what the run folder says of them.

The run folder is the whole record. Nothing else is kept: each round is worked out anew from the config and from the stored results of the
rounds before, so a search that was killed goes on to the same candidates and the same winner. Every round is one call of `run`, so engines,
stacks, checkpoints and failed trials are what they are there.
"""

from __future__ import annotations

import functools
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from prunescope.config import ObjectiveConfig
from prunescope.experiments import checkpoints
from prunescope.experiments.candidates import Candidate, Space, candidate_trials, check_space
from prunescope.experiments.execution import load_data
from prunescope.experiments.planning import Plan, check, plan, reproduce
from prunescope.experiments.run import run as carry_out
from prunescope.experiments.sweep import Trial
from prunescope.results import stats
from prunescope.results.claims import refuse_others
from prunescope.results.files import read_json, write_json
from prunescope.results.store import Run, TrialFolder, read_records
from prunescope.types import ConfigError, DataError, PrunescopeError, StoreError

FILE = "search.json"
VERSION = 1


@dataclass(frozen=True)
class Result:
    """What came of a candidate at a rung: the objective of each seed, or the reason why there is none."""

    candidate: Candidate
    rung: int
    level: float | None
    trials: tuple[str, ...]
    seeds: Mapping[int, float]
    reason: str | None = None

    @property
    def value(self) -> float:
        """The mean over the seeds, in the metric's unit; NaN where a trial failed."""
        return sum(self.seeds.values()) / len(self.seeds) if self.seeds and self.reason is None else math.nan


@dataclass(frozen=True)
class Search:
    """A search that is over: the Run, the `ranking` (a row a candidate, best first), the `best` one's values, the objective's `text`."""

    run: Run
    ranking: pd.DataFrame
    best: dict[str, Any] | None
    text: str


def search(
    source: str | Path | Mapping[str, Any],
    *,
    overrides: Mapping[str, Any] | Sequence[tuple[str, Any]] = (),
    out: str | Path | None = None,
    fresh: bool = False,
    finish: Callable[[Run], object] | None = None,
    told: Callable[[str], object] = lambda line: None,
    allow: Sequence[str] = (),
    **options: Any,
) -> Search:
    """Run the candidates of an experiment's [search] that are not finished yet and return them ranked, with the Run.

    source    a preset's name, a TOML file or a mapping with a section [search]; overrides: {"search.candidates": 20, ...}
    out       the run folder (default runs/<name>); search.json in it is the ranking
    fresh     forget what is in the run folder first
    finish    called with the Run at the end; told: called with a line on each round
    allow     code "module:function" of one's own, or modules, that a file may name
    options   those of `run`: data_dir, engine, jobs, threads, device, stack, checkpoint, ...

    The objective is the mean over the experiment's seeds, never of test samples. A candidate that fails is a row with its reason.
    Raises ConfigError for keys and ranges that do not fit, MissingExtraError where a method needs Optuna, otherwise as `run`.
    """
    planned = searching(source, overrides, allow=allow)
    folder = Path(out) if out is not None else Path("runs") / planned.experiment.name
    command = reproduce(source, overrides, folder, planned, verb="search")
    if fresh:
        _forget(folder)
    work = _Work(replace(planned, trials=(), command=command), folder, options, told)
    _METHODS[work.settings.method](work)
    work.write(finished=True)
    finished = Run(folder)
    if finish is not None:
        finish(finished)
    return Search(finished, work.table(), work.best(), work.text)


def searching(
    source: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | Sequence[tuple[str, Any]] = (), *, allow: Sequence[str] = ()
) -> Plan:
    """The plan of an experiment that has a section [search], its keys and ranges checked."""
    planned = plan(source, overrides, allow=allow)
    if planned.experiment.search is None:
        raise ConfigError('no [search] in this config: add one with method and [search.space], such as "training.lr" = [0.01, 0.1]')
    check_space(planned.experiment, planned.tables, Space(planned.experiment.search), planned.allowed)
    return planned


def first_round(planned: Plan) -> list[tuple[Candidate, float | None]]:
    """The candidates that a search begins with, each with the level of the first rung where there are rungs."""
    assert planned.experiment.search is not None, "`searching` refuses others"
    settings = planned.experiment.search
    space = Space(settings)
    if settings.method == "grid":
        return [(c, None) for c in space.grid()]
    if settings.method == "tpe":
        return [(c, None) for c in space.proposed([], min(settings.at_once, count(planned)), maximised=settings.objective.maximised)]
    level = settings.halving.rungs[0] if settings.halving is not None else None
    return [(c, level) for c in space.random(count(planned))]


def searched(folder: Path, planned: Plan) -> list[Trial]:
    """The trials of the candidates that search.json in a run folder names, as this version makes them of `planned`'s config."""
    assert planned.experiment.search is not None, "asked of a search alone"
    space = Space(planned.experiment.search)
    try:
        wanted = [(c["values"], r["level"]) for c in read_json(folder / FILE)["candidates"] for r in c["rungs"] if not r["reason"]]
        made = functools.partial(candidate_trials, planned.experiment, planned.tables, space, allowed=planned.allowed)
        return [t for values, level in wanted for t in made(values, level)]
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{folder / FILE}: not a ranking as this version writes it ({error!r}): the same search writes it anew") from error


def count(planned: Plan) -> int:
    """How many candidates a search that draws them is to have."""
    assert planned.experiment.search is not None, "`searching` refuses others"
    return planned.experiment.search.candidates or 50


def at_once(work: _Work) -> None:
    """All candidates in one sweep: "random" and "grid"."""
    work.evaluate(first_round(work.planned))


def in_rounds(work: _Work) -> None:
    """Proposals, a few at a time, that learn from the rounds before: "tpe"."""
    wanted = count(work.planned)
    while (done := len(work.results)) < wanted:
        past = [(r.candidate, r.value) for r in work.results]
        more = min(work.settings.at_once, wanted - done)
        work.told(f"candidates {done + 1} to {done + more} of {wanted}")
        work.evaluate([(c, None) for c in work.space.proposed(past, more, maximised=work.settings.objective.maximised)])


def halving(work: _Work) -> None:
    """All candidates at the first rung, the best 1/factor of them at the next, and so on: "halving".

    Rungs are synchronous, so who goes on depends on the stored results alone; equal ones go on in the order in which they were drawn.
    """
    own = work.settings.halving
    assert own is not None, "the config has it where the method is halving"
    alive = [c for c, _ in first_round(work.planned)]
    work.told(rungs_text(own.over, own.rungs, own.factor, len(alive)))
    for rung, level in enumerate(own.rungs):
        work.told(f"rung {rung + 1} of {len(own.rungs)}: {len(alive)} candidates at {own.over} = {level:g}")
        results = work.evaluate([(c, level) for c in alive], rung)
        left = [r for r in work.ordered(results) if math.isfinite(r.value)]
        alive = [r.candidate for r in left[: math.ceil(len(alive) / own.factor)]]
        if not alive:
            return


_METHODS: dict[str, Callable[[_Work], None]]  # below, behind the class that they work with


def rungs_text(over: str, rungs: Sequence[float], factor: int, candidates: int) -> str:
    """What halving costs, in a sentence.

    >>> rungs_text("training.epochs", [2, 6], 3, 9)
    'halving: 9 at 2, 3 at 6 of training.epochs; each rung trains anew: 36 epochs a seed instead of 54'
    """
    numbers = [candidates]
    for _ in rungs[1:]:
        numbers.append(math.ceil(numbers[-1] / factor))
    steps = ", ".join(f"{n} at {level:g}" for n, level in zip(numbers, rungs, strict=True))
    if not over.endswith("epochs"):
        return f"halving: {steps} of {over}"
    spent = sum(n * level for n, level in zip(numbers, rungs, strict=True))
    return f"halving: {steps} of {over}; each rung trains anew: {spent:g} epochs a seed instead of {candidates * rungs[-1]:g}"


class _Work:
    """A search at work: its results so far, and how candidates are carried out, ranked and written down."""

    def __init__(self, planned: Plan, folder: Path, options: Mapping[str, Any], told: Callable[[str], object]) -> None:
        assert planned.experiment.search is not None, "`searching` refuses others"
        self.planned, self.folder, self.options, self.told = planned, folder, dict(options), told
        self.settings = planned.experiment.search
        self.space = Space(self.settings)
        self.results: list[Result] = []
        self._trials: dict[str, Trial] = {}
        self._notes: dict[str, None] = {}

    def evaluate(self, candidates: Sequence[tuple[Candidate, float | None]], rung: int = 0) -> list[Result]:
        """Carry out what is missing of these candidates' trials, and read what came of them."""
        fitting: list[tuple[Candidate, float | None, list[Trial]]] = []
        refused: dict[int, Exception] = {}
        for candidate, level in candidates:
            try:
                fitting.append((candidate, level, self._checked(candidate, level)))
            except (DataError, StoreError):
                raise
            except Exception as error:  # settings that do not go together: a row with its reason
                refused[candidate.number] = error
        if not fitting and not self.results:
            raise next(iter(refused.values()))
        self._trials |= {t.hash: t for _, _, found in fitting for t in found}
        if self._trials:
            every = replace(self.planned, trials=tuple(self._trials.values()), notes=tuple(self._notes))
            carry_out(every, out=self.folder, **self.options)
        results = [_read(c, rung, level, found, self.folder, self.settings.objective) for c, level, found in fitting]
        results += [Result(c, rung, level, (), {}, _line(refused[c.number])) for c, level in candidates if c.number in refused]
        results.sort(key=lambda r: r.candidate.number)
        self.results += results
        self.write(finished=False)
        return results

    def _checked(self, candidate: Candidate, level: float | None) -> list[Trial]:
        """The candidate's trials; where one of them is not finished, its data are loaded and its network is built once."""
        found = candidate_trials(
            self.planned.experiment, self.planned.tables, self.space, candidate.values, level, self.planned.allowed
        )
        if not all(TrialFolder(self.folder / "trials" / t.hash).finished() for t in found):
            place = self.options.get("data_dir")
            directory = Path(place) if place is not None else None
            self._notes |= dict.fromkeys(check(replace(self.planned, trials=tuple(found)), directory))
            split = self.settings.objective.split
            if split and not len(load_data(found[0].config.data, found[0].seed, directory).split(split)):
                raise DataError(f'no {split} samples to choose by: set data.validation = 0.1, or search.objective.split = "train"')
        return found

    def ordered(self, results: Sequence[Result]) -> list[Result]:
        """Best first; failed ones at the end; equal ones as they were drawn."""
        sign = -1 if self.settings.objective.maximised else 1
        good = [r for r in results if math.isfinite(r.value)]
        lost = [r for r in results if not math.isfinite(r.value)]
        return [*sorted(good, key=lambda r: (sign * r.value, r.candidate.number)), *sorted(lost, key=lambda r: r.candidate.number)]

    def ranked(self) -> list[list[Result]]:
        """The results of each candidate, its furthest rung last; candidates that got further come first, then the better ones."""
        by_values: dict[str, list[Result]] = {}
        for result in self.results:  # a candidate that was proposed twice is one row
            mine = by_values.setdefault(repr(sorted(result.candidate.values.items())), [])
            if not mine or mine[-1].rung < result.rung:
                mine.append(result)
        places = {id(r): i for i, r in enumerate(self.ordered([mine[-1] for mine in by_values.values()]))}
        return sorted(by_values.values(), key=lambda mine: (-_reached(mine), places[id(mine[-1])]))

    @property
    def text(self) -> str:
        """What the objective is and over what it is averaged."""
        seeds = len(self.planned.experiment.seed_list)
        known = [[self._trials[name] for name in r.trials] for r in self.results]
        cells = max((len({(t.variant, t.sparsity) for t in found}) for found in known), default=1)
        over = f"mean over {seeds} seed{'s' if seeds > 1 else ''}" + (f" and {cells} settings (variants, sparsities)" if cells > 1 else "")
        more = "more" if self.settings.objective.maximised else "less"
        return f"{self.settings.objective.text}, {over}; {more} is better"

    def best(self) -> dict[str, Any] | None:
        """The values of the first in the ranking; None where all failed."""
        first = self.ranked()[:1]
        return dict(first[0][-1].candidate.values) if first and math.isfinite(first[0][-1].value) else None

    def table(self) -> pd.DataFrame:
        """A row a candidate, best first: rank, candidate, the keys' values, rung's level, objective, low, high (95 %), n, reason."""
        rows = []
        for rank, mine in enumerate(self.ranked(), start=1):
            last = mine[-1]
            level = {self.settings.halving.over: last.level} if self.settings.halving else {}
            about = stats.describe(list(last.seeds.values()))
            told = {"objective": last.value, "low": about["low"], "high": about["high"], "n": len(last.seeds), "reason": last.reason}
            place = rank if last.reason is None else None
            rows.append({"rank": place, "candidate": last.candidate.number, **last.candidate.values, **level, **told})
        return pd.DataFrame(rows).astype({"rank": "Int64"}) if rows else pd.DataFrame()

    def write(self, *, finished: bool) -> None:
        """search.json: what the report reads, and what names the candidates' trials."""
        own = self.settings
        rows = []
        for rank, mine in enumerate(self.ranked(), start=1):
            last = mine[-1]
            rungs = [{"rung": r.rung, "level": r.level, "trials": list(r.trials), "reason": r.reason, **_interval(r)} for r in mine]
            place = rank if last.reason is None else None
            rows.append({"rank": place, "candidate": last.candidate.number, "values": dict(last.candidate.values), "rungs": rungs})
        logarithmic = [k for k, v in self.space.values.items() if getattr(v, "log", False)]
        about = {"method": own.method, "over": own.halving.over if own.halving else None, "keys": self.space.keys, "log": logarithmic}
        looked = {"metric": own.objective.metric, "maximised": own.objective.maximised, "text": self.text}
        write_json(self.folder / FILE, {"schema": VERSION, "finished": finished, **about, "objective": looked, "candidates": rows})


_METHODS = {"random": at_once, "grid": at_once, "tpe": in_rounds, "halving": halving}


def _reached(mine: Sequence[Result]) -> int:
    return max((r.rung for r in mine if math.isfinite(r.value)), default=-1)


def _interval(result: Result) -> dict[str, Any]:
    about = stats.describe(list(result.seeds.values()))
    ends = {k: about[k] if math.isfinite(about[k]) else None for k in ("low", "high")}
    value = result.value if math.isfinite(result.value) else None
    return {"value": value, **ends, "seeds": {str(s): v if math.isfinite(v) else None for s, v in result.seeds.items()}}


def _read(candidate: Candidate, rung: int, level: float | None, found: Sequence[Trial], folder: Path, objective: ObjectiveConfig) -> Result:
    """The objective of a candidate from its trials' records: of each seed the mean over variants and sparsities."""
    values: dict[int, list[float]] = {}
    reason = None
    for trial in found:
        place = TrialFolder(folder / "trials" / trial.hash)
        status = place.status()
        if status.get("status") in ("running", "missing"):
            raise StoreError(f"{place.folder}: {status['status']}, another run is at work on it: search again when it is done")
        try:
            if status.get("status") != "finished":
                raise DataError(str(status.get("reason") or status.get("status")))
            value = _objective(read_records(place.records_file), objective)
        except PrunescopeError as error:
            reason = reason or f"{trial.label}: {error}"
        else:
            values.setdefault(trial.seed, []).append(value)
    means = {seed: sum(each) / len(each) for seed, each in values.items()}
    return Result(candidate, rung, level, tuple(t.hash for t in found), means, reason)


def _objective(records: pd.DataFrame, objective: ObjectiveConfig) -> float:
    """The objective's last value in a trial's records. DataError where there is none, or none that is finite."""
    mine = records[(records["metric"] == objective.metric) & (records["phase"] == objective.phase)]
    named = ("split", "layer", "estimator")
    fitting = mine[(mine[list(named)] == [getattr(objective, name) for name in named]).all(axis=1)]
    if fitting.empty:
        there = ["/".join(str(v) or "-" for v in row) for row in mine[list(named)].drop_duplicates().itertuples(index=False)]
        known = f"it has split/layer/estimator {', '.join(there[:8])}" if there else f"this phase has {_known(records, objective)}"
        raise DataError(f"no record of {objective.text}: {known}")
    value = float(fitting["value"].iloc[-1])
    if not math.isfinite(value):
        raise DataError(f"{objective.text} is {value}")
    return value


def _known(records: pd.DataFrame, objective: ObjectiveConfig) -> str:
    there = records.loc[records["phase"] == objective.phase, "metric"].unique()
    return ", ".join(sorted(map(str, there))) or f"no records, the phases are {', '.join(records['phase'].unique())}"


def _line(error: Exception) -> str:
    first = (str(error).splitlines() or [""])[0]
    return first if isinstance(error, PrunescopeError) else f"{type(error).__name__}: {first}"


def _forget(folder: Path) -> None:
    """Remove what a run left in `folder`; a folder that is no run is not touched."""
    if not (folder / "experiment.json").exists():
        return
    read_json(folder / "experiment.json")
    refuse_others(folder)
    for part in ("trials", "dense", checkpoints.FOLDER):
        shutil.rmtree(folder / part, ignore_errors=True)
    for name in (FILE, "experiment.json"):
        (folder / name).unlink(missing_ok=True)
