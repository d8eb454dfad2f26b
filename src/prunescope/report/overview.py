"""What pruning did, in a few sentences with intervals, computed from the records alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from prunescope.report import tables
from prunescope.report.numbers import size
from prunescope.report.pareto import STAGES, pareto
from prunescope.report.planes import Planes
from prunescope.report.searching import Searched
from prunescope.results import stats

if TYPE_CHECKING:
    from prunescope.results.store import Run

NEAR = 0.01  # "as good as the baseline": within one point of accuracy, the whole interval included
Line = tuple[str, str]


def overview(run: Run, table: pd.DataFrame, planes: Planes | None, searched: Searched | None = None) -> list[Line]:
    """(topic, sentences) lines, one a topic: what was compared, accuracy, size and speed, information, collapsed runs, zeros come back.

    Of a search (`searched`) the best candidate's accuracy alone is told: it was chosen without test samples, unlike the highest there.
    """
    told: list[tuple[str, list[str]]] = [("Compared", [_compared(run, table, searched)])]
    measured = table[table["accuracy"].notna()]
    chosen = measured if searched is None else measured[measured["group"] == searched.best_group(run)]
    if searched is not None:
        told.append(("Search", [searched.sentence(), *_unseen(chosen)]))
    for group, part in chosen.groupby("group", sort=False):
        told.append((f"Accuracy ({group!s})" if group else "Accuracy", _accuracy(run, part)))
    told.append(("Size", [*_size(run, measured), *_deployed(run, measured), *_speed(measured)]))
    told.append(("Information", [] if planes is None else _information(run, planes)))
    told += [("Chance", _chance(table)), ("Zeros", _regrowth(run))]
    return [(topic, " ".join(sentences)) for topic, sentences in told if sentences]


def _compared(run: Run, table: pd.DataFrame, searched: Searched | None) -> str:
    variants, groups = table["variant"].nunique(), [g for g in table["group"].unique() if g]
    done, lost = int(table["seeds"].sum()), int(table["failed"].sum())
    seeds = table["seeds"].dropna()
    each = counted(int(seeds.max()), "seed") if len(seeds) else "no seed"
    each = each if seeds.nunique() <= 1 else f"{int(seeds.min())} to {each}"
    crossed = f" for each of {', '.join(groups)}" if len(groups) > 1 else ""
    if searched is not None:
        crossed = f" for {counted(searched.points['candidate'].nunique(), 'candidate')}"
    failed = f"; {counted(lost, 'trial')} without results (listed below)" if lost else ""
    settings = counted(len(table.drop_duplicates(["variant", "sparsity"])), "setting")
    return f"{counted(variants, 'variant')} at {settings}{crossed}, {each} each: {counted(done, 'finished trial')}{failed}. {_trust(seeds)}"


def _unseen(chosen: pd.DataFrame) -> list[str]:
    """The best candidate's test accuracy."""
    if len(chosen) != 1:
        return []
    row = chosen.iloc[0]
    return [f"On the test set, which took no part in the choice, it reaches {100 * row['accuracy']:.1f} %{interval(row, 'accuracy')}."]


def _trust(seeds: pd.Series) -> str:
    """What the brackets are, and what so few seeds allow."""
    most = int(seeds.max()) if len(seeds) else 0
    if most < 2:
        return "One seed allows no interval."
    brackets = "Brackets: 95 % intervals of the mean over seeds"
    few = f", which from so few hold the truth at most {100 * (1 - 2.0 ** (1 - most)):.0f} % of the time"
    return f"{brackets}{few if most < 5 else ''}."


