"""LSTM and GRU: classifiers of sequences by their last state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Generator, Tensor, nn

from prunescope.models.initialisation import drawn_later, initialise
from prunescope.models.layers import positive, sequence_shape
from prunescope.registry import models

Pool = Literal["last", "mean"]


class Recurrent(nn.Module):
    """rnn1, rnn2, ..., output: recurrent layers over (n, steps, features), then a linear layer on the last state or the mean output."""

    def __init__(
        self, kind: Callable[..., nn.RNNBase], features: int, hidden: int, layers: int, classes: int, bidirectional: bool, pool: Pool
    ) -> None:
        super().__init__()
        self.layers, self.pool, self.directions = layers, pool, 2 if bidirectional else 1
        for number in range(1, layers + 1):
            inputs = features if number == 1 else hidden * self.directions
            self.add_module(f"rnn{number}", kind(inputs, hidden, batch_first=True, bidirectional=bidirectional))
        self.output = nn.Linear(hidden * self.directions, classes)
        self.plane_layers = [f"rnn{number}@last" for number in range(1, layers + 1)]

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, classes)."""
        state = x
        for number in range(1, self.layers + 1):
            x, last = getattr(self, f"rnn{number}")(x)
            state = last[0] if isinstance(last, tuple) else last  # an LSTM gives its hidden state and its cell
        read = x.mean(1) if self.pool == "mean" else state.transpose(0, 1).flatten(1)
        return self.output(read)  # type: ignore[no-any-return]


@models("lstm", source="Hochreiter & Schmidhuber 1997; forget gate of Gers, Schmidhuber, Cummins 2000", sample=(8, 8))
def lstm(
    *,
    input_shape: tuple[int, ...],
    classes: int,
    generator: Generator,
    hidden: int = 32,
    layers: int = 1,
    bidirectional: bool = False,
    pool: Pool = "last",
    initialisation: str = "glorot-uniform",
) -> nn.Module:
    """LSTM classifier, sequences (n, steps, features) -> (n, classes); children rnn1, rnn2, ..., output.

    pool   what the output layer reads: the "last" state (of both directions) or the "mean" output
    """
    return _recurrent("lstm", nn.LSTM, input_shape, classes, generator, hidden, layers, bidirectional, pool, initialisation)


@models("gru", source="Cho et al. 2014, arXiv:1406.1078", sample=(8, 8))
def gru(
    *,
    input_shape: tuple[int, ...],
    classes: int,
    generator: Generator,
    hidden: int = 32,
    layers: int = 1,
    bidirectional: bool = False,
    pool: Pool = "last",
    initialisation: str = "glorot-uniform",
) -> nn.Module:
    """GRU classifier, sequences (n, steps, features) -> (n, classes); children and options as for lstm."""
    return _recurrent("gru", nn.GRU, input_shape, classes, generator, hidden, layers, bidirectional, pool, initialisation)


def _recurrent(
    name: str, kind: Callable[..., nn.RNNBase], input_shape: tuple[int, ...], classes: int, generator: Generator, hidden: int, layers: int,
    bidirectional: bool, pool: Pool, initialisation: str,
) -> nn.Module:  # fmt: skip
    _, features = sequence_shape(name, input_shape)
    positive(f"{name}: hidden, layers", [hidden, layers])
    model = drawn_later(lambda: Recurrent(kind, features, hidden, layers, classes, bidirectional, pool))
    initialise(model, initialisation, generator)
    return model
