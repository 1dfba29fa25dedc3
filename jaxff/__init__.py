"""Differentiable force fields on JAX: sGDML kernels, GAFF, and their mixtures."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxff import analysis, ase, formats, gdml, learn, md, openmm, reference, units
    from jaxff.batch import Stack, stack
    from jaxff.dataset import Dataset
    from jaxff.errors import InputError
    from jaxff.formats import load, read_amber, read_force_field, write_force_field
    from jaxff.gaff import Parametrization, gaff, parametrize
    from jaxff.learn import evaluate, fit
    from jaxff.molecule import Molecule
    from jaxff.potential import Column, Potential, Term
    from jaxff.saved import save
    from jaxff.solvent import gbsa, liquid, solvate
    from jaxff.system import System
    from jaxff.terms.network import network, network_builder

__version__ = "0.1.0"

# Every name is imported at its first use, so that `import jaxff` and `jaxff --help` are quick.
_HOME = {
    "Dataset": "jaxff.dataset",
    "InputError": "jaxff.errors",
    "load": "jaxff.formats",
    "save": "jaxff.saved",
    "evaluate": "jaxff.learn",
    "fit": "jaxff.learn",
    "Parametrization": "jaxff.gaff",
    "parametrize": "jaxff.gaff",
    "read_amber": "jaxff.formats",
    "read_force_field": "jaxff.formats",
    "write_force_field": "jaxff.formats",
    "gbsa": "jaxff.solvent",
    "liquid": "jaxff.solvent",
    "solvate": "jaxff.solvent",
    "Molecule": "jaxff.molecule",
    "Column": "jaxff.potential",
    "Potential": "jaxff.potential",
    "Stack": "jaxff.batch",
    "System": "jaxff.system",
    "Term": "jaxff.potential",
    "network": "jaxff.terms.network",
    "network_builder": "jaxff.terms.network",
    "stack": "jaxff.batch",
}
_PACKAGES = (
    "analysis",
    "ase",
    "formats",
    "gaff",
    "gdml",
    "learn",
    "md",
    "openmm",
    "reference",
    "units",
)

__all__ = [
    "Column",
    "Dataset",
    "InputError",
    "Molecule",
    "Parametrization",
    "Potential",
    "Stack",
    "System",
    "Term",
    "analysis",
    "ase",
    "evaluate",
    "fit",
    "formats",
    "gaff",
    "gbsa",
    "gdml",
    "learn",
    "liquid",
    "load",
    "md",
    "network",
    "network_builder",
    "openmm",
    "parametrize",
    "read_amber",
    "read_force_field",
    "reference",
    "save",
    "solvate",
    "stack",
    "units",
    "write_force_field",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"jaxff.{name}")
    raise AttributeError(f"module 'jaxff' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
