"""Fully connected networks, and all that is neither image nor sequence: shared and tied weights, bare parameters, tables, experts."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from zoo.registry import Input, member

ROWS = (4, 10)


@member(ROWS)
def mlp():
    return nn.Sequential(nn.Linear(10, 12), nn.BatchNorm1d(12), nn.Sigmoid(), nn.Linear(12, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3))


@member(ROWS)
def mlp_batchnorm():
    layers = [m for a, b in ((10, 16), (16, 12)) for m in (nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(12, 3))


@member(ROWS)
def mlp_sigmoid():
    return nn.Sequential(nn.Linear(10, 16), nn.Sigmoid(), nn.Linear(16, 12), nn.Softplus(), nn.Linear(12, 8), nn.Sigmoid(), nn.Linear(8, 3))


@member(ROWS)
def mlp_layernorm():
    return nn.Sequential(nn.Linear(10, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 12), nn.LayerNorm(12), nn.GELU(), nn.Linear(12, 3))


class Parameters(nn.Module):
    """No layers: matrices and vectors of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(10, 14)), nn.Parameter(torch.randn(8, 14))
        self.shift, self.scale = nn.Parameter(torch.randn(14)), nn.Parameter(torch.rand(8) + 0.5)
        self.last = nn.Parameter(torch.randn(8, 3))

    def forward(self, x):
        x = torch.tanh(x @ self.first + self.shift)
        return torch.relu(F.linear(x, self.second) * self.scale) @ self.last


member(ROWS)(Parameters)


@member(ROWS)
def weight_norm():
    one, two = (nn.utils.parametrizations.weight_norm(nn.Linear(a, b)) for a, b in ((10, 12), (12, 8)))
    return nn.Sequential(one, nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), two, nn.ReLU(), nn.Linear(8, 3))


class TiedAutoencoder(nn.Module):
    """The decoder's weights are the encoder's, turned round."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(10, 12), nn.Linear(12, 6)
        self.back, self.out = nn.Parameter(torch.randn(12)), nn.Parameter(torch.randn(10))

    def forward(self, x):
        x = torch.tanh(self.two(torch.relu(self.one(x))))
        return F.linear(torch.relu(F.linear(x, self.two.weight.t(), self.back)), self.one.weight.t(), self.out)


member(ROWS)(TiedAutoencoder)


class SharedTwice(nn.Module):
    """One layer used twice in a row, and a norm of its own after each time."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared, self.out = nn.Linear(10, 12), nn.Linear(12, 12), nn.Linear(12, 3)
        self.one, self.two = nn.BatchNorm1d(12), nn.BatchNorm1d(12)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.relu(self.one(self.shared(x)))
        return self.out(torch.relu(self.two(self.shared(x))))


member(ROWS)(SharedTwice)


class Siamese(nn.Module):
    """One network for two inputs, compared by distance and product."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU())
        self.features, self.out = nn.Linear(6, 10), nn.Linear(20, 2)

    def forward(self, a, b):
        a, b = (torch.sigmoid(self.features(self.body(x).mean((2, 3)))) for x in (a, b))
        return self.out(torch.cat([(a - b).abs(), a * b], 1))


member((2, 3, 12, 12), other=(2, 3, 14, 14), more=(Input((2, 3, 12, 12), 0, (2, 3, 14, 14)),))(Siamese)


class Picked(nn.Module):
    """Channels picked by fixed numbers: a permutation by index_select, some by indexing, pairs by gather."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(5, 6, 1)
        self.out = nn.Linear(6, 3)
        self.register_buffer("order", torch.tensor([3, 1, 7, 5, 0, 2, 6, 4]))
        self.register_buffer("some", torch.tensor([0, 2, 3, 6, 7]))
        self.register_buffer("pairs", torch.tensor([1, 0, 3, 2, 5, 4]))

    def forward(self, x):
        x = torch.relu(self.one(x)).index_select(1, self.order)
        x = torch.relu(self.three(torch.relu(self.two(x))[:, self.some])).mean((2, 3))
        return self.out(x + x.gather(1, self.pairs.expand(len(x), -1)))


