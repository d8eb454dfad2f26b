"""Matrix-based Renyi entropies (nats): the spectrum of a kernel matrix in place of a density."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from prunescope.information.discrete import label_entropy
from prunescope.information.raw import Raw
from prunescope.information.reference import Reference
from prunescope.registry import estimators
from prunescope.types import EstimateError

Width = Literal["median", "silverman"] | float
MOST = 6000  # samples whose spectrum is computed; order 2 needs none
TILE = 1024


def kernel_width(x: Tensor, rule: Width) -> float:
    """Width of the Gaussian kernel (units of x) for samples (n, d).

    "median": the median distance of at most 1,000 evenly spaced samples. "silverman": n^(-1/(d+4)) times the root of the summed column
    variances (Silverman 1986, eq. 4.14, for vectors). A number is taken as it is. Constant samples give 1.
    """
    if not isinstance(rule, str):
        if not (rule > 0 and math.isfinite(rule)):
            raise EstimateError(f"width={rule!r}: expected 'median', 'silverman' or a positive number")
        return float(rule)
    n, d = x.shape
    if rule == "silverman":
        return float(n ** (-1 / (d + 4)) * x.double().var(0).sum().sqrt()) or 1.0
    if rule != "median":
        raise EstimateError(f"width={rule!r}: expected 'median', 'silverman' or a positive number")
    some = x[:: max(1, n // 1000)].double()
    return float(torch.pdist(some - some.mean(0)).median()) or 1.0


class _Kernel:
    """Kernel values of one variable, tile by tile: Gaussian for numbers (n, d), equality for labels (n,)."""

    def __init__(self, x: Tensor, width: Width) -> None:
        self.labels = None if x.is_floating_point() else x
        if x.is_floating_point():
            z = x.double() - x.double().mean(0)
            self.z = z / (math.sqrt(2) * kernel_width(x, width))
            self.norms = self.z.square().sum(1)

    def rows(self, rows: slice) -> Tensor:
        if self.labels is not None:
            return (self.labels[rows, None] == self.labels[None]).double()
        lengths = self.norms[rows, None] + self.norms[None]
        exponent = torch.addmm(lengths, self.z[rows], self.z.mT, beta=-1, alpha=2).clamp_max_(0.0)
        exponent[:, rows].fill_diagonal_(0.0)
        return exponent.exp_()


def _joint(kernels: Sequence[_Kernel], rows: slice) -> Tensor:
    product = kernels[0].rows(rows)
    for other in kernels[1:]:
        product.mul_(other.rows(rows))
    return product


def _matrix_entropy(kernels: Sequence[_Kernel], n: int, order: float) -> float:
    """Entropy (nats) of order `order` of the Hadamard product of kernels: log(sum lambda^order) / (1 - order), lambda of K / n."""
    if order == 2:  # the sum of squared eigenvalues is the squared Frobenius norm
        squares = sum(float(_joint(kernels, slice(i, i + TILE)).square_().sum()) for i in range(0, n, TILE))
        return -math.log(squares / n**2)
    if n > MOST:
        raise EstimateError(f"spectrum of {n} samples: expected at most {MOST} for order {order:g}; use order=2 or fewer samples")
    spectrum = torch.cat([torch.linalg.eigvalsh(block / n) for block in _blocks(kernels, n)]).clamp_min(0.0)
    spectrum = spectrum[spectrum > 1e-15]
    if order == 1:
        return float(-(spectrum * spectrum.log()).sum())
    return math.log(float((spectrum**order).sum())) / (1 - order)


def _blocks(kernels: Sequence[_Kernel], n: int) -> list[Tensor]:
    """The diagonal blocks that labels cut the joint matrix into (their spectra together are its spectrum), or the whole matrix."""
    whole = _joint(kernels, slice(0, n))
    labels = next((k.labels for k in kernels if k.labels is not None), None)
    if labels is None:
        return [whole]
    members = [(labels == c).nonzero()[:, 0] for c in labels.unique()]
    return [whole[m[:, None], m] for m in members]


def _checked(order: float) -> None:
    if not (order > 0 and math.isfinite(order)):
        raise EstimateError(f"order={order!r}: expected a positive number such as 1.01 or 2")


def _over(shape: tuple[int, ...], value: Callable[..., float], *variables: Tensor) -> Tensor:
    flat = [v.reshape(-1, *v.shape[len(shape) :]) for v in variables]
    return torch.tensor([value(*one) for one in zip(*flat, strict=True)], dtype=torch.float64).reshape(shape)


def _entropy(x: Tensor, *, order: float = 1.01, width: Width = "median") -> Raw:
    """Matrix-based Renyi entropy (nats) of x (..., n, d): 0 for equal samples, log n for samples far apart. Giraldo et al. 2015, eq. 10."""
    _checked(order)
    labelled = not x.is_floating_point()
    n, shape = x.shape[-1 if labelled else -2], x.shape[: -1 if labelled else -2]
    return Raw(_over(shape, lambda a: _matrix_entropy([_Kernel(a, width)], n, order), x), ceiling=math.log(n))


def _conditional(x: Tensor, y: Tensor, z: Tensor, *, order: float = 1.01, width: Width = "median") -> Raw:
    """Conditional mutual information (nats): S(X, Z) + S(Y, Z) - S(X, Y, Z) - S(Z). Yu et al. 2019, eq. 8."""
    _checked(order)
    n = x.shape[-2] if x.is_floating_point() else x.shape[-1]

    def value(a: Tensor, b: Tensor, c: Tensor) -> float:
        ka, kb, kc = (_Kernel(v, width) for v in (a, b, c))
        terms = (([ka, kc], 1), ([kb, kc], 1), ([ka, kb, kc], -1), ([kc], -1))
        return sum(sign * _matrix_entropy(kernels, n, order) for kernels, sign in terms)

    shape = x.shape[: -2 if x.is_floating_point() else -1]
    return Raw(_over(shape, value, x, y, z), ceiling=math.log(n))


def renyi_plane(t: Tensor, ref: Reference, *, order: float = 1.01, width: Width = "median") -> dict[str, Raw]:
    """S(T), I(T; Y) and, where the input's numbers are known, I(X; T) (nats, matrix-based of order `order`) of a layer (B, n, d)."""
    _checked(order)
    if not bool(torch.isfinite(t).all()):
        raise EstimateError("activations: expected finite numbers, got NaN or infinite ones; drop or mend those samples")
    kernels = [_Kernel(one, width) for one in t]
    entropies = [_matrix_entropy([k], ref.n, order) for k in kernels]
    log_n = math.log(ref.n)
    rule = width if isinstance(width, str) else f"{width:g}"
    text = {"resolution": f"matrix-based Renyi entropy of order {order:g}, kernel width {rule}"}

    def raw(values: list[float], ceiling: float) -> Raw:
        return Raw(torch.tensor(values, dtype=torch.float64), None, ceiling, (), text)

    def information(name: str, values: Tensor) -> list[float]:
        key = ("renyi", name, order, width)
        if key not in ref.memo:
            kernel = _Kernel(values.to(t.device), width)
            ref.memo[key] = kernel, _matrix_entropy([kernel], ref.n, order)
        other, own = ref.memo[key]
        return [s + own - _matrix_entropy([k, other], ref.n, order) for s, k in zip(entropies, kernels, strict=True)]

    points = {"entropy": raw(entropies, log_n), "mi_label": raw(information("labels", ref.labels), ref.label_entropy)}
    if ref.input_values is not None:
        points["mi_input"] = raw(information("input", ref.input_values), log_n)
    return points


