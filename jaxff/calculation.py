"""Energies and forces that ASE calculators compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jaxff import units

if TYPE_CHECKING:
    from ase import Atoms


def calculate(atoms: Atoms, unit: float = units.EV) -> tuple[float, np.ndarray]:
    """Energy and forces of atoms by their ASE calculator `atoms.calc`.

    Args:
        atoms: N atoms with a calculator.
        unit: factor from eV to the unit of the results: kcal/mol by default, 1 for eV.

    Returns:
        Energy () kcal/mol and forces (N, 3) kcal/mol/Å, by default.
    """
    # Forces first: after a call for the energy, some calculators need a second calculation for
    # the forces.
    forces = atoms.get_forces() * unit
    return float(atoms.get_potential_energy() * unit), forces
