"""Signals that are read off parameters: the random stream, the initial weights, the scales of normalisations."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from prunescope.pruning.signals.calibration import Calibration
from prunescope.pruning.structure import NORMS
from prunescope.pruning.targets import owner
from prunescope.registry import signals
from prunescope.types import PruningError


@signals("generator", source="a seeded stream of random numbers")
def generator(calibration: Calibration) -> dict[str, Any]:
    """The seeded generator, no unit; one stream for all targets, drawn from in their order."""
    return dict.fromkeys((t.name for t in calibration.targets), calibration.generator)


@signals("out_dim", source="how the layer stores its weight")
def out_dim(calibration: Calibration) -> dict[str, int]:
    """The dimension of each target along which its output units lie, a whole number."""
    return {t.name: t.out_dim for t in calibration.targets}


@signals("initial_weights", source="values that the caller kept from the start of training (prune(initial=...))")
def initial_weights(calibration: Calibration) -> dict[str, Tensor]:
    """Each target's weights at the start of training, in the weight's own unit; PruningError where `initial` lacks one."""
    initial = calibration.extra.get("initial")
    if initial is None:
        raise PruningError(
            "signal 'initial_weights' needs the weights from the start of training and none came: "
            "keep copy.deepcopy(model.state_dict()) before training and pass it as initial="
        )
    found = {}
    for target in calibration.targets:
        value = initial.get(target.name)
        if not isinstance(value, Tensor) or value.shape != target.parameter.shape:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else "nothing"
            raise PruningError(f"initial[{target.name!r}]: expected a tensor of shape {tuple(target.parameter.shape)}, got {got}")
        found[target.name] = value.detach().to(target.parameter)
    return found


@signals("norm_scales", source="Liu et al. 2017, arXiv:1708.06519, eq. 1")
def norm_scales(calibration: Calibration) -> dict[str, Tensor]:
    """The factors gamma (units,), unitless, of the normalisation right after each target's layer; PruningError where there is none."""
    names, modules = dict(calibration.model.named_parameters()), dict(calibration.model.named_modules())
    found = {}
    for target in calibration.targets:
        scales = [c for c in target.companions if c.endswith(".weight") and isinstance(modules[owner(c)], NORMS)]
        if not scales:
            raise PruningError(
                f"signal 'norm_scales': no normalisation with a factor for each unit follows {target.name}: "
                "exclude the layer, or choose another criterion"
            )
        found[target.name] = names[scales[0]].detach()
    return found
