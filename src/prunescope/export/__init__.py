"""Export: a network as a file that others can run, checked against the network, with a card that says what it is."""

from prunescope.export.model import Exported, export_model
from prunescope.export.weights import described, read_weights

__all__ = ["Exported", "described", "export_model", "read_weights"]
