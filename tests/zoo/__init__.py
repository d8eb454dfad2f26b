"""Small networks of every family that pruning and its physical removal have to follow, never trained.

`ZOO` maps a name to a `Member`: called without arguments it returns (model in evaluation mode, positional example inputs), with biases,
affine terms and running statistics random and never zero; `member.inputs(batch, other=True)` draws inputs of another batch size, and of a
second size where the network takes one. The same on every machine with the same torch. Networks with `missing` packages cannot be made.

timm's networks are not among them: timm asks for torchvision when it is imported, and torchvision needs the torch it was built with.
"""

from zoo.attention import Block, Fused, Gated, Grouped
from zoo.convolutions import conv, head
from zoo.huggingface import huggingface
from zoo.library import library
from zoo.modern import Inception
from zoo.others import Parameters
from zoo.registry import ZOO, Example, Input, Member, difference, member, randomised, results
from zoo.sequences import Recurrent

__all__ = [
    "ZOO", "Block", "Example", "Fused", "Gated", "Grouped", "Inception", "Input", "Member", "Parameters", "Recurrent", "conv", "difference",
    "head", "huggingface", "library", "member", "randomised", "results",
]  # fmt: skip
