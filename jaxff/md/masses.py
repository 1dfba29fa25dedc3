"""Hydrogen mass repartitioning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from jaxff.errors import InputError


def repartition(system: Any, hydrogen_mass: float = 3.024) -> Any:
    """The system with heavier hydrogen atoms, which allow longer time steps.

    The mass is taken from the atom to which a hydrogen atom is bonded.  Rigid water does not
    change, and equilibrium properties do not depend on masses.

    Args:
        system: a `System` with bonds.
        hydrogen_mass: mass of a hydrogen atom, amu.

    Raises:
        InputError: an atom would become lighter than its hydrogen atoms, or `hydrogen_mass` is
            lower than the present mass.

    Source: Hopkins et al., J. Chem. Theory Comput. 11, 1864 (2015).
    """
    masses, numbers = np.array(system.masses, float), np.asarray(system.numbers)
    rigid = np.zeros(len(masses), bool)
    if (constraints := getattr(system, "constraints", None)) is not None:
        rigid[np.asarray(constraints.waters, int).ravel()] = True
    bonds = np.asarray(system.bonds, int).reshape(-1, 2)
    bonds = np.concatenate([bonds, bonds[:, ::-1]])
    chosen = (numbers[bonds[:, 0]] == 1) & (numbers[bonds[:, 1]] > 1) & ~rigid[bonds[:, 0]]
    hydrogens, heavy = bonds[chosen].T
    added = hydrogen_mass - masses[hydrogens]
    if added.min(initial=0.0) < 0.0:
        raise InputError(
            f"hydrogen_mass is {hydrogen_mass:g} amu, but a hydrogen atom already has "
            f"{masses[hydrogens].max():g} amu: give a larger mass"
        )
    np.add.at(masses, heavy, -added)
    light = masses[heavy] < hydrogen_mass
    if light.any():
        raise InputError(
            f"with hydrogen_mass={hydrogen_mass:g} amu, atom {heavy[light][0]} would have only "
            f"{masses[heavy[light][0]]:.3g} amu: give a smaller mass"
        )
    masses[hydrogens] = hydrogen_mass
    return replace(system, masses=masses)
