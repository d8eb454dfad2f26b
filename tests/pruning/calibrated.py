"""Small networks with calibration data, and the loss of each as one function of its weights, for explicit derivatives in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from prunescope.pruning import targets
from prunescope.pruning.signals import Calibration, batches_of

Net = tuple[nn.Module, Tensor, Tensor]


def tiny_mlp(seed: int = 0, dtype: torch.dtype = torch.float64) -> Net:
    """4-3-2 tanh network in float64, 7 samples."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).to(dtype)
    return net, torch.randn(7, 4, dtype=dtype), torch.randint(0, 2, (7,))


def tiny_cnn(seed: int = 0) -> Net:
    """Convolution, BatchNorm with statistics of its own, grouped convolution, linear; 5 images of 6 x 6."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 4, 2, groups=2), nn.Tanh(),
        nn.Flatten(), nn.Linear(16, 3),
    ).double()  # fmt: skip
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.5, 2)
    return net, torch.randn(5, 1, 6, 6, dtype=torch.float64), torch.randint(0, 3, (5,))


NETS: dict[str, Callable[[], Net]] = {"mlp": tiny_mlp, "cnn": tiny_cnn}


def calibration(net: nn.Module, data: object, **more: object) -> Calibration:
    """The calibration of all prunable weights of `net`, output layer included."""
    return Calibration(net, targets.targets(net, output=True), batches_of(data), generator=torch.Generator().manual_seed(0), **more)


def loss_of(net: nn.Module, x: Tensor, y: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor, dict[str, slice]]:
    """(loss as a function of one vector of all prunable weights, that vector, where each weight lies in it), in evaluation mode."""
    found = {t.name: t.parameter.detach() for t in targets.targets(net, output=True)}
    ends, start = {}, 0
    for name, value in found.items():
        ends[name] = slice(start, start + value.numel())
        start += value.numel()
    was = net.training
    net.eval()

    def loss(vector: Tensor) -> Tensor:
        values = {n: vector[s].view_as(found[n]) for n, s in ends.items()}
        return functional.cross_entropy(functional_call(net, values, (x,)), y)

    vector = torch.cat([v.flatten() for v in found.values()]).clone()
    loss(vector)
    net.train(was)
    return loss, vector, ends


def evaluated(net: nn.Module, function: Callable[[], Tensor]) -> Tensor:
    """What `function` gives with `net` in evaluation mode."""
    was = net.training
    net.eval()
    try:
        return function()
    finally:
        net.train(was)


def split(vector: Tensor, places: Mapping[str, slice], net: nn.Module) -> dict[str, Tensor]:
    """The parts of a vector of all weights, by name and in each weight's shape."""
    return {n: vector[s].view_as(net.get_parameter(n)) for n, s in places.items()}
