"""Mutual information and entropy in bits: one verb over many estimators, and the information plane built from them."""

from prunescope.information import binning, discrete
from prunescope.information.estimate import conditional_mutual_information, entropy, mutual_information
from prunescope.information.plane import PlanePoint, plane_convergence, plane_points
from prunescope.information.raw import Raw
from prunescope.information.reference import Reference, reference

__all__ = [
    "PlanePoint",
    "Raw",
    "Reference",
    "binning",
    "conditional_mutual_information",
    "discrete",
    "entropy",
    "mutual_information",
    "plane_convergence",
    "plane_points",
    "reference",
]
