"""A run's records in MLflow: one MLflow experiment for the run, one MLflow run a trial, named by variant, sparsity and seed."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prunescope import extras
from prunescope.integrations.tracks import Told, parameters
from prunescope.results.following import Followed, Following
from prunescope.results.live import Fact

BATCH = 1000  # metrics in one call: MLflow's own limit
TRIAL, STATUS, REASON = "prunescope.trial", "prunescope.status", "prunescope.reason"


def maker(uri: str, folder: Path) -> Callable[[Following], MLflow]:
    """Makes the tracker that writes to `uri`, to $MLFLOW_TRACKING_URI, or to mlflow.db (SQLite) in the run's folder.

    Raises MissingExtraError where MLflow, or for SQLite its driver, is not installed.
    """
    package = extras.load("mlflow", extra="track", purpose="--log mlflow")
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI", "") or f"sqlite:///{folder.resolve() / 'mlflow.db'}"
    if uri.startswith("sqlite:"):
        for name in ("sqlalchemy", "alembic"):
            extras.load(name, extra="track", purpose="--log mlflow to SQLite")
    entities = extras.load("mlflow.entities", extra="track", purpose="--log mlflow")

    def make(following: Following) -> MLflow:
        folder.mkdir(parents=True, exist_ok=True)
        with extras.quiet():
            return MLflow(package.MlflowClient(tracking_uri=uri), entities, following)

    return make


class MLflow:
    """Writes each trial as an MLflow run; one that is finished there already is left alone, one that was broken off is marked and anew."""

    def __init__(self, client: Any, entities: Any, following: Following) -> None:
        self._client, self._entities = client, entities
        self._about = following.experiment or {}
        name = str(self._about.get("name") or following.folder.name)
        found = client.get_experiment_by_name(name)
        self._experiment = found.experiment_id if found is not None else client.create_experiment(name)
        self._runs: dict[str, str] = {}
        self._logged = self._known()
        self._told = Told()

    def _known(self) -> set[str]:
        """Hashes of the trials that are finished in MLflow; those that were broken off are closed there."""
        finished, token = set[str](), None
        while True:
            page = self._client.search_runs([self._experiment], max_results=1000, page_token=token)
            for run in page:
                if run.info.status == "FINISHED" and TRIAL in run.data.tags:
                    finished.add(run.data.tags[TRIAL])
                elif run.info.status == "RUNNING" and TRIAL in run.data.tags:
                    self._client.set_terminated(run.info.run_id, "KILLED")
            token = page.token
            if not token:
                return finished

    def begun(self, trial: Followed) -> None:
        """A trial begins, or begins anew."""
        if (run := self._runs.pop(trial.name, None)) is not None:
            self._client.set_terminated(run, "KILLED")
        self._told.forget(trial)
        self._logged.discard(trial.hash)

    def facts(self, trial: Followed, facts: Sequence[Fact]) -> None:
        """Write what is new, a thousand numbers a call."""
        if trial.hash in self._logged:
            return
        run, now = self._run(trial), int(time.time() * 1000)
        metrics = [self._entities.Metric(metric_name(name), value, now, step) for name, step, value in self._told.new(trial, facts)]
        for i in range(0, len(metrics), BATCH):
            self._client.log_batch(run, metrics=metrics[i : i + BATCH])

    def ended(self, trial: Followed) -> None:
        """Close the trial's run with its status."""
        if trial.hash in self._logged:
            return
        run = self._run(trial)
        self._client.set_tag(run, STATUS, trial.status)
        if trial.reason:
            self._client.set_tag(run, REASON, trial.reason[:5000])
        self._client.set_terminated(run, "FINISHED" if trial.status == "finished" else "FAILED")
        self._runs.pop(trial.name, None)
        self._told.forget(trial)
        if trial.status == "finished":
            self._logged.add(trial.hash)

    def close(self) -> None:
        """Runs that are still open were broken off."""
        for run in self._runs.values():
            self._client.set_terminated(run, "KILLED")
        self._runs = {}

    def _run(self, trial: Followed) -> str:
        if trial.name not in self._runs:
            made = self._client.create_run(self._experiment, run_name=trial.label, tags={TRIAL: trial.hash})
            self._runs[trial.name] = made.info.run_id
            settings = parameters(trial, self._about.get("config", {}))
            found = [self._entities.Param(metric_name(k), str(v)[:500]) for k, v in settings.items()]
            self._client.log_batch(made.info.run_id, params=found[:100])
        return self._runs[trial.name]


def metric_name(name: str) -> str:
    """A name that MLflow takes: letters, digits and _ - . space : / alone.

    >>> metric_name("mi_input/binning/fc1@last")
    'mi_input/binning/fc1_last'
    """
    return re.sub(r"[^\w\-. :/]", "_", name)[:250]
