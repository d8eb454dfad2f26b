"""Networks of sequences and volumes: convolutions over one and three dimensions, recurrent layers, gates."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from zoo.registry import member

STEPS, LONGER = (2, 5, 6), (2, 8, 6)


@member((2, 4, 30))
def conv1dnet():
    return nn.Sequential(
        nn.Conv1d(4, 8, 5), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(8, 6, 3, dilation=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(54, 4),
    )  # fmt: skip


@member((2, 2, 6, 8, 8), other=(2, 2, 8, 10, 8))
def conv3dnet():
    return nn.Sequential(
        nn.Conv3d(2, 6, 3), nn.BatchNorm3d(6), nn.ReLU(), nn.AvgPool3d(2), nn.Conv3d(6, 4, 2), nn.ReLU(), nn.AdaptiveAvgPool3d(1),
        nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options) -> None:
        super().__init__()
        self.rnn = kind(6, 8, batch_first=True, **options)
        width = (options.get("proj_size") or 8) * (2 if options.get("bidirectional") else 1)
        self.out = nn.Linear(width, 3)

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])


@member(STEPS, other=LONGER)
def lstm():
    return Recurrent(nn.LSTM, num_layers=2)


@member(STEPS, other=LONGER)
def gru():
    return Recurrent(nn.GRU)


@member(STEPS, other=LONGER)
def rnn():
    return Recurrent(nn.RNN, nonlinearity="relu")


@member(STEPS, other=LONGER)
def bilstm():
    return Recurrent(nn.LSTM, num_layers=2, bidirectional=True)


@member(STEPS, other=LONGER)
def projectedlstm():
    return Recurrent(nn.LSTM, proj_size=4)


class Cells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.LSTMCell(6, 7), nn.GRUCell(7, 5), nn.Linear(5, 3)

    def forward(self, x):
        state, last = (x.new_zeros(len(x), 7), x.new_zeros(len(x), 7)), x.new_zeros(len(x), 5)
        for step in x.unbind(1):
            state = self.one(step, state)
            last = self.two(state[0], last)
        return self.out(last)


member((2, 4, 6))(Cells)


class Causal(nn.Module):
    """A dilated convolution that sees the past alone, twice, and a shortcut round both."""

    def __init__(self, a: int, b: int, dilation: int) -> None:
        super().__init__()
        self.past = 2 * dilation
        self.one, self.two = nn.Conv1d(a, b, 3, dilation=dilation), nn.Conv1d(b, b, 3, dilation=dilation)
        self.short = nn.Conv1d(a, b, 1) if a != b else nn.Identity()

    def forward(self, x):
        y = F.relu(self.one(F.pad(x, (self.past, 0))))
        return F.relu(self.short(x) + F.relu(self.two(F.pad(y, (self.past, 0)))))


@member((2, 4, 20), other=(2, 4, 27))
def tcn():
    return nn.Sequential(*[Causal(a, b, d) for a, b, d in ((4, 10, 1), (10, 10, 2), (10, 8, 4))], nn.Conv1d(8, 3, 1))


class WaveNet(nn.Module):
    """Dilated convolutions with a tanh and a sigmoid half, a residual stream, and skips that are summed."""

    def __init__(self, width: int = 8, skip: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv1d(3, width, 1)
        self.dilated = nn.ModuleList(nn.Conv1d(width, 2 * 12, 2, dilation=2**i) for i in range(3))
        self.on = nn.ModuleList(nn.Conv1d(12, width, 1) for _ in range(3))
        self.skips = nn.ModuleList(nn.Conv1d(12, skip, 1) for _ in range(3))
        self.out = nn.Sequential(nn.ReLU(), nn.Conv1d(skip, 9, 1), nn.ReLU(), nn.Conv1d(9, 4, 1))

    def forward(self, x):
        x, total = self.stem(x), 0
        for number, (dilated, on, skip) in enumerate(zip(self.dilated, self.on, self.skips, strict=True)):
            a, b = dilated(F.pad(x, (2**number, 0))).chunk(2, 1)
            y = torch.tanh(a) * torch.sigmoid(b)
            x, total = x + on(y), total + skip(y)
        return self.out(total)


member((2, 3, 16), other=(2, 3, 21))(WaveNet)


class LstmAttention(nn.Module):
    """A bidirectional LSTM whose steps are weighted by scores of their own (Bahdanau et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.rnn = nn.Embedding(13, 6), nn.LSTM(6, 8, batch_first=True, bidirectional=True)
        self.hidden, self.score, self.out = nn.Linear(16, 10), nn.Linear(10, 1, bias=False), nn.Linear(16, 3)

    def forward(self, tokens):
        steps, _ = self.rnn(self.words(tokens))
        weights = self.score(torch.tanh(self.hidden(steps))).softmax(1)
        return self.out((weights * steps).sum(1))


member((2, 7), 13, other=(2, 9))(LstmAttention)


class Translator(nn.Module):
    """A GRU that reads, and one that writes from where the first ended."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.write = nn.GRU(6, 8, batch_first=True), nn.GRU(6, 8, batch_first=True)
        self.out = nn.Linear(8, 5)

    def forward(self, x):
        _, last = self.read(x)
        return self.out(self.write(x.flip(1), last)[0])


member(STEPS, other=LONGER)(Translator)
