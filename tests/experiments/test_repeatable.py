"""Trainings on a GPU ask cuDNN for sums in the same order each time."""

import contextlib

import torch

import prunescope as ps
from prunescope.experiments import tasks
from prunescope.rng import repeatable
from smallest import SMALL


def test_on_a_gpu_sums_come_in_one_order_and_the_setting_is_put_back():
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    with contextlib.suppress(KeyError), repeatable("cuda:1"):
        assert (cudnn.deterministic, cudnn.benchmark) == (True, False)
        raise KeyError
    assert (cudnn.deterministic, cudnn.benchmark) == before
    with repeatable("cpu"):
        assert (cudnn.deterministic, cudnn.benchmark) == before


def test_every_training_of_a_run_works_under_it(tmp_path, monkeypatch):
    inside, seen = [], []

    @contextlib.contextmanager
    def noted(device):
        inside.append(device)
        yield
        inside.pop()

    real = tasks.together
    monkeypatch.setattr(tasks, "repeatable", noted)
    monkeypatch.setattr(tasks, "together", lambda *a, **k: seen.append(list(inside)) or real(*a, **k))
    variants = [
        {"name": "dense", "prune": {"when": "never"}},
        {"name": "ticket", "prune": {"when": "rewind", "rate": 0.5, "rewind": 1}},
        {"name": "pruned", "prune": {"when": "trained"}},
    ]
    training = {**SMALL.get("training", {}), "epochs": 2}
    ps.run({**SMALL, "variant": variants, "training": training}, out=tmp_path / "run", engine="serial")
    assert len(seen) >= 3
    assert all(devices == ["cpu"] for devices in seen)
