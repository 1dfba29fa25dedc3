"""sGDML kernel models: training, prediction, uncertainty, symmetries, model files."""

from jaxff.gdml.descriptor import inverse_distances, light_hydrogens
from jaxff.gdml.files import load, save
from jaxff.gdml.local import LocalKernelTerm, nearest_frames, train_correction
from jaxff.gdml.model import KernelTerm
from jaxff.gdml.operator import KernelOperator
from jaxff.gdml.solvers import NotConverged
from jaxff.gdml.symmetry import check_symmetries, describe_symmetries, find_symmetries
from jaxff.gdml.system import KernelSystem, residual
from jaxff.gdml.train import Trial, train
from jaxff.gdml.uncertainty import Uncertainty, uncertainty

__all__ = [
    "KernelOperator",
    "KernelSystem",
    "KernelTerm",
    "LocalKernelTerm",
    "NotConverged",
    "Trial",
    "Uncertainty",
    "check_symmetries",
    "describe_symmetries",
    "find_symmetries",
    "inverse_distances",
    "light_hydrogens",
    "load",
    "nearest_frames",
    "residual",
    "save",
    "train",
    "train_correction",
    "uncertainty",
]
