"""Networks with attention, and others that mix positions: torch.nn's own layers, fused projections, shared keys, windows, mixers."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from zoo.registry import member

STEPS, LONGER = (2, 5, 6), (2, 8, 6)


class Classifier(nn.Module):
    """Embedded inputs through a body, pooled over positions."""

    def __init__(self, body: nn.Module, width: int = 16) -> None:
        super().__init__()
        self.embed, self.body, self.out = nn.Linear(6, width), body, nn.Linear(width, 3)

    def forward(self, x):
        return self.out(self.body(self.embed(x)).mean(1))


@member(STEPS, other=LONGER)
def encoder():
    return Classifier(nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 24, batch_first=True), 2))


@member(STEPS, other=LONGER)
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
        mask = nn.Transformer.generate_square_subsequent_mask(5, device=x.device, dtype=x.dtype)
        return self.out(self.decoder(self.embed(x), self.encoder(self.embed(x.flip(1))), tgt_mask=mask))


member(STEPS)(EncoderDecoder)


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


member(STEPS, other=LONGER)(Attention)


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


member((2, 6), 11, other=(2, 8))(Gpt)


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
        angles = torch.outer(torch.arange(n, device=x.device, dtype=x.dtype), self.speeds)
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


member((2, 6), 11, other=(2, 9))(Llama)


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


class Swin(nn.Module):
    """Attention within windows, in every second block within windows that are rolled by half; patches are merged in between."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm0 = nn.Conv2d(3, 8, 2, 2), nn.LayerNorm(8)
        self.first = nn.ModuleList(Windowed(8, 2, 4, shift) for shift in (0, 2))
        self.merged, self.reduce = nn.LayerNorm(32), nn.Linear(32, 16, bias=False)
        self.second = nn.ModuleList(Windowed(16, 4, 4, 0) for _ in range(1))
        self.norm, self.out = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x):
        x = self.norm0(self.patch(x).permute(0, 2, 3, 1))
        for block in self.first:
            x = block(x)
        x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)
        x = self.reduce(self.merged(x))
        for block in self.second:
            x = block(x)
        return self.out(self.norm(x).mean((1, 2)))


class Windowed(nn.Module):
    """A block of Swin: windows of `side` x `side`, with a learned bias for every pair of places in one."""

    def __init__(self, width: int, heads: int, side: int, shift: int) -> None:
        super().__init__()
        self.heads, self.side, self.shift = heads, side, shift
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.pairs = nn.Parameter(torch.randn(heads, side * side, side * side))

    def forward(self, x):
        b, h, w, c = x.shape
        s, y = self.side, self.norm1(x)
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        y = y.view(b, h // s, s, w // s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, s * s, c)
        q, k, v = self.qkv(y).reshape(-1, s * s, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5 + self.pairs
        y = self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, s * s, c))
        y = y.view(b, h // s, w // s, s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        x = x + y
        return x + self.mlp(self.norm2(x))


member((2, 3, 16, 16), other=(2, 3, 32, 16))(Swin)


class EinsumAttention(nn.Module):
    """Attention whose weights are bare parameters (heads, size, width), used in einsum alone."""

    def __init__(self, width: int = 12, heads: int = 3, size: int = 4) -> None:
        super().__init__()
        self.embed, self.out = nn.Linear(6, width), nn.Linear(width, 3)
        self.q, self.k, self.v, self.o = (nn.Parameter(0.4 * torch.randn(heads, size, width)) for _ in range(4))

    def forward(self, x):
        x = self.embed(x)
        q, k, v = (torch.einsum("bnc,hsc->bhns", x, w) for w in (self.q, self.k, self.v))
        scores = torch.einsum("bhns,bhms->bhnm", q, k).softmax(-1)
        x = x + torch.einsum("bhnm,bhms,hsc->bnc", scores, v, self.o)
        return self.out(x.mean(1))


member(STEPS, other=LONGER)(EinsumAttention)


class PooledAttention(nn.Module):
    """torch's MultiheadAttention in a residual stream, read by one learned query."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed, self.query = nn.Linear(6, width), nn.Parameter(torch.randn(1, 1, width))
        self.one, self.two = (nn.MultiheadAttention(width, 4, batch_first=True) for _ in range(2))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, 3)

    def forward(self, x):
        x = self.embed(x)
        x = self.norm(x + self.one(x, x, x, need_weights=False)[0])
        return self.out(self.two(self.query.expand(len(x), -1, -1), x, x)[0][:, 0])


member(STEPS, other=LONGER)(PooledAttention)
