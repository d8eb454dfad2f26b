"""Quantisation: linear layers with int8 weights through torchao, after training or while fine-tuning."""

from prunescope.quantization.aware import simulated
from prunescope.quantization.int8 import QuantizeReport, quantize
from prunescope.quantization.storage import restore, stored, stored_bytes

__all__ = ["QuantizeReport", "quantize", "restore", "simulated", "stored", "stored_bytes"]
