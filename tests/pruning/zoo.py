"""Small networks of every family that pruning has to follow, with random biases, affine terms and running statistics.

`ZOO` maps a name to a function without arguments that returns (model, positional example inputs). Nothing is trained.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Example = tuple[nn.Module, tuple[Tensor, ...]]
ZOO: dict[str, Callable[[], Example]] = {}
IMAGE = (2, 3, 12, 12)


def member(shape: tuple[int, ...] = IMAGE, tokens: int = 0):
    """Register a class or function that makes a network; `tokens` asks for integers below it as inputs."""

    def register(make):
        def build() -> Example:
            torch.manual_seed(0)
            model = randomised(make())
            return model, (torch.randint(0, tokens, shape) if tokens else torch.randn(shape),)

        ZOO[make.__name__.lower().strip("_")] = build
        return make

    return register


@torch.no_grad()
def randomised(model: nn.Module) -> nn.Module:
    """Biases, affine terms and running statistics away from their trivial values, so that no mistake hides behind a zero."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.uniform_(0.5, 1.5) if "weight" in name else parameter.normal_(0, 0.5)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.5)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return model.eval()


def conv(a: int, b: int, k: int = 3, stride: int = 1, groups: int = 1, act: nn.Module | None = None) -> nn.Sequential:
    """Convolution, batch norm, activation."""
    layers = [nn.Conv2d(a, b, k, stride, k // 2, groups=groups, bias=False), nn.BatchNorm2d(b)]
    return nn.Sequential(*layers, *([act] if act is not None else []))


def head(channels: int, classes: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


@member((4, 10))
def mlp():
    return nn.Sequential(nn.Linear(10, 12), nn.BatchNorm1d(12), nn.Sigmoid(), nn.Linear(12, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3))


@member((2, 1, 28, 28))
def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 8, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(200, 16), nn.Tanh(), nn.Linear(16, 10),
    )  # fmt: skip


@member()
def vgg():
    layers = [m for a, b in ((3, 8), (8, 12), (12, 16)) for m in (*conv(a, b, act=nn.ReLU(inplace=True)), nn.MaxPool2d(2))]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Dropout(), nn.Linear(12, 5))


class Basic(nn.Module):
    def __init__(self, a: int, b: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(*conv(a, b, 3, stride, act=nn.ReLU(inplace=True)), *conv(b, b))
        self.short = conv(a, b, 1, stride) if a != b or stride > 1 else nn.Identity()

    def forward(self, x):
        out = self.body(x)
        out += self.short(x)
        return F.relu(out, inplace=True)


@member()
def resnet():
    return nn.Sequential(conv(3, 8, act=nn.ReLU()), Basic(8, 8), Basic(8, 8), Basic(8, 12, 2), Basic(12, 12), head(12))


class Bottleneck(nn.Module):
    def __init__(self, a: int, mid: int, groups: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(a, mid, 1, act=nn.ReLU()), conv(mid, mid, 3, groups=groups, act=nn.ReLU()), conv(mid, a, 1))

    def forward(self, x):
        return F.relu(x + self.body(x))


@member()
def bottleneck():
    return nn.Sequential(conv(3, 12, act=nn.ReLU()), Bottleneck(12, 6), Bottleneck(12, 6), head(12))


@member()
def resnext():
    return nn.Sequential(conv(3, 16, act=nn.ReLU()), Bottleneck(16, 12, groups=3), Bottleneck(16, 12, groups=4), head(16))


class PreAct(nn.Module):
    def __init__(self, a: int) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(a), nn.BatchNorm2d(a + 2)
        self.conv1, self.conv2 = nn.Conv2d(a, a + 2, 3, padding=1), nn.Conv2d(a + 2, a, 3, padding=1)

    def forward(self, x):
        y = self.conv1(F.relu(self.bn1(x)))
        return x + self.conv2(F.relu(self.bn2(y)))


@member()
def preactivation():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), PreAct(8), PreAct(8), nn.BatchNorm2d(8), nn.ReLU(), head(8))


