"""Mutual information and entropy in bits: one verb over many estimators, and the information plane built from them."""

import prunescope.information.auto
import prunescope.information.binning
import prunescope.information.copula
import prunescope.information.density
import prunescope.information.discrete
import prunescope.information.gaussian
import prunescope.information.kernel
import prunescope.information.knn
import prunescope.information.neural
import prunescope.information.noisy
import prunescope.information.quantised
import prunescope.information.renyi
import prunescope.information.sliced  # noqa: F401  (each family registers its estimators)
from prunescope.information.estimate import conditional_mutual_information, entropy, mutual_information
from prunescope.information.plane import PlanePoint, plane_convergence, plane_points
from prunescope.information.raw import Raw
from prunescope.information.reference import Reference, reference

__all__ = [
    "PlanePoint",
    "Raw",
    "Reference",
    "conditional_mutual_information",
    "entropy",
    "mutual_information",
    "plane_convergence",
    "plane_points",
    "reference",
]