def counted(n: int, noun: str) -> str:
    """A count with its noun.

    >>> counted(1, "seed"), counted(1200, "trial")
    ('1 seed', '1,200 trials')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def interval(row: pd.Series, name: str, scale: float = 100.0, digits: int = 1) -> str:
    """" [low, high]" of a summary column, or nothing where a single seed allows none."""
    low, high = (round(row[f"{name}_{end}"] * scale, digits) + 0.0 for end in ("low", "high"))  # + 0.0: never a negative zero
    return "" if np.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]".replace("-", "−")


def points(row: pd.Series) -> str:
    """The paired difference of accuracy in points, with its interval."""
    return f"{100 * row['difference']:+.1f} points".replace("-", "−") + interval(row, "difference")


def _accuracy(run: Run, part: pd.DataFrame) -> list[str]:
    name = tables.baseline(run)
    whole = part[(part["variant"] == name) if name else (part["sparsity"] == 0)].head(1)
    sentences = []
    if len(whole):
        row = whole.iloc[0]
        single = " (one seed)" if row["seeds"] == 1 else ""
        sentences.append(f"“{row['label']}” reaches {100 * row['accuracy']:.1f} %{interval(row, 'accuracy')} on the test set{single}.")
    compared = part[part["difference"].notna() & (part["reached"].fillna(part["sparsity"]) > 0)]
    if len(compared):
        sentences.append(_cost(compared))
    return sentences


def _cost(compared: pd.DataFrame) -> str:
    sure = compared[compared["difference_low"].fillna(compared["difference"]) >= -NEAR]
    worst = _row(compared, compared["difference"].argmin())
    if len(sure):
        best = _row(sure, sure["reached"].fillna(sure["sparsity"]).argmax())
        sparsity = best["reached"] if pd.notna(best["reached"]) else best["sparsity"]
        first = f"Within one point of it for certain, most is removed by “{best['label']}”: {100 * sparsity:.1f} % gone, {points(best)}"
    else:
        best = _row(compared, compared["difference"].argmax())
        first = f"No pruned setting is within one point of it for certain; closest is “{best['label']}” at {points(best)}"
    if best.name == worst.name:
        return first + " (paired by seed)."
    return first + f"; dearest: “{worst['label']}” at {points(worst)} (paired by seed)."


def _row(table: pd.DataFrame, number: int | np.integer) -> pd.Series:
    row: pd.Series = table.iloc[int(number)]
    return row


def _size(run: Run, table: pd.DataFrame) -> list[str]:
    if len(table) < 2 or table["nonzero"].isna().all():
        return []
    small, large = _row(table, table["nonzero"].argmin()), _row(table, table["nonzero"].argmax())
    if small["nonzero"] == large["nonzero"]:
        return [f"Every setting keeps {large['nonzero']:,.0f} non-zero parameters."]
    text = f"Non-zero parameters fall from {large['nonzero']:,.0f} to {small['nonzero']:,.0f} (“{small['label']}”)"
    if small["bytes"] == large["bytes"]:
        text += f", yet the dense file keeps its {size(large['bytes'])}: zeros that stay in place make nothing smaller or faster"
    elif pd.notna(small["bytes"]):
        text += f", the file from {size(large['bytes'])} to {size(small['bytes'])}"
    return [text + "."]


def _deployed(run: Run, table: pd.DataFrame) -> list[str]:
    """What the stages behind pruning save: the smallest file of those whose mean accuracy stays within one point of the reference's."""
    points, name = pareto(run), tables.baseline(run)
    whole = table[(table["variant"] == name) if name else (table["sparsity"] == 0)]
    if points is None or whole.empty or whole["bytes"].isna().all() or table["group"].nunique() > 1:
        return []  # several groups have a reference each: their table says it
    later = points[(points["cost"] == "bytes") & (points["stage"] != "final")]
    later = later[later["mean"] >= float(whole["accuracy"].iloc[0]) - NEAR]
    if later.empty:
        return []
    best, dense = _row(later, later["x"].argmin()), float(whole["bytes"].iloc[0])
    label, stage = tables.cells(run)["label"].iloc[int(best["cell"])], STAGES[best["stage"]]
    return [
        f"Smallest within one point of it, by means: “{label}”, {stage}, at {size(best['x'])} ({dense / best['x']:.1f} times less) and "
        f"{100 * best['mean']:.1f} %."
    ]


def _speed(table: pd.DataFrame) -> list[str]:
    """Latency where it was measured: of the dense network and of the fastest setting, without a claim where the two are close."""
    timed = table[table["latency_ms"].notna() & table["nonzero"].notna()]
    if len(timed) < 2:
        return []
    slow, fast = _row(timed, timed["nonzero"].argmax()), _row(timed, timed["latency_ms"].argmin())
    ratio = slow["latency_ms"] / fast["latency_ms"]
    if ratio < 1.1:
        return [f"With zeros in place no setting is more than a tenth faster than the {slow['latency_ms']:.3g} ms of “{slow['label']}”."]
    ends = [f"{row['latency_ms']:.3g} ms for “{row['label']}”" for row in (slow, fast)]
    return [f"Latency: {', '.join(ends)} ({ratio:.1f} times)."]


def _information(run: Run, planes: Planes) -> list[str]:
    """The largest paired change of I(X;T), and of I(T;Y) in the last layer, at the last recorded moment of each trial."""
    name = tables.baseline(run)
    if name is None or planes.trials["variant"].nunique() < 2:
        return _course(planes)
    reference = f"than in “{name}”"
    sentences = []
    for symbol, values, layers in (("I(X;T)", planes.x, planes.layers), ("I(T;Y)", planes.y, planes.layers[-1:])):
        change = _largest_change(last_moment(values[0]), planes, name, layers)
        if change is not None:
            label, layer, about = change
            ends = "" if np.isnan(about["low"]) else f" [{about['low']:+.2f}, {about['high']:+.2f}]".replace("-", "−")
            what = f"{abs(about['mean']):.2f} {planes.unit} {'higher' if about['mean'] > 0 else 'lower'}"
            doubt = "; the interval holds zero" if about["low"] < 0 < about["high"] else ""
            where = f"{symbol}{' of the last layer' if len(layers) == 1 else ''}"
            sentences.append(f"Largest change of {where}: {layer} in “{label}” ends {what}{ends} {reference}{doubt}.")
    return sentences


