"""What a search found: its ranking, and the objective against each key that was searched."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from prunescope.report import drawing
from prunescope.report.numbers import number
from prunescope.results.files import read_json
from prunescope.types import StoreError

if TYPE_CHECKING:
    from prunescope.results.store import Run

FILE = "search.json"
COLUMNS = ["candidate", "rank", "values", "rung", "level", "value", "low", "high", "n", "reason", "last", "trials"]


@dataclass(frozen=True)
class Searched:
    """A search as search.json tells it: `points` has a row for each candidate and rung (COLUMNS), best candidates first."""

    method: str
    over: str | None
    keys: list[str]
    log: list[str]
    metric: str
    text: str
    finished: bool
    points: pd.DataFrame

    @property
    def ranking(self) -> pd.DataFrame:
        """A row a candidate, at the furthest rung that it came to."""
        ranking: pd.DataFrame = self.points[self.points["last"]].reset_index(drop=True)
        return ranking

    def column(self, key: str) -> list[Any]:
        """What each point's candidate has for `key`: numbers where all are numbers, else text."""
        values = [row.get(key) for row in self.points["values"]]
        numeric = all(isinstance(v, int | float) and not isinstance(v, bool) and np.isfinite(v) for v in values)
        return values if numeric else [v if isinstance(v, str) else json.dumps(v) for v in values]


    @property
    def best(self) -> pd.Series | None:
        """The first of the ranking; None where all failed."""
        first = self.points[self.points["last"] & (self.points["rank"] == 1) & np.isfinite(self.points["value"])]
        return None if first.empty else first.iloc[0]

    def best_group(self, run: Run) -> str | None:
        """The group under which the best candidate's trials are recorded."""
        best = self.best
        groups = run.trials.loc[run.trials["hash"].isin([] if best is None else best["trials"]), "group"]
        return None if groups.empty else str(groups.iloc[0])

    def sentence(self) -> str:
        """What came out, in a sentence."""
        best, lost = self.best, int(self.ranking["reason"].notna().sum())
        failed = f" {lost} failed (listed with their reasons)." if lost else ""
        if best is None:
            return f"No candidate has an objective ({self.text}).{failed}"
        values = ", ".join(f"{k} = {_told(v)}" for k, v in best["values"].items())
        at = "" if self.over is None or not np.isfinite(best["level"]) else f", {self.over} = {best['level']:g}"
        return f"Best of {len(self.ranking)} by {self.text}: {values}{at}.{failed}"


def _told(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def searched(run: Run) -> tuple[Searched | None, list[str]]:
    """What search.json in the run's folder says, and what was wrong with it; None for a run that is no search."""
    place = run.folder / FILE
    if not place.is_file():
        return None, []
    try:
        told = read_json(place)
        rows = [row for candidate in told["candidates"] for row in _rows(candidate)]
        texts = (told["method"], told["objective"]["metric"], told["objective"]["text"], *told["keys"], *told["log"])
        if not all(isinstance(t, str) for t in (*texts, told["over"] or "")):
            raise TypeError("a name is no text")
    except StoreError as error:
        return None, [str(error)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return None, [f"{place}: not a ranking as this version writes it ({type(error).__name__}: {error}), and left out"]
    points = pd.DataFrame(rows, columns=COLUMNS)
    about = {k: told[k] for k in ("method", "over", "keys", "log")}
    looked = {"metric": told["objective"]["metric"], "text": told["objective"]["text"]}
    found = Searched(**about, **looked, finished=told.get("finished") is True, points=points)
    return (found if len(points) and found.keys else None), []


def _rows(candidate: dict[str, Any]) -> list[dict[str, Any]]:
    rungs = candidate["rungs"]
    rank = candidate["rank"]
    return [
        {
            "candidate": int(candidate["candidate"]),
            "rank": None if rank is None else int(rank),
            "values": dict(candidate["values"]),
            "rung": int(rung["rung"]),
            "reason": None if rung["reason"] is None else str(rung["reason"]),
            **{k: np.nan if rung[k] is None else float(rung[k]) for k in ("level", "value", "low", "high")},
            "n": len(rung["seeds"]),
            "trials": [str(t) for t in rung["trials"]],
            "last": i == len(rungs) - 1,
        }
        for i, rung in enumerate(rungs)
    ]


def payload(found: Searched) -> dict[str, Any]:
    """The page's part: the ranking, the points, and for each key its values and whether its axis is logarithmic."""
    points = found.points
    numeric = {c: [number(float(v)) for v in points[c]] for c in ("level", "value", "low", "high")}
    counted = {c: points[c].astype(int).tolist() for c in ("candidate", "rung", "n")}
    rank = [None if pd.isna(v) else int(v) for v in points["rank"]]
    keys = [{"name": k, "values": found.column(k), "log": k in found.log} for k in found.keys]
    told = {"method": found.method, "over": found.over, "metric": found.metric, "text": found.text, "finished": found.finished}
    reasons = [None if pd.isna(reason) else reason for reason in points["reason"]]
    return {**told, "keys": keys, **numeric, **counted, "rank": rank, "last": points["last"].tolist(), "reason": reasons}


def figure(found: Searched) -> Any:
    """The objective against each searched key: a point a candidate with its 95 % interval, a colour a rung, the best as a diamond."""
    points = found.points
    made, axes = drawing.grid(len(found.keys), (3.2, 2.8), sharey=True)
    rungs = sorted(points["rung"].unique())
    for axis, key in zip(axes, found.keys, strict=True):
        column = found.column(key)
        named = list(dict.fromkeys(column)) if isinstance(column[0], str) else []
        where = [named.index(v) for v in column] if named else column
        for x, row in zip(where, points.itertuples(), strict=True):
            if not np.isfinite(row.value):  # type: ignore[arg-type]
                continue
            colour = drawing.PALETTE[rungs.index(row.rung) % 8]
            best = row.rank == 1 and row.last
            if np.isfinite(row.low):  # type: ignore[arg-type]
                axis.vlines(x, row.low, row.high, color=colour, linewidth=1, alpha=0.4)
            look = {"markersize": drawing.marks(7 if best else 4.5), "markeredgecolor": "#33373d" if best else colour}
            axis.plot(x, row.value, "D" if best else "o", color=colour, zorder=3 if best else 2, **look)
        if named:
            axis.set(xticks=range(len(named)), xlim=(-0.5, len(named) - 0.5))
            axis.set_xticklabels(named, rotation=0 if sum(map(len, named)) < 30 else 30)
        elif key in found.log:
            drawing.logarithmic_x(axis, "{:g}".format)
        axis.set(xlabel=key)
    for rung in rungs:
        level = points.loc[points["rung"] == rung, "level"].iloc[0]
        label = f"{found.over} = {level:g}" if found.over else "candidate"
        axes[0].plot([], [], "o", color=drawing.PALETTE[rungs.index(rung) % 8], markersize=drawing.marks(4.5), label=label)
    if found.best is not None:
        colour = drawing.PALETTE[rungs.index(found.best["rung"]) % 8]
        axes[0].plot([], [], "D", color=colour, markeredgecolor="#33373d", markersize=drawing.marks(7), label="best")
    axes[0].set_ylabel(found.text.partition(" (")[0])
    drawing.legend(made, axes)
    return made
