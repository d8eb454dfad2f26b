"""The programs that mi_speed_knn.py compares with, and the process in which one of them (or ours) is timed.

None of them is a dependency of prunescope. They do not agree on one numpy, so they go into environments of their own, whose interpreters
mi_speed_knn.py is told with --peers (each peer runs in the first one that has it; "not installed" stands where none has):

    python -m venv peers && peers/bin/pip install torch==2.13.0 && peers/bin/pip install npeet-plus infomeasure frites ennemi torch-mist
    peers/bin/pip install -U "numpy>=2.1" "pandas>=2.2"        (torch-mist asks for an older numpy, but runs)
    python -m venv bmi && bmi/bin/pip install benchmark-mi "jax<0.4.30" "jaxlib<0.4.30" "scipy<1.13"
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

Sample = tuple[np.ndarray, np.ndarray]
Call = Callable[[np.ndarray, np.ndarray], Any]


def sample(d: int, n: int, *, correlation: float | None = None, seed: int = 0, shuffled: bool = False) -> Sample:
    """d correlated normal pairs: correlation 0.6 up to 10 columns, 0.2 beyond; `shuffled` makes them independent."""
    random, c = np.random.default_rng(seed), correlation or (0.6 if d <= 10 else 0.2)
    x, noise = random.standard_normal((2, n, d))
    y = c * x + math.sqrt(1 - c * c) * noise
    return x, y[random.permutation(n)] if shuffled else y


def ours(name: str, **options: Any) -> Call:
    """Ours without an interval, as the others give none, unless `options` ask for one."""
    import torch

    from prunescope.information import mutual_information

    torch.set_num_threads(1)

    def call(x: np.ndarray, y: np.ndarray) -> Any:
        found = mutual_information(x, y, name, unit="nats", **{"uncertainty": None, **options})
        return found.value, found.interval

    return call


def scikit_learn() -> Call:
    from sklearn.feature_selection import mutual_info_regression

    return lambda x, y: mutual_info_regression(x, y[:, 0], n_neighbors=3, random_state=0)[0]


def npeet() -> Call:
    import npeet_plus

    return lambda x, y: npeet_plus.mi(x, y, k=3, base=math.e)


def infomeasure() -> Call:
    import infomeasure as im

    return lambda x, y: im.mutual_information(x, y, approach="ksg", k=3, base="e")


def ennemi() -> Call:
    import ennemi as module

    return lambda x, y: module.estimate_mi(y[:, 0], x[:, 0], k=3, preprocess=False)[0, 0]


def bmi_ksg() -> Call:
    import bmi

    return lambda x, y: bmi.estimators.KSGEnsembleFirstEstimator(neighborhoods=(3,), standardize=False).estimate(x, y)


def bmi_neural(name: str) -> Call:
    import bmi

    return lambda x, y: getattr(bmi.estimators, name)(verbose=False).estimate(x, y)


def frites() -> Call:
    from frites.core.gcmi_nd import gcmi_nd_cc

    return lambda x, y: float(gcmi_nd_cc(x.T, y.T, mvaxis=0)) * math.log(2)


def by_scipy() -> Call:
    """What a Gaussian copula takes without any package: ranks and quantiles as scipy gives them, log determinants."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    def call(x: np.ndarray, y: np.ndarray) -> float:
        d, both = x.shape[1], np.concatenate([x, y], axis=1)
        covariance = np.cov(ndtri(rankdata(both, axis=0) / (len(both) + 1)).T)
        a, b, c = (np.linalg.slogdet(part)[1] for part in (covariance[:d, :d], covariance[d:, d:], covariance))
        return float(a + b - c) / 2

    return call


def torch_mist() -> Call:
    """A separable critic, 1,000 steps, evaluated on the samples it was trained on, as its examples do."""
    import torch
    from torch_mist import estimate_mi

    torch.set_num_threads(1)

    def call(x: np.ndarray, y: np.ndarray) -> float:
        torch.manual_seed(0)
        data = x.astype(np.float32), y.astype(np.float32)
        options = {"hidden_dims": [64, 64], "critic_type": "separable", "max_iterations": 1000, "verbose": False}
        return float(estimate_mi(data, estimator="mine", **options)[0])

    return call


MAKERS: dict[str, Callable[[], Call]] = {
    "ours, maximum": lambda: ours("ksg", metric="max"),
    "ours, Euclidean": lambda: ours("ksg", metric="euclidean"),
    "ours, maximum, with an interval": lambda: ours("ksg", metric="max", uncertainty="auto"),
    "ours, copula": lambda: ours("gaussian-copula"),
    "ours, copula, with an interval": lambda: ours("gaussian-copula", uncertainty="auto"),
    "ours, mine from zero": lambda: ours("mine", start="zero"),
    "ours, mine from a normal fit": lambda: ours("mine"),
    "ours, infonce from zero": lambda: ours("infonce", start="zero"),
    "scikit-learn": scikit_learn,
    "npeet_plus": npeet,
    "infomeasure": infomeasure,
    "ennemi": ennemi,
    "benchmark-mi, KSG": bmi_ksg,
    "benchmark-mi, MINE": lambda: bmi_neural("MINEEstimator"),
    "benchmark-mi, InfoNCE": lambda: bmi_neural("InfoNCEEstimator"),
    "frites": frites,
    "scipy's ranks": by_scipy,
    "torch-mist, MINE": torch_mist,
}
NEEDS = {  # module to import, distribution whose version is named
    "scikit-learn": ("sklearn", "scikit-learn"),
    "npeet_plus": ("npeet_plus", "npeet-plus"),
    "infomeasure": ("infomeasure", "infomeasure"),
    "ennemi": ("ennemi", "ennemi"),
    "benchmark-mi, KSG": ("bmi", "benchmark-mi"),
    "benchmark-mi, MINE": ("bmi", "benchmark-mi"),
    "benchmark-mi, InfoNCE": ("bmi", "benchmark-mi"),
    "frites": ("frites", "frites"),
    "scipy's ranks": ("scipy", "scipy"),
    "torch-mist, MINE": ("torch_mist", "torch-mist"),
}


def run(who: str, shape: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Least CPU seconds of some calls after a small one, megabytes above the state before, value in nats and interval (None: none)."""
    call, (x, y) = MAKERS[who](), sample(**shape)
    neural = any(word in who for word in ("mine", "MINE", "nce", "NCE"))
    if not neural:
        call(x[:500], y[:500])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times, value, budget = [], None, time.perf_counter() + 20
    for _ in range(1 if neural or len(x) > 50_000 else repeats):
        started = time.process_time()
        value = call(x, y)
        times.append(time.process_time() - started)
        if time.perf_counter() > budget:
            break
    value, interval = value if isinstance(value, tuple) else (value, None)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"seconds": min(times), "megabytes": grown, "value": float(value), "interval": interval}


def installed() -> dict[str, str]:
    """Version of every peer that this interpreter has."""
    found = {}
    for who, (module, name) in NEEDS.items():
        if importlib.util.find_spec(module) is not None:
            found[who] = importlib.metadata.version(name)
    return found


if __name__ == "__main__":
    print(json.dumps(installed() if sys.argv[1] == "--installed" else run(*json.loads(sys.argv[1]))))
