"""The smallest experiment that runs: one trial of a second."""

SMALL = {
    "data": {"name": "digits", "train_size": 60, "test_size": 40, "flatten": True},
    "model": {"name": "mlp", "widths": [4]},
    "training": {"epochs": 1},
    "measure": {"epochs": "none", "histogram_bins": 0},
    "sparsity": [0.5],
    "seeds": 1,
}
