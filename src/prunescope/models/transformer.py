"""Transformers: an encoder that reads all steps at once, and a decoder in which each step sees only those before it."""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Generator, Tensor, nn

from prunescope.models.activations import activation_module
from prunescope.models.initialisation import drawn_later, initialise
from prunescope.models.layers import positive, sequence_shape
from prunescope.registry import models
from prunescope.types import ConfigError

Pool = Literal["mean", "last"]


class SelfAttention(nn.Module):
    """Attention with q_proj, k_proj, v_proj and out_proj of their own; (n, steps, width) -> the same.

    Several query heads may share one head of keys and values (Ainslie et al. 2023). Without biases: softmax does not see a key's.
    """

    def __init__(self, width: int, heads: int, key_value_heads: int, causal: bool) -> None:
        super().__init__()
        self.num_heads, self.num_key_value_heads, self.head_dim, self.causal = heads, key_value_heads, width // heads, causal
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, key_value_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(width, key_value_heads * self.head_dim, bias=False)
        self.out_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Each step's mean of the values, weighted by how its query fits the keys."""
        q, k, v = (
            layer(x).unflatten(-1, (heads, self.head_dim)).transpose(1, 2)
            for layer, heads in (
                (self.q_proj, self.num_heads), (self.k_proj, self.num_key_value_heads), (self.v_proj, self.num_key_value_heads)
            )
        )  # fmt: skip
        shared = self.num_heads // self.num_key_value_heads
        if shared > 1:
            k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Block(nn.Module):
    """norm1, attention, norm2, fc1, act, fc2, each pair added to its input (Xiong et al. 2020: norms first)."""

    def __init__(self, width: int, attention: nn.Module, hidden: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), attention
        self.norm2 = nn.LayerNorm(width)
        self.fc1, self.act, self.fc2 = nn.Linear(width, hidden), activation_module(activation), nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The block's values, (n, steps, width)."""
        y = self.norm1(x)
        packed = isinstance(self.attention, nn.MultiheadAttention)
        mixed = self.attention(y, y, y, need_weights=False)[0] if packed else self.attention(y)
        x = x + self.dropout(mixed)
        return x + self.dropout(self.fc2(self.act(self.fc1(self.norm2(x)))))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """embed, position, block1, block2, ..., norm, output: sequences, or whole numbers that stand for tokens, -> logits (n, classes)."""

    def __init__(self, inputs: nn.Module, steps: int, width: int, blocks: list[Block], classes: int, pool: Pool) -> None:
        super().__init__()
        self.embed, self.position = inputs, nn.Embedding(steps, width)
        for number, block in enumerate(blocks, 1):
            self.add_module(f"block{number}", block)
        self.norm, self.output = nn.LayerNorm(width), nn.Linear(width, classes, bias=not isinstance(inputs, nn.Embedding))
        self.pool, self.depth = pool, len(blocks)
        self.plane_layers = [f"block{number}@{'tokens' if pool == 'mean' else 'last'}" for number in range(1, len(blocks) + 1)]

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the mean over steps, or of the last step."""
        x = self.embed(x.long() if isinstance(self.embed, nn.Embedding) else x) + self.position.weight
        for number in range(1, self.depth + 1):
            x = getattr(self, f"block{number}")(x)
        x = self.norm(x)
        return self.output(x.mean(1) if self.pool == "mean" else x[:, -1])  # type: ignore[no-any-return]


@models("transformer", source="Vaswani et al. 2017, arXiv:1706.03762, section 3; norms first (Xiong et al. 2020)", sample=(8, 8))
def transformer(
    *,
    input_shape: tuple[int, ...],
    classes: int,
    generator: Generator,
    width: int = 32,
    layers: int = 2,
    heads: int = 4,
    hidden: int = 64,
    pool: Pool = "mean",
    tokens: int | None = None,
    activation: str = "gelu",
    dropout: float = 0.0,
    initialisation: str = "glorot-uniform",
) -> nn.Module:
    """Transformer encoder with torch.nn.MultiheadAttention; (n, steps, features) -> (n, classes).

    tokens   samples are (n, steps) whole numbers below this instead, each with an embedding of its own
    Children embed, position, block1 (norm1, attention, norm2, fc1, act, fc2), block2, ..., norm, output.
    """
    _check("transformer", width, layers, heads, hidden, heads)

    def block() -> Block:
        return Block(width, nn.MultiheadAttention(width, heads, batch_first=True), hidden, activation, dropout)

    def make() -> nn.Module:
        steps, inputs = _inputs("transformer", input_shape, width, tokens)
        return Transformer(inputs, steps, width, [block() for _ in range(layers)], classes, pool)

    model = drawn_later(make)
    initialise(model, initialisation, generator)
    return model


@models("causal-transformer", source="Radford et al. 2019 (GPT-2), section 2.3; grouped queries: Ainslie et al. 2023", sample=(8, 8))
def causal_transformer(
    *,
    input_shape: tuple[int, ...],
    classes: int,
    generator: Generator,
    width: int = 32,
    layers: int = 2,
    heads: int = 4,
    key_value_heads: int | None = None,
    hidden: int = 64,
    pool: Pool = "last",
    tokens: int | None = None,
    tied: bool = False,
    activation: str = "gelu",
    dropout: float = 0.0,
    initialisation: str = "glorot-uniform",
) -> nn.Module:
    """Transformer decoder: each step sees those before it; (n, steps, features) -> (n, classes), from the last step.

    key_value_heads   heads of keys and values, each shared by as many query heads (default: one each)
    tokens, tied      samples are whole numbers below `tokens`; with tied = true the output layer is the embedding itself
    Children as for transformer; attention has q_proj, k_proj, v_proj, out_proj.
    """
    shared = key_value_heads or heads
    _check("causal-transformer", width, layers, heads, hidden, shared)
    if tied and tokens != classes:
        raise ConfigError(f"causal-transformer: tied = true needs as many tokens as classes, got tokens = {tokens} and {classes} classes")

    def block() -> Block:
        return Block(width, SelfAttention(width, heads, shared, causal=True), hidden, activation, dropout)

    def make() -> nn.Module:
        steps, inputs = _inputs("causal-transformer", input_shape, width, tokens)
        return Transformer(inputs, steps, width, [block() for _ in range(layers)], classes, pool)

    model = drawn_later(make)
    initialise(model, initialisation, generator)
    if tied:
        assert isinstance(model, Transformer)
        assert isinstance(model.embed, nn.Embedding)
        model.output.weight = model.embed.weight
    return model


def _check(name: str, width: int, layers: int, heads: int, hidden: int, shared: int) -> None:
    positive(f"{name}: width, layers, heads, hidden", [width, layers, heads, hidden, shared])
    if width % heads or heads % shared:
        what = f"width = {width} by heads = {heads}" if width % heads else f"heads = {heads} by key_value_heads = {shared}"
        raise ConfigError(f"{name}: {what} does not divide: choose numbers that do")


def _inputs(name: str, input_shape: tuple[int, ...], width: int, tokens: int | None) -> tuple[int, nn.Module]:
    """The number of steps and the layer that makes `width` values of each."""
    if tokens is None:
        steps, features = sequence_shape(name, input_shape)
        return steps, nn.Linear(features, width)
    positive(f"{name}: tokens", [tokens])
    if len(input_shape) != 1:
        raise ConfigError(f"{name}: samples have shape {input_shape}: with tokens = {tokens} expected (steps,) whole numbers")
    return math.prod(input_shape), nn.Embedding(tokens, width)