def _course(planes: Planes) -> list[str]:
    """How the last layer moved over training in the first variant: all there is to tell where nothing is compared."""
    first = planes.trials.iloc[0]
    x, y = planes.median(0, (planes.trials[["group", "variant"]] == first[["group", "variant"]]).all(axis=1).to_numpy())
    layer = int(np.flatnonzero(np.isfinite(x).any(axis=1))[-1])
    told = []
    for symbol, values in (("I(T;Y)", y[layer]), ("I(X;T)", x[layer])):
        seen = values[np.isfinite(values)]
        peak = f" over {seen.max():.2f}" if len(seen) and seen.max() > max(seen[0], seen[-1]) + 0.05 else ""
        told.append(f"{symbol} from {seen[0]:.2f}{peak} to {seen[-1]:.2f} {planes.unit}" if len(seen) else f"{symbol} not measured")
    return [f"In “{first['variant']}” the last layer ({planes.layers[layer]}) moves over training: {', '.join(told)} (medians over seeds)."]


def last_moment(values: np.ndarray) -> np.ndarray:
    """The last finite value along the moments, shape (trials, layers): trials that were not fine-tuned end with training."""
    finite = np.isfinite(values)
    last = values.shape[-1] - 1 - finite[..., ::-1].argmax(axis=-1)
    return np.asarray(np.take_along_axis(values, last[..., None], axis=-1)[..., 0])


def _largest_change(ends: np.ndarray, planes: Planes, name: str, layers: list[str]) -> tuple[str, str, dict[str, float]] | None:
    frame = planes.trials.copy()
    best: tuple[str, str, dict[str, float]] | None = None
    for layer in layers:
        values = frame.assign(metric="end", phase="final", split="", layer=layer, value=ends[:, planes.layers.index(layer)])
        changes = stats.paired_differences(values[np.isfinite(values["value"])], "end", baseline=name)
        for _, row in changes.iterrows():
            if best is None or abs(row["mean"]) > abs(best[2]["mean"]):
                several = ((changes["variant"] == row["variant"]) & (changes["group"] == row["group"])).sum() > 1
                named = [row["group"], row["variant"], tables.percent(row["sparsity"]) if several else ""]
                best = (" ".join(str(n) for n in named if n), layer, {k: float(row[k]) for k in ("mean", "low", "high")})
    return best


def _chance(table: pd.DataFrame) -> list[str]:
    judged = table["judged"].sum()
    if not judged:
        return []
    lost = table[table["collapsed"] > 0]
    if lost.empty:
        return [f"{counted(int(judged), 'run')}, none of them at chance level in the end."]
    titles = [" ".join(x for x in pair if x) for pair in zip(lost["group"], lost["label"], strict=True)]
    counts = [f"“{t}” {c:.0f}/{j:.0f}" for t, c, j in zip(titles, lost["collapsed"], lost["judged"], strict=True)]
    more = f" and {len(counts) - 6} more settings" if len(counts) > 6 else ""
    total = int(lost["collapsed"].sum())
    return [f"{total} of {int(judged):,} runs collapsed to chance: {', '.join(counts[:6])}{more}. Means include them."]


def _regrowth(run: Run) -> list[str]:
    rows = stats.select(run.records, "sparsity", layer="")
    rows = rows[rows["phase"].isin(["pruned", "final"])].drop_duplicates(["trial", "phase"], keep="last")
    wide = rows.pivot_table(index=["variant", "trial"], columns="phase", values="value")
    if not {"pruned", "final"} <= set(wide.columns):
        return []
    lost = (wide["pruned"] - wide["final"]).groupby(level="variant").mean()
    grown = lost[lost > 0.005]
    if grown.empty:
        return []
    mean = wide.groupby(level="variant")[["pruned", "final"]].mean()
    shares = {phase: [tables.percent(round(v, 3)) for v in mean.loc[grown.index, phase]] for phase in ("pruned", "final")}
    told = [f"“{name}” {was} → {now}" for name, was, now in zip(grown.index, shares["pruned"], shares["final"], strict=True)]
    return [f"Pruned weights came back in later training (the masks were not held): sparsity {'; '.join(told)}."]
