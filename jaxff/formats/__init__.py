"""Files of AMBER, GROMACS, OpenMM and mol2, and model files."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxff.formats.amber import read_amber, read_inpcrd, read_topology
    from jaxff.formats.force_fields import read_force_field, write_force_field
    from jaxff.formats.gromacs import read_gro
    from jaxff.formats.potentials import load, read_potential
    from jaxff.formats.registry import FORCE_FIELDS, Format

# The command line reads the registry before it imports JAX, so names are imported at first use.
_HOME = {
    "FORCE_FIELDS": "registry",
    "Format": "registry",
    "load": "potentials",
    "read_amber": "amber",
    "read_force_field": "force_fields",
    "read_gro": "gromacs",
    "read_inpcrd": "amber",
    "read_potential": "potentials",
    "read_topology": "amber",
    "write_force_field": "force_fields",
}

__all__ = [
    "FORCE_FIELDS",
    "Format",
    "load",
    "read_amber",
    "read_force_field",
    "read_gro",
    "read_inpcrd",
    "read_potential",
    "read_topology",
    "write_force_field",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"jaxff.formats.{_HOME[name]}"), name)
    raise AttributeError(f"module 'jaxff.formats' has no attribute {name!r}")
