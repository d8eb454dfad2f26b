"""The elliptical copula as an estimator (nats), with the test of whether it fits. The fit itself is in `elliptical`."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from prunescope.information.elliptical import fit_elliptical
from prunescope.information.misfit import LEAST, misfit
from prunescope.information.raw import Raw
from prunescope.registry import estimators
from prunescope.rng import numpy_generator


def copula_fits(x: Tensor, y: Tensor) -> tuple[str, ...]:
    """The flag "not-elliptical" where the copula fitted to x (n, dx) and y (n, dy) surely is not theirs."""
    first, second = (part.detach().cpu().double().numpy() for part in (x, y))
    if len(first) < LEAST:
        return ()
    fit = fit_elliptical(first, second)
    return ("not-elliptical",) if misfit(first, second, fit, generator=numpy_generator(0, "misfit")).rejects else ()


@estimators(
    "elliptical-copula", source="Student-t entropy: Arellano-Valle et al. 2013, eq. 7; bias of determinants: Misra et al. 2005",
    x="continuous", y="continuous", symmetric=True, batched=True, consistent=False, invariant=("shift", "scale", "permutation"),
    quantities=("mi",), check=copula_fits,
)  # fmt: skip
def elliptical_copula(x: Tensor, y: Tensor, *, generator: Generator | None = None) -> Raw:
    """Mutual information in nats of the normal or Student-t copula that fits x (..., n, dx) and y (..., n, dy) best.

    Normal scores' correlation gives the normal part, less its finite-sample bias; Student's degrees of freedom, where they raise the
    likelihood by more than ln(n) / 2, add what columns of common scale share: (ln|Rx| + ln|Ry| - ln|R|) / 2 + h(dx) + h(dy) - h(dx + dy).
    Fails where the dependence is not elliptical, in either direction: high for points on a ring, low for crossed lines (flag
    "not-elliptical", by the test of `misfit`).
    Standard error: of the mean of the fitted log density ratio. Errors: n <= dx + dy + 1, columns that determine each other.
    Source: Student-t entropy: Arellano-Valle et al. 2013, eq. 7; bias of determinants: Misra et al. 2005.
    See docs/science/estimators/gaussian.md#elliptical-copula.
    """
    batch = x.shape[:-2]
    values, errors, freedoms = [], [], []
    for a, b in zip(x.reshape(-1, *x.shape[-2:]), y.reshape(-1, *y.shape[-2:]), strict=True):
        first, second = (part.detach().cpu().double().numpy() for part in (a, b))
        fit = fit_elliptical(first, second)
        values.append(fit.mi)
        errors.append(fit.standard_error(first, second))
        freedoms.append(fit.dof)
    value, error = (torch.tensor(v, dtype=torch.float64).reshape(batch) for v in (values, errors))
    return Raw(value, error, detail={"dof": freedoms[0] if len(freedoms) == 1 else freedoms})