class PaddedShortcut(nn.Module):
    """A shortcut without weights: strided and filled up with zero channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = conv(3, 6, act=nn.ReLU()), conv(6, 10, 3, 2)
        self.out = head(10)

    def forward(self, x):
        x = self.stem(x)
        return self.out(F.relu(self.body(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))))


member()(PaddedShortcut)


class Dense(nn.Module):
    def __init__(self, a: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.BatchNorm2d(a), nn.ReLU(), nn.Conv2d(a, growth, 3, padding=1, bias=False))

    def forward(self, x):
        return torch.cat([x, self.body(x)], 1)


@member()
def densenet():
    transition = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1), nn.AvgPool2d(2))
    stem = (nn.Conv2d(3, 8, 3, padding=1), Dense(8, 4), Dense(12, 4), transition)
    return nn.Sequential(*stem, Dense(8, 4), nn.BatchNorm2d(12), nn.ReLU(), head(12))


@member()
def mobilenet():
    blocks = [m for a, b in ((8, 12), (12, 16)) for m in (conv(a, a, groups=a, act=nn.ReLU6()), conv(a, b, 1, act=nn.ReLU6()))]
    return nn.Sequential(conv(3, 8, act=nn.ReLU6()), *blocks, head(16))


class Excite(nn.Module):
    def __init__(self, a: int, gate: nn.Module) -> None:
        super().__init__()
        self.fc1, self.fc2, self.gate = nn.Conv2d(a, 4, 1), nn.Conv2d(4, a, 1), gate

    def forward(self, x):
        return x * self.gate(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))))


class Inverted(nn.Module):
    def __init__(self, a: int, wide: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(a, wide, 1, act=nn.Hardswish()), conv(wide, wide, groups=wide, act=nn.Hardswish()),
            Excite(wide, nn.Hardsigmoid()), conv(wide, a, 1),
        )  # fmt: skip

    def forward(self, x):
        return x + self.body(x)


@member()
def invertedresidual():
    return nn.Sequential(conv(3, 8, act=nn.Hardswish()), Inverted(8, 16), Inverted(8, 16), head(8))


@member()
def squeezeexcite():
    return nn.Sequential(conv(3, 8, act=nn.SiLU()), Excite(8, nn.Sigmoid()), nn.Conv2d(8, 6, 3), head(6))


class Fire(nn.Module):
    def __init__(self, a: int, mid: int, b: int) -> None:
        super().__init__()
        self.squeeze, self.one, self.three = nn.Conv2d(a, mid, 1), nn.Conv2d(mid, b, 1), nn.Conv2d(mid, b, 3, padding=1)

    def forward(self, x):
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.one(x)), F.relu(self.three(x))], 1)


@member()
def squeezenet():
    body = (nn.Conv2d(3, 8, 3), nn.ReLU(), Fire(8, 4, 6), nn.MaxPool2d(2), Fire(12, 4, 8))
    return nn.Sequential(*body, nn.Conv2d(16, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class UNet(nn.Module):
    def __init__(self, transposed: bool = True) -> None:
        super().__init__()
        self.down1, self.down2, self.mid = conv(3, 6, act=nn.ReLU()), conv(6, 8, act=nn.ReLU()), conv(8, 10, act=nn.LeakyReLU())
        self.up2, self.up1 = nn.ConvTranspose2d(10, 8, 2, 2), nn.ConvTranspose2d(8, 6, 2, 2)
        if not transposed:
            self.up2 = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(10, 8, 1))
            self.up1 = nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(8, 6, 1))
        self.fuse2, self.fuse1, self.out = conv(16, 8, act=nn.ReLU()), conv(12, 6, act=nn.ReLU()), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        c = self.mid(F.max_pool2d(b, 2))
        b = self.fuse2(torch.cat([b, self.up2(c)], 1))
        return self.out(self.fuse1(torch.cat([a, self.up1(b)], 1)))


member()(UNet)


@member()
def unetupsampled():
    return UNet(transposed=False)


class Shuffle(nn.Module):
    def __init__(self, a: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.first, self.depth, self.last = conv(a, a, 1, groups=groups, act=nn.ReLU()), conv(a, a, groups=a), conv(a, a, 1, groups=groups)

    def forward(self, x):
        y = self.first(x)
        b, c, h, w = y.shape
        y = y.view(b, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(b, c, h, w)
        return F.relu(x + self.last(self.depth(y)))


@member()
def shufflenet():
    return nn.Sequential(conv(3, 16, act=nn.ReLU()), Shuffle(16, 2), Shuffle(16, 2), head(16))


@member()
def pixelshuffle():
    body = (nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 24, 3, padding=1))
    return nn.Sequential(*body, nn.PixelShuffle(2), nn.PReLU(6), nn.Conv2d(6, 3, 1))


@member()
def groupnorm():
    body = (nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 6, 3))
    return nn.Sequential(*body, nn.InstanceNorm2d(6, affine=True), nn.ReLU(), head(6))


@member()
def groupedtransposed():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 12, 3, groups=2), nn.ReLU(),
        nn.ConvTranspose2d(12, 12, 3, groups=12), nn.ReLU(), nn.Conv2d(12, 4, 1), head(4),
    )  # fmt: skip


class ConvNext(nn.Module):
    def __init__(self, a: int) -> None:
        super().__init__()
        self.depth, self.norm, self.gamma = nn.Conv2d(a, a, 3, padding=1, groups=a), nn.LayerNorm(a), nn.Parameter(torch.rand(a))
        self.wide, self.narrow = nn.Linear(a, 4 * a), nn.Linear(4 * a, a)

    def forward(self, x):
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        return x + (self.gamma * self.narrow(F.gelu(self.wide(y)))).permute(0, 3, 1, 2)


@member()
def convnext():
    return nn.Sequential(nn.Conv2d(3, 8, 2, 2), ConvNext(8), ConvNext(8), head(8))


@member((2, 4, 30))
def conv1dnet():
    return nn.Sequential(
        nn.Conv1d(4, 8, 5), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(8, 6, 3, dilation=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(54, 4),
    )  # fmt: skip


@member((2, 2, 6, 8, 8))
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


@member((2, 5, 6))
def lstm():
    return Recurrent(nn.LSTM, num_layers=2)


@member((2, 5, 6))
def gru():
    return Recurrent(nn.GRU)


@member((2, 5, 6))
def rnn():
    return Recurrent(nn.RNN, nonlinearity="relu")


@member((2, 5, 6))
def bilstm():
    return Recurrent(nn.LSTM, num_layers=2, bidirectional=True)


@member((2, 5, 6))
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


class Classifier(nn.Module):
    """Embedded inputs through a body, pooled over positions."""

    def __init__(self, body: nn.Module, width: int = 16) -> None:
        super().__init__()
        self.embed, self.body, self.out = nn.Linear(6, width), body, nn.Linear(width, 3)

    def forward(self, x):
        return self.out(self.body(self.embed(x)).mean(1))


@member((2, 5, 6))
def encoder():
    return Classifier(nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 24, batch_first=True), 2))


@member((2, 5, 6))
def prenormencoder():
    layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True, norm_first=True, activation="gelu")
    return Classifier(nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(16), enable_nested_tensor=False))


class EncoderDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(16, 4, 24, batch_first=True), 2)
        self.encoder = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)
        self.out = nn.Linear(16, 7)

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(5, dtype=x.dtype)
        return self.out(self.decoder(self.embed(x), self.encoder(self.embed(x.flip(1))), tgt_mask=mask))


member((2, 5, 6))(EncoderDecoder)


class Attention(nn.Module):
    """MultiheadAttention with keys and values of other widths than the queries."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv = nn.Linear(6, 16), nn.Linear(6, 10)
        self.attention = nn.MultiheadAttention(16, 4, kdim=10, vdim=10, batch_first=True)
        self.out = nn.Linear(16, 3)

    def forward(self, x):
        memory = torch.tanh(self.kv(x))
        return self.out(self.attention(self.q(x), memory, memory, need_weights=False)[0])