@estimators(
    "renyi",
    source="Giraldo, Rao & Principe 2015, eq. 10 and 12; multivariate Yu et al. 2019, eq. 7",
    x="any",
    y="any",
    symmetric=True,
    invariant=("shift", "permutation", "rotation"),
    batched=True,
    consistent=False,
    quantities=("mi", "entropy", "cmi"),
    entropy=_entropy,
    conditional=_conditional,
    plane=renyi_plane,
)
def renyi(x: Tensor, y: Tensor, *, order: float = 1.01, width: Width = "median") -> Raw:
    """Mutual information (nats), matrix-based Renyi of order `order`: S(A) + S(B) - S(A o B) of kernel matrices with unit trace.

    x, y (..., n, d) floating (Gaussian kernel, `width` a rule or a number) or labels (..., n) (equality kernel). Order 2 is a
    Frobenius norm, computed in tiles for any n; other orders need the spectrum, n <= 6,000. Not Shannon's information: the value depends on
    the width, is not invariant to scaling one column, and need not be 0 for independent samples. Fails: a narrow kernel gives about log n
    whatever the dependence, a wide one 0; orders near 1 grow with the columns of independent samples.
    Source: Giraldo, Rao & Principe 2015, eq. 10 and 12; multivariate Yu et al. 2019, eq. 7. See docs/science/estimators/renyi.md#renyi.
    Errors: EstimateError for an order or a width that is not positive, and for too many samples.

    >>> far = torch.tensor([[0.0], [0.0], [99.0], [99.0]])
    >>> round(float(renyi(far, torch.tensor([0, 0, 1, 1]), order=2, width=1.0).value) / math.log(2), 9)
    1.0
    """
    _checked(order)
    n = x.shape[-2] if x.is_floating_point() else x.shape[-1]
    shape = x.shape[: -2 if x.is_floating_point() else -1]

    def value(a: Tensor, b: Tensor) -> float:
        ka, kb = _Kernel(a, width), _Kernel(b, width)
        return sum(s * _matrix_entropy(k, n, order) for k, s in (([ka], 1), ([kb], 1), ([ka, kb], -1)))

    labels = [v for v in (x, y) if not v.is_floating_point()]
    ceiling = min([math.log(n), *(label_entropy(v) for v in labels if v.ndim == 1)])
    return Raw(_over(shape, value, x, y), ceiling=ceiling)
