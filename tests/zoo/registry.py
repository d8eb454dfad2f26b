"""How a network of the zoo is written down: `member` registers a class or function that makes it, with the shapes of its inputs."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Example = tuple[nn.Module, tuple[Tensor, ...]]
Shape = tuple[int, ...]
IMAGE, LARGER = (2, 3, 12, 12), (2, 3, 16, 20)


@dataclass(frozen=True)
class Input:
    """One positional input: its shape, batch first, and the shape of a second size (the same where the net has only one).

    tokens   0: normal values; else whole numbers below it
    """

    shape: Shape
    tokens: int = 0
    other: Shape | None = None

    def draw(self, generator: torch.Generator, batch: int | None, other: bool, dtype: torch.dtype) -> Tensor:
        """Random values: of the second size if `other`, with `batch` samples instead of the first dimension."""
        shape = self.other if other and self.other is not None else self.shape
        shape = shape if batch is None else (batch, *shape[1:])
        if self.tokens:
            return torch.randint(0, self.tokens, shape, generator=generator)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


@dataclass(frozen=True)
class Member:
    """A network of the zoo; called, it gives (model in evaluation mode, positional example inputs), the same at every call.

    packages   what must be importable besides torch
    """

    name: str
    make: Callable[[], nn.Module]
    expected: tuple[Input, ...]
    packages: tuple[str, ...] = ()

    def __call__(self) -> Example:
        torch.manual_seed(0)
        model = randomised(self.make())
        return model, self.inputs()

    @property
    def resizable(self) -> bool:
        """Whether it takes inputs of a second size."""
        return any(i.other is not None for i in self.expected)

    @property
    def missing(self) -> str:
        """The first package that it needs and that is not there; empty when all are."""
        return next((p for p in self.packages if importlib.util.find_spec(p) is None), "")

    def inputs(
        self, batch: int | None = None, *, other: bool = False, seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, ...]:
        """Example inputs: `batch` samples, of the second size if `other`."""
        generator = torch.Generator().manual_seed(seed)
        return tuple(i.draw(generator, batch, other, dtype) for i in self.expected)


ZOO: dict[str, Member] = {}


def member(
    shape: Shape = IMAGE, tokens: int = 0, *, other: Shape | None = None, more: Sequence[Input] = (), name: str = "",
    packages: tuple[str, ...] = (),
):  # fmt: skip
    """Register what makes a network of one input (and `more`); its name is the class's or function's in lower case, unless given."""

    def register(make):
        key = name or make.__name__.lower().strip("_")
        assert key not in ZOO, f"two networks are called {key}"
        ZOO[key] = Member(key, make, (Input(shape, tokens, other), *more), packages)
        return make

    return register


def image(make):
    """Register a network of images that takes a second size too."""
    return member(other=LARGER)(make)


@torch.no_grad()
def randomised(model: nn.Module) -> nn.Module:
    """Biases, affine terms and running statistics away from their trivial values, so that no mistake hides behind a zero.

    Draws from torch's global generator. A weight that its maker left constant (zero-initialised tokens, scales) is drawn too.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.uniform_(0.5, 1.5) if "weight" in name else parameter.normal_(0, 0.5)
        elif parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
            parameter.normal_(0, 0.5)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.5)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return model.eval()


@torch.no_grad()
def results(model: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """All tensors that the network returns, in order; of a Hugging Face output its first field."""
    found = model(*inputs)
    found = found[0] if hasattr(found, "to_tuple") else found
    return [t for t in torch.utils._pytree.tree_leaves(found) if isinstance(t, Tensor)]


@torch.no_grad()
def difference(model: nn.Module, expected: nn.Module, inputs: Sequence[Tensor]) -> float:
    """The largest difference of any output, relative to the largest value of that output; infinite where shapes differ."""
    found, wanted = results(model, inputs), results(expected, inputs)
    if [t.shape for t in found] != [t.shape for t in wanted]:
        return float("inf")
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-12)) for a, b in zip(found, wanted, strict=True))