member((2, 5, 6))(Attention)


class Fused(nn.Module):
    """Self-attention with queries, keys and values in one layer."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5
        if self.causal:
            scores = scores.masked_fill(torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1), float("-inf"))
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, c))


class Block(nn.Module):
    def __init__(self, width: int, attention: nn.Module, norm: type[nn.Module] = nn.LayerNorm, mlp: nn.Module | None = None) -> None:
        super().__init__()
        self.norm1, self.norm2, self.attention = norm(width), norm(width), attention
        self.mlp = mlp if mlp is not None else nn.Sequential(nn.Linear(width, 20), nn.GELU(), nn.Linear(20, width))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Vit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch, self.cls = nn.Conv2d(3, 16, 4, 4), nn.Parameter(torch.randn(1, 1, 16))
        self.position = nn.Parameter(torch.randn(1, 10, 16))
        self.blocks = nn.Sequential(*[Block(16, Fused(16, 4, False)) for _ in range(2)])
        self.norm, self.out = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.position
        return self.out(self.norm(self.blocks(x))[:, 0])


member()(Vit)


class Gpt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(11, 16), nn.Embedding(8, 16)
        self.blocks = nn.Sequential(*[Block(16, Fused(16, 2, True)) for _ in range(2)])
        self.norm, self.out = nn.LayerNorm(16), nn.Linear(16, 11, bias=False)
        self.out.weight = self.words.weight

    def forward(self, tokens):
        x = self.words(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        return self.out(self.norm(self.blocks(x)))


member((2, 6), tokens=11)(Gpt)


class Grouped(nn.Module):
    """Attention in which several query heads share keys and values, with rotated positions."""

    def __init__(self, width: int = 16, heads: int = 4, shared: int = 2) -> None:
        super().__init__()
        self.heads, self.shared, self.size = heads, shared, width // heads
        self.q, self.k, self.v = (nn.Linear(width, n * self.size, bias=False) for n in (heads, shared, shared))
        self.o = nn.Linear(width, width, bias=False)
        self.register_buffer("speeds", 1.0 / 100 ** torch.linspace(0, 1, self.size // 2))

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = (f(x).view(b, n, -1, self.size).transpose(1, 2) for f in (self.q, self.k, self.v))
        angles = torch.outer(torch.arange(n, dtype=x.dtype), self.speeds)
        angles = torch.cat([angles, angles], -1)
        q, k = (t * angles.cos() + torch.cat([-t[..., self.size // 2 :], t[..., : self.size // 2]], -1) * angles.sin() for t in (q, k))
        k, v = (t[:, :, None].expand(b, self.shared, self.heads // self.shared, n, self.size).reshape(b, self.heads, n, -1) for t in (k, v))
        return self.o(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, n, -1))


class Gated(nn.Module):
    def __init__(self, width: int = 16, wide: int = 24) -> None:
        super().__init__()
        self.gate, self.up, self.down = (nn.Linear(a, b, bias=False) for a, b in ((width, wide), (width, wide), (wide, width)))

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Llama(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 16)
        self.blocks = nn.Sequential(*[Block(16, Grouped(), nn.RMSNorm, Gated()) for _ in range(2)])
        self.norm, self.out = nn.RMSNorm(16), nn.Linear(16, 11, bias=False)

    def forward(self, tokens):
        return self.out(self.norm(self.blocks(self.words(tokens))))


member((2, 6), tokens=11)(Llama)


class Mixer(nn.Module):
    """Layers over positions and layers over channels in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.tokens = nn.Sequential(nn.Linear(9, 12), nn.GELU(), nn.Linear(12, 9))
        self.channels = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 14), nn.GELU(), nn.Linear(14, 8))
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        x = self.patch(x).flatten(2)
        x = (x + self.tokens(x)).transpose(1, 2)
        return self.out((x + self.channels(x)).mean(1))


member()(Mixer)


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
