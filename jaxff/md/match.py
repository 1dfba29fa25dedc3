"""A potential in the atom order of a molecule."""

from __future__ import annotations

import numpy as np

from jaxff.errors import InputError
from jaxff.molecule import Molecule
from jaxff.potential import Potential


def matched(potential: Potential, molecule: Molecule) -> Potential:
    """`potential` acting on the atoms of `molecule`, in the molecule's order.

    Atoms are matched through the potential's own molecule; a potential that knows none must
    have as many atoms, and is taken to have them in the same order.

    Raises:
        InputError: the atoms cannot be matched.
    """
    if potential.molecule is not None:
        order = potential.molecule.match(molecule)
        if np.array_equal(order, np.arange(molecule.n_atoms)):
            return potential
        return potential.on(order)
    wanted, least = potential.n_atoms, potential.program.n_atoms_min
    if molecule.n_atoms < least or wanted not in (None, molecule.n_atoms):
        raise InputError(
            f"{molecule.name or 'the molecule'} has {molecule.n_atoms} atoms, the potential needs "
            f"{wanted if wanted is not None else f'at least {least}'}"
        )
    return potential
