"""Molecular mechanics: terms, topologies, GAFF for any molecule, files of other programs."""

from jaxff.mm.amber import read_amber, read_inpcrd
from jaxff.mm.depict import depict
from jaxff.mm.formats import read_force_field, write_force_field
from jaxff.mm.gaff import FORMS, gaff
from jaxff.mm.parametrize import Parametrization, parametrize
from jaxff.mm.seminario import seminario
from jaxff.mm.topology import Topology

__all__ = [
    "FORMS",
    "Parametrization",
    "Topology",
    "depict",
    "gaff",
    "parametrize",
    "read_amber",
    "read_force_field",
    "read_inpcrd",
    "seminario",
    "write_force_field",
]