member((2, 3, 12, 12), other=(2, 3, 15, 13))(Picked)


class TextBag(nn.Module):
    """Mean of the words' embeddings, then layers."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(20, 12, mode="mean")
        self.hidden, self.out = nn.Linear(12, 10), nn.Linear(10, 4)

    def forward(self, tokens):
        return self.out(torch.relu(self.hidden(self.words(tokens))))


member((3, 6), 20, other=(3, 9))(TextBag)


class Experts(nn.Module):
    """Every expert computes, and a gate weighs their results; the experts' weights are stacked parameters in the second half."""

    def __init__(self, width: int = 12, count: int = 3) -> None:
        super().__init__()
        self.stem, self.gate, self.out = nn.Linear(10, width), nn.Linear(width, count), nn.Linear(width, 3)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(width, 9), nn.GELU(), nn.Linear(9, width)) for _ in range(count))
        self.up, self.down = nn.Parameter(0.3 * torch.randn(count, width, 8)), nn.Parameter(0.3 * torch.randn(count, 8, width))

    def forward(self, x):
        x = torch.relu(self.stem(x))
        weights = self.gate(x).softmax(-1)
        x = x + torch.stack([expert(x) for expert in self.experts], 1).mul(weights[:, :, None]).sum(1)
        hidden = torch.relu(torch.einsum("bc,ecs->ebs", x, self.up))
        return self.out(x + torch.einsum("ebs,esc,be->bc", hidden, self.down, weights))


member(ROWS)(Experts)


class Recommender(nn.Module):
    """DLRM: dense features through layers, tables of embeddings, all pairwise products, layers on top."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.bottom = nn.Sequential(nn.Linear(10, 14), nn.ReLU(), nn.Linear(14, width), nn.ReLU())
        self.tables = nn.ModuleList(nn.Embedding(n, width) for n in (9, 9))
        self.top = nn.Sequential(nn.Linear(width + 3, 12), nn.ReLU(), nn.Linear(12, 1))
        self.register_buffer("left", torch.tensor([1, 2, 2]))
        self.register_buffer("right", torch.tensor([0, 0, 1]))

    def forward(self, dense, sparse):
        x = self.bottom(dense)
        rows = torch.stack([x, *(table(sparse[:, i]) for i, table in enumerate(self.tables))], 1)
        products = torch.bmm(rows, rows.transpose(1, 2))[:, self.left, self.right]
        return torch.sigmoid(self.top(torch.cat([x, products], 1)))


member(ROWS, more=(Input((4, 2), 9),))(Recommender)


class Highway(nn.Module):
    """Gates between a layer and its input, and a softmax over features."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.carry, self.change, self.out = nn.Linear(10, 12), nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        gate = torch.sigmoid(self.carry(x))
        return self.out(gate * torch.relu(self.change(x)) + (1 - gate) * x).softmax(-1)


member(ROWS)(Highway)


class Odd(nn.Module):
    """Weight norm, einsum, a shared layer, a split, a gated linear unit and a constant matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.utils.parametrizations.weight_norm(nn.Linear(6, 12))
        self.shared, self.wide, self.out = nn.Linear(6, 6), nn.Linear(6, 20), nn.Linear(14, 3)
        self.matrix = nn.Parameter(torch.randn(10, 8))
        self.register_buffer("fixed", torch.randn(8, 8))

    def forward(self, x):
        a, b = torch.relu(self.first(x)).chunk(2, -1)
        a, b = torch.tanh(self.shared(a)), torch.tanh(self.shared(b))
        y = F.glu(self.wide(a + b), -1)
        y = torch.einsum("bi,ij->bj", y, self.matrix)
        y = torch.relu(y)
        return self.out(torch.cat([y * y.sum(-1, keepdim=True), a], -1)) + torch.relu(y @ self.fixed)[:, :3]


member((4, 6))(Odd)
