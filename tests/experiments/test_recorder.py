"""What the recorder writes of a plane's points."""

import json

import torch

from prunescope.experiments.recorder import plane_records
from prunescope.information import plane_points, reference


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
