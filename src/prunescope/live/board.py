"""The board: what the page is told of a run, and only what has changed since it last asked."""

from __future__ import annotations

import math
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from prunescope.results.following import Followed, Following, moments

POINTS = 120  # of a curve at most: more than the page has pixels for
CURVES = ("accuracy", "loss")
PLANE = ("mi_input", "mi_label")
PHASES = ("train", "pruned", "finetune")  # in the order of values that share an epoch: pruning is a drop

Points = dict[tuple[float, int], float]


class Board:
    """What is known of the run in `folder`. `state` may be asked by several threads."""

    def __init__(self, folder: str | Path) -> None:
        self.following = Following(folder)
        self._lock = threading.Lock()
        self._version = 0
        self._changed: dict[str, int] = {}

    def state(self, since: int = 0, plane: str = "") -> dict[str, Any]:
        """The run as it stands, JSON-ready: trials that changed after version `since`, and the information plane of trial `plane`."""
        with self._lock:
            news = self.following.news()
            if news:
                self._version += 1
                self._changed |= dict.fromkeys((n.trial.name for n in news), self._version)
            trials = self.following.trials
            shown = [t for name, t in trials.items() if since == 0 or self._changed.get(name, 0) > since]
            with_plane = [n for n, t in trials.items() if any(f.metric in PLANE for f in t.facts[:200])]
            return {
                "version": self._version,
                "run": (self.following.experiment or {}).get("created", ""),
                "status": self._status(),
                "quiet": self.following.quiet_seconds(),
                "counts": dict(Counter(t.status for t in trials.values() if not t.shared)),
                "trials": [self._trial(t) for t in shown],
                "planes": with_plane,
                "plane": _plane(trials[plane]) if plane in trials else None,
            }

    def _status(self) -> str:
        if self.following.experiment is None:
            return "waiting"
        if self.following.working:
            return "running"
        own = [t for t in self.following.trials.values() if not t.shared]
        return "finished" if all(t.status in ("finished", "failed") for t in own) else "stopped"

    def _trial(self, trial: Followed) -> dict[str, Any]:
        trained, curves = 0.0, dict[str, Points]()
        for moment, fact in moments(trial.facts):
            if fact.metric in CURVES and fact.phase in PHASES:
                trained = moment if fact.phase == "train" else trained
                curves.setdefault(f"{fact.metric}/{fact.split}", {})[moment, PHASES.index(fact.phase)] = fact.value
        final = {f.metric: _number(f.value) for f in trial.facts if f.phase == "final" and f.metric in CURVES and f.split == "test"}
        reached = [f.value for f in trial.facts if f.metric == "sparsity" and not f.layer]
        return {
            "name": trial.name, "label": trial.label, "group": trial.group, "variant": trial.variant, "sparsity": trial.sparsity,
            "seed": trial.seed, "shared": trial.shared, "status": trial.status, "reason": trial.reason, "seconds": trial.seconds,
            "curves": {name: _thinned(points) for name, points in curves.items()}, "final": final, "trained": trained,
            "reached": _number(reached[-1]) if reached else None,
        }  # fmt: skip


def _thinned(points: Points) -> list[list[float | None]]:
    """[[epochs], [values]] in order, evenly thinned to POINTS of them; the first and the last stay."""
    order = sorted(points)
    if len(order) > POINTS:
        step = (len(order) - 1) / (POINTS - 1)
        order = [order[round(i * step)] for i in range(POINTS)]
    return [[float(e) for e, _ in order], [_number(points[e]) for e in order]]


def _plane(trial: Followed) -> dict[str, Any]:
    """Estimates over the epochs: {estimator: {quantity: {layer: [[epochs], [bits]]}}}."""
    found: dict[str, dict[str, dict[str, Points]]] = {}
    for moment, fact in moments(trial.facts):
        if fact.metric in PLANE and fact.phase in ("train", "finetune"):
            place = found.setdefault(fact.estimator, {}).setdefault(fact.metric, {}).setdefault(fact.layer, {})
            place[moment, PHASES.index(fact.phase)] = fact.value
    thin = {e: {q: {layer: _thinned(p) for layer, p in qs[q].items()} for q in PLANE if q in qs} for e, qs in found.items()}
    return {"name": trial.name, "estimates": thin}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
