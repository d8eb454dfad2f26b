"""What the recorder writes of a plane's points."""

import json

import pandas as pd
import torch

import prunescope as ps
from prunescope.experiments import stackrecorder
from prunescope.experiments.recorder import plane_records
from prunescope.information import plane_points, reference
from prunescope.measures import capture


def test_the_layers_number_leaves_the_estimators_order_alone():
    """Renyi has a parameter `order`: the number of the layer must not overwrite it."""
    generator = torch.Generator().manual_seed(0)
    layers = {name: torch.randn(40, 2, generator=generator) for name in ("h1", "h2", "h3")}
    labels = torch.arange(40) % 2
    ref = reference(labels)
    points = plane_points(layers, ref, estimators=[{"name": "renyi", "order": 2}])
    records = plane_records(points, ref, "train", 0, 0.0, "train")
    told = [json.loads(r.parameters) for r in records]
    assert {d["order"] for d in told} == {2}
    assert {(r.layer, d["layer_order"]) for r, d in zip(records, told, strict=True)} == {("h1", 0), ("h2", 1), ("h3", 2)}


def test_layers_that_take_much_are_recorded_some_at_a_time_with_the_same_records(tmp_path, monkeypatch):
    config = {
        "name": "deep",
        "seeds": 1,
        "sparsity": [0.5],
        "data": {"name": "digits", "flatten": True, "classes": [0, 1, 2], "train_size": 60},
        "model": {"name": "mlp", "widths": [8, 8, 8, 8, 8, 8], "activation": "relu"},
        "training": {"epochs": 1, "batch_size": 32},
        "measure": {"plane": {"estimators": [{"name": "binning", "bins": 8, "range": "auto"}, {"name": "kde"}]}},
        "variant": [{"name": "dense", "prune": {"when": "never"}}],
    }
    whole = ps.run(config, out=tmp_path / "whole", engine="serial").records
    passes = []
    real = capture.Streamed.__init__

    def counted(self, *args, **options):
        real(self, *args, **options)
        passes.append(self.passes)

    monkeypatch.setattr(capture.Streamed, "__init__", counted)
    monkeypatch.setattr(capture, "HELD_BYTES", 1000)
    monkeypatch.setattr(stackrecorder, "RECORDED_BYTES", 1000)
    parts = ps.run(config, out=tmp_path / "parts", engine="serial").records
    assert passes
    assert min(passes) > 1
    assert parts["metric"].isin(["mi_input"]).any()
    pd.testing.assert_frame_equal(parts, whole, check_exact=True)
