"""GAFF potentials of the molecules whose typed topologies the package carries."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib import resources

from jaxff.errors import InputError
from jaxff.mm.amber import read_topology
from jaxff.mm.topology import Topology
from jaxff.molecule import Molecule
from jaxff.potential import Potential

CARRIED = ("ethanol", "keto_malondialdehyde", "aspirin")


def gaff(mol: Molecule, coulomb_constant: float | None = None) -> Potential:
    """The GAFF potential of `mol`, in its own atom order, with AM1-BCC charges.

    GAFF 1.81: Wang et al., J. Comput. Chem. 25, 1157 (2004), doi:10.1002/jcc.20035.

    Args:
        mol: any geometry, conformer or atom order of ethanol, keto-malondialdehyde or aspirin.
        coulomb_constant: kcal/mol Å/e²; AMBER's own (18.2223²) by default.

    Raises:
        InputError: another molecule.
    """
    for name in CARRIED:
        topology = carried(name)
        if topology.molecule.formula != mol.formula or topology.molecule.charge != mol.charge:
            continue
        try:
            order = mol.match(topology.molecule)
        except InputError:  # an isomer
            continue
        return replace(topology.reorder(order), molecule=mol).potential(coulomb_constant)
    named = f"{mol.name} ({mol.formula})" if mol.name else mol.formula
    raise InputError(
        f"no GAFF topology is carried for {named} of charge {mol.charge}, only for "
        f"{', '.join(CARRIED)}; make one with AmberTools and use jaxff.read_amber('x.prmtop')"
    )


@cache
def carried(name: str) -> Topology:
    """The typed topology of one of the molecules `CARRIED`."""
    with resources.as_file(resources.files("jaxff") / "data" / "gaff" / f"{name}.prmtop") as path:
        return read_topology(path)
