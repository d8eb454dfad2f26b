"""The inputs of weights inside attention and recurrent modules, which no hook of their own shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import PackedSequence

from prunescope.types import PruningError


def attention_inputs(module: nn.Module, local: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """Rows (groups, n, d) that enter a weight of `nn.MultiheadAttention`: the packed or single projections, or the output's.

    The packed weight has one group where query, key and value are one tensor, else three. What enters the output projection is what the
    attention gives when that projection is the identity.
    """
    assert isinstance(module, nn.MultiheadAttention)
    named = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
    q, k, v = (named[n] for n in ("query", "key", "value"))
    if local == "in_proj_weight":
        one = q is k and k is v
        yield torch.stack([x.reshape(-1, x.shape[-1]) for x in ((q,) if one else _same_length(q, k, v))])
    elif local in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
        x = {"q": q, "k": k, "v": v}[local[0]]
        yield x.reshape(1, -1, x.shape[-1])
    else:
        width = module.embed_dim
        plain = {"out_proj.weight": torch.eye(width, dtype=q.dtype, device=q.device)}
        if module.out_proj.bias is not None:
            plain["out_proj.bias"] = q.new_zeros(width)
        heads = functional_call(module, plain, args, kwargs)[0]
        yield heads.reshape(1, -1, width)


def _same_length(q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
    """Rows of zeros, which add nothing to any sum, make the three of one length."""
    flat = [x.reshape(-1, x.shape[-1]) for x in (q, k, v)]
    longest = max(map(len, flat))
    return [nn.functional.pad(x, (0, 0, 0, longest - len(x))) for x in flat]


def recurrent_inputs(module: nn.Module, local: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """Rows (1, n, d) that enter weight_ih (inputs of its layer) or weight_hh (previous states) of recurrent layers and cells."""
    x = args[0] if args else kwargs["input"]
    state = args[1] if len(args) > 1 else kwargs.get("hx")
    if isinstance(module, nn.RNNCellBase):
        hidden = state[0] if isinstance(state, tuple) else state
        before = x.new_zeros(*x.shape[:-1], module.hidden_size) if hidden is None else hidden
        entering = x if local.startswith("weight_ih") else before
        yield entering.reshape(1, -1, entering.shape[-1])
        return
    assert isinstance(module, nn.RNNBase)
    if isinstance(x, PackedSequence):
        raise PruningError(f"{local}: inputs of packed sequences are not followed step by step: pass padded tensors as calibration data")
    x = x[:, None] if x.ndim == 2 else x.transpose(0, 1) if module.batch_first else x
    for name, entering in _run(module, x, state):
        if name == local:
            yield entering.reshape(1, -1, entering.shape[-1])
            return


def _run(module: nn.RNNBase, x: Tensor, state: Any) -> Iterator[tuple[str, Tensor]]:
    """(parameter, what enters it) layer by layer, from one-layer copies run on the outputs of the layer below; x is (time, n, d)."""
    sides = ("", "_reverse") if module.bidirectional else ("",)
    states = state if isinstance(state, tuple) or state is None else (state,)
    for layer in range(module.num_layers):
        outputs = []
        for number, side in enumerate(sides):
            suffix = f"_l{layer}{side}"
            one = _single(module, suffix, x.shape[-1])
            seen = x.flip(0) if side else x
            place = layer * len(sides) + number
            start = None if states is None else tuple(_batched(s)[place : place + 1] for s in states)
            after = one(seen, start if start is None or isinstance(module, nn.LSTM) else start[0])[0]
            first = after.new_zeros(1, *after.shape[1:]) if start is None else start[0]
            yield f"weight_ih{suffix}", seen
            yield f"weight_hh{suffix}", torch.cat([first, after[:-1]])
            outputs.append(after.flip(0) if side else after)
        x = torch.cat(outputs, -1)


def _batched(state: Tensor) -> Tensor:
    return state if state.ndim == 3 else state[:, None]


def _single(module: nn.RNNBase, suffix: str, inputs: int) -> nn.RNNBase:
    """One direction of one layer as a module of its own, with the same weights."""
    more: dict[str, Any] = {"nonlinearity": module.nonlinearity} if isinstance(module, nn.RNN) else {}
    if isinstance(module, nn.LSTM):
        more["proj_size"] = module.proj_size
    kind: Any = type(module)
    one: nn.RNNBase = kind(inputs, module.hidden_size, bias=module.bias, **more)
    for name, _ in list(one.named_parameters()):
        setattr(one, name, nn.Parameter(getattr(module, name.removesuffix("_l0") + suffix).detach(), requires_grad=False))
    return one.eval()
