"""Molecular mechanics: terms, topologies, AMBER files and GAFF."""

from jaxff.mm.amber import read_amber, read_inpcrd
from jaxff.mm.gaff import gaff
from jaxff.mm.topology import Topology

__all__ = ["Topology", "gaff", "read_amber", "read_inpcrd"]
