"""torch's sparse formats for linear layers: CSR, and 2:4 on GPUs that have it."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.measures.backends.preparation import BackendError, Job, Run, on_cpu
from prunescope.measures.timing import compared
from prunescope.registry import backends
from prunescope.types import ConfigError, PrunescopeError

LAYER_SECONDS = 0.03


class CsrLinear(nn.Module):
    """A linear layer whose weight (outputs x inputs) is stored as CSR with 32-bit indices; the bias stays dense."""

    crow: Tensor
    column: Tensor
    values: Tensor
    bias: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            csr = layer.weight.detach().to_sparse_csr()
        # int32 indices take the vendor library's path: half the time of int64 for single rows
        for name, value in (("crow", csr.crow_indices().int()), ("column", csr.col_indices().int()), ("values", csr.values())):
            self.register_buffer(name, value)
        self.register_buffer("bias", layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias.detach())
        self.shape = (layer.out_features, layer.in_features)
        self._weight: Tensor | None = None

    def weight(self) -> Tensor:
        """The sparse tensor, made once."""
        if self._weight is None:
            parts = (self.crow, self.column, self.values)
            self._weight = torch.sparse_csr_tensor(*parts, size=self.shape, check_invariants=False)
        return self._weight

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        rows = x.reshape(-1, self.shape[1])
        if len(rows) == 1:  # one vector costs half of a product with a matrix of one column
            return torch.addmv(self.bias, self.weight(), rows[0]).reshape(*x.shape[:-1], self.shape[0])
        out = torch.addmm(self.bias[:, None], self.weight(), rows.t()).t()
        return out.reshape(*x.shape[:-1], self.shape[0])


@backends(
    "csr", source="torch.sparse_csr_tensor; MKL's sparse x dense product", sparse=True, absent=lambda device: on_cpu(device, "CSR")
)
def csr(job: Job, *, threshold: float | None = None) -> tuple[Run, dict[str, Any]]:
    """torch CSR for the linear layers in which it is faster than dense, measured layer by layer on the inputs that each is given.

    threshold   convert the layers of at least this sparsity instead, unmeasured

    Other layers stay dense. The notes name what was converted, and the sparsity of each layer. BackendError where nothing is.
    """
    model = copy.deepcopy(job.model)
    inputs = linear_inputs(model, job.example)
    if not inputs:
        raise BackendError("csr: this model calls no torch.nn.Linear, so there is nothing to convert")
    _call_every_layer(model)
    chosen, sparsity = [], {}
    for name, x in inputs.items():
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear), "only those are looked at"
        sparsity[name] = 1 - int(layer.weight.count_nonzero()) / layer.weight.numel()
        made = CsrLinear(layer)
        faster = _faster(made, layer, x, job.threads) if threshold is None else sparsity[name] >= threshold
        if faster:
            chosen.append(name)
            model = _replaced(model, name, made)
    if not chosen:
        low, high = (f"{100 * s:.0f}" for s in (min(sparsity.values()), max(sparsity.values())))
        why = "is faster so than dense" if threshold is None else f"has a sparsity of {threshold:g}"
        raise BackendError(f"csr: none of {len(inputs)} linear layers ({low} to {high} % zeros) {why}, so nothing is converted")
    return model, {"converted": chosen, "sparsity": {n: round(s, 4) for n, s in sparsity.items()}}


def _faster(made: nn.Module, layer: nn.Module, x: Tensor, threads: int) -> bool:
    """Whether `made` runs faster than `layer`, by the whole interval of the ratio."""
    times = compared({"made": lambda: made(x), "dense": lambda: layer(x)}, seconds=LAYER_SECONDS, threads=threads, clock="processor")
    return times["made"].over(times["dense"])[2] < 1


def linear_inputs(model: nn.Module, example: Tensor) -> dict[str, Tensor]:
    """What each linear layer that is called is given for `example`, by name; a layer that another module only reads is not among them."""
    found: dict[str, Tensor] = {}

    def keep(name: str, x: tuple[Tensor, ...]) -> None:
        found.setdefault(name, x[0].detach())

    names = {n: m for n, m in model.named_modules() if type(m) is nn.Linear}
    handles = [m.register_forward_pre_hook(lambda _module, x, name=n: keep(name, x)) for n, m in names.items()]
    try:
        with _every_layer_called(model), torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return found


@contextlib.contextmanager
def _every_layer_called(model: nn.Module) -> Iterator[None]:
    """torch.nn's encoder layers may read their linear layers' weights and skip the layers themselves: not inside."""
    encoders = [(m, m.activation_relu_or_gelu) for m in model.modules() if isinstance(m, nn.TransformerEncoderLayer)]
    for module, _ in encoders:
        module.activation_relu_or_gelu = 0
    try:
        yield
    finally:
        for module, before in encoders:
            module.activation_relu_or_gelu = before


def _call_every_layer(model: nn.Module) -> None:
    """The same for good."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0


def _replaced(model: nn.Module, name: str, made: nn.Module) -> nn.Module:
    """`model` with the module `name` exchanged, in place unless it is the model itself."""
    if not name:
        return made
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, made)
    return model


def _no_two_of_four(device: torch.device) -> PrunescopeError | None:
    what = "2:4 kernels need an NVIDIA GPU of compute capability 8.0 or more"
    if device.type != "cuda":
        return ConfigError(f"{what}, and the model is on {device}: move it to such a GPU")
    major, minor = torch.cuda.get_device_capability(device)
    return None if major >= 8 else ConfigError(f"{what}, and this one has {major}.{minor}")


@backends(
    "2:4", source="torch.sparse.to_sparse_semi_structured (cuSPARSELt)", sparse=True, pattern="2:4", absent=_no_two_of_four, tolerance=1e-2
)
def two_of_four(job: Job) -> tuple[Run, dict[str, Any]]:
    """Semi-structured 2:4 kernels for the linear layers whose weights have that pattern; half precision only."""
    model = copy.deepcopy(job.model)
    _call_every_layer(model)
    fitting = {n: m for n, m in model.named_modules() if type(m) is nn.Linear and is_two_of_four(m.weight)}
    if not fitting:
        raise BackendError("2:4: no torch.nn.Linear here has two zeros in every four weights of a row: prune it with granularity 2:4")
    if wrong := [n for n, m in fitting.items() if m.weight.dtype not in (torch.float16, torch.bfloat16)]:
        raise BackendError(f"2:4: layer {wrong[0]} is {fitting[wrong[0]].weight.dtype}: call model.half() or .bfloat16() first")
    for layer in fitting.values():
        layer.weight = nn.Parameter(torch.sparse.to_sparse_semi_structured(layer.weight.detach()), requires_grad=False)
    return model, {"converted": list(fitting)}


def is_two_of_four(weight: Tensor) -> bool:
    """Whether every four weights in a row hold at least two zeros.

    >>> is_two_of_four(torch.tensor([[1.0, 0, 0, 2], [0, 0, 0, 3]])), is_two_of_four(torch.ones(2, 4))
    (True, False)
    """
    if weight.ndim != 2 or weight.shape[1] % 4:
        return False
    return bool(((weight.reshape(len(weight), -1, 4) != 0).sum(-1) <= 2).all())
