"""Energies and forces that ASE calculators compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jaxff import units

if TYPE_CHECKING:
    from ase import Atoms


def calculate(atoms: Atoms, unit: float = units.EV) -> tuple[float, np.ndarray]:
    """Energy and forces from the ASE calculator `atoms.calc`.

    Args:
        atoms: N atoms with a calculator.
        unit: factor from eV to the energy unit of the results; the default gives kcal/mol.

    Returns:
        Energy () kcal/mol and forces (N, 3) kcal/mol/Å, or in eV and eV/Å if `unit` is 1.
    """
    # Forces come first: with some calculators, forces after an energy cost a second calculation.
    forces = atoms.get_forces() * unit
    return float(atoms.get_potential_energy() * unit), forces
