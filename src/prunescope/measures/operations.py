"""Operations: the multiply-adds of a forward pass, and how many of them meet a weight that is not zero, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from prunescope.measures.quality import Measurement, batched
from prunescope.measures.size import seen_products
from prunescope.registry import measures
from prunescope.types import Split


@dataclass(frozen=True)
class Macs:
    """Multiply-adds: `dense`, all that are computed; `nonzero`, those whose weight is not zero."""

    dense: int
    nonzero: int


@measures("macs", needs=("data",), source="torch.utils.flop_counter's formulas / 2, times the share of the weight that is not zero")
def macs(model: nn.Module, split: Split) -> list[Measurement]:
    """Multiply-adds of a forward pass on one sample: "macs", all of them, and "macs_nonzero", those with a weight that is not zero.

    Only matrix products and convolutions count. A dense kernel computes all of them, zeros or not; "macs_nonzero" is what a kernel that
    skips every zero would be left with. Products of two activations (attention) have no weight and count in full in both. The parameters
    hold both numbers of each layer.
    """
    layers = macs_by_layer(model, split.x[:1])
    found = []
    for metric, kind in (("macs", "dense"), ("macs_nonzero", "nonzero")):
        each = {name: int(getattr(m, kind)) for name, m in layers.items()}
        found.append(Measurement(metric, sum(each.values()), "MAC", n=1, parameters={"layers": each}))
    return found


def macs_by_layer(model: nn.Module, x: Tensor) -> dict[str, Macs]:
    """Multiply-adds of one forward pass over `x` by the innermost module at work ("" is the model's own code), as `Macs`.

    A weight is whatever is computed from parameters and buffers alone: views, transposes, masked products, tied weights, and the packed
    weights of attention and recurrent layers are all seen as such.

    >>> layer = nn.Linear(4, 3)
    >>> _ = layer.weight.data.fill_(1.0)[0].zero_()
    >>> macs_by_layer(layer, Tensor(5, 4))
    {'': Macs(dense=60, nonzero=40)}
    """
    counter = _Products(model)
    with _named(model, counter.stack), seen_products(), counter:
        batched(model, x, batch_size=len(x))
    return {name: Macs(dense, kept) for name, (dense, kept) in counter.found.items()}


@contextmanager
def _named(model: nn.Module, stack: list[str]) -> Iterator[None]:
    """Keep the names of the modules at work in `stack`."""
    handles: list[Any] = []

    def leave(*_: Any) -> None:
        stack.pop()

    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda _module, _inputs, name=name: stack.append(name)))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Products(TorchDispatchMode):
    """Counts products as they are computed, and follows what comes from weights alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.found: dict[str, tuple[int, int]] = {}
        # kept alive while counting, so that no other tensor can take their identity
        self._weights: dict[int, Tensor] = {id(t): t for t in (*model.parameters(), *model.buffers())}
        self._shares: dict[Any, tuple[int, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Run `func`; count it if it is a product."""
        kwargs = dict(kwargs or {})
        out = func(*args, **kwargs)
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        own = [t for t in given if id(t) in self._weights]
        if (formula := flop_registry.get(func._overloadpacket)) is not None:
            self._count(formula(*args, **kwargs, out_val=out) // 2, given, own)
        if given:
            for t in tree_leaves(out):
                if isinstance(t, Tensor):
                    if len(own) == len(given):
                        self._weights[id(t)] = t
                    else:
                        self._weights.pop(id(t), None)  # written over with something else
        return out

    def _count(self, dense: int, given: list[Tensor], own: list[Tensor]) -> None:
        """Add a product's multiply-adds; every entry of a weight meets the same number of them."""
        factors = [t for t in own if t.ndim >= 2]
        kept, size = self._kept(factors[0]) if len(factors) == 1 and len(own) < len(given) else (1, 1)
        name = self.stack[-1] if self.stack else ""
        before = self.found.get(name, (0, 0))
        self.found[name] = before[0] + dense, before[1] + (dense * kept // size if size else 0)

    def _kept(self, weight: Tensor) -> tuple[int, int]:
        key = (weight.data_ptr(), weight.shape, weight.stride())
        if key not in self._shares:
            self._shares[key] = int(weight.count_nonzero()), weight.numel()
        return self._shares[key]
