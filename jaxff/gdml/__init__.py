"""sGDML kernel models: training in closed form, prediction, symmetries, model files."""

from jaxff.gdml.files import load, save
from jaxff.gdml.model import KernelTerm
from jaxff.gdml.symmetry import check_symmetries, find_symmetries
from jaxff.gdml.train import KernelSystem, residual, train

__all__ = [
    "KernelSystem",
    "KernelTerm",
    "check_symmetries",
    "find_symmetries",
    "load",
    "residual",
    "save",
    "train",
]
