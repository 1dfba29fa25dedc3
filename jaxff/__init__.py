"""Differentiable force fields on JAX: sGDML kernels, GAFF, and any mixture of them."""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

# Everything is imported when first asked for: `import jaxff` is quick, and the command line
# can say what is wrong before a heavy library loads.
_HOME = {
    "Dataset": "jaxff.dataset",
    "InputError": "jaxff.errors",
    "load": "jaxff.files",
    "save": "jaxff.files",
    "evaluate": "jaxff.learn",
    "fit": "jaxff.learn",
    "gaff": "jaxff.mm",
    "parametrize": "jaxff.mm",
    "read_amber": "jaxff.mm",
    "read_force_field": "jaxff.mm",
    "write_force_field": "jaxff.mm",
    "Molecule": "jaxff.molecule",
    "Column": "jaxff.potential",
    "Potential": "jaxff.potential",
    "Term": "jaxff.potential",
}
_ROOMS = ("analysis", "ase", "gdml", "learn", "md", "mm", "reference", "units")

__all__ = sorted([*_HOME, *_ROOMS])


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"jaxff.{name}")
    raise AttributeError(f"module 'jaxff' has no attribute {name!r}")


def __dir__():
    return __all__
