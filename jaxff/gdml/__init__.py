"""sGDML kernel models: training, prediction, uncertainty, symmetries, model files."""

from jaxff.gdml.conjugate import NotConverged
from jaxff.gdml.correction import nearest_frames, train_correction
from jaxff.gdml.descriptor import inverse_distances, light_hydrogens, scaled_distances
from jaxff.gdml.files import load, save
from jaxff.gdml.fragment_system import FragmentSystem
from jaxff.gdml.fragment_term import FragmentKernelTerm
from jaxff.gdml.fragments import FragmentType, fragment_types
from jaxff.gdml.local import LocalKernelTerm
from jaxff.gdml.metric import learn_metric
from jaxff.gdml.model import KernelTerm
from jaxff.gdml.operator import KernelOperator
from jaxff.gdml.settings import Kernel, LocalKernel, Run, Trial
from jaxff.gdml.solvers import Solver
from jaxff.gdml.standard_errors import Uncertainty, uncertainty
from jaxff.gdml.symmetry import check_symmetries, describe_symmetries, find_symmetries
from jaxff.gdml.system import KernelSystem, require_float64, residual
from jaxff.gdml.training import train

__all__ = [
    "FragmentKernelTerm",
    "FragmentSystem",
    "FragmentType",
    "Kernel",
    "KernelOperator",
    "KernelSystem",
    "KernelTerm",
    "LocalKernel",
    "LocalKernelTerm",
    "NotConverged",
    "Run",
    "Solver",
    "Trial",
    "Uncertainty",
    "check_symmetries",
    "describe_symmetries",
    "find_symmetries",
    "fragment_types",
    "inverse_distances",
    "learn_metric",
    "light_hydrogens",
    "load",
    "nearest_frames",
    "require_float64",
    "residual",
    "save",
    "scaled_distances",
    "train",
    "train_correction",
    "uncertainty",
]
