"""Differentiable force fields on JAX: sGDML kernels, GAFF, and any mixture of them."""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

# Everything is imported when first asked for: `import jaxff` is quick, and the command line
# can say what is wrong before a heavy library loads.
_HOME = {
    "Dataset": "jaxff.dataset",
    "InputError": "jaxff.errors",
    "load": "jaxff.saved",
    "save": "jaxff.saved",
    "evaluate": "jaxff.learn",
    "fit": "jaxff.learn",
    "parametrize": "jaxff.gaff",
    "read_amber": "jaxff.formats",
    "read_force_field": "jaxff.formats",
    "write_force_field": "jaxff.formats",
    "Molecule": "jaxff.molecule",
    "Column": "jaxff.potential",
    "Potential": "jaxff.potential",
    "Term": "jaxff.potential",
}
_PACKAGES = (
    "analysis",
    "ase",
    "formats",
    "gaff",
    "gdml",
    "learn",
    "md",
    "reference",
    "units",
)

__all__ = sorted([*_HOME, *_PACKAGES])


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"jaxff.{name}")
    raise AttributeError(f"module 'jaxff' has no attribute {name!r}")


def __dir__():
    return __all__
