"""A potential as an ASE calculator: eV and Å outside, kcal/mol and Å inside."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from ase.calculators.calculator import CalculationFailed, all_changes
from ase.calculators.calculator import Calculator as AseCalculator

from jaxff import units
from jaxff.errors import InputError
from jaxff.molecule import Molecule
from jaxff.potential import Potential


class Calculator(AseCalculator):
    """Energy (eV) and forces (eV/Å) of a potential, for any ASE workflow.

    The atoms may stand in any order: they are matched to the potential's molecule by bond graph,
    once, at the first geometry.  Where the elements agree one by one but the bonds of that
    geometry do not (a stretched bond), the atoms are taken in order.

    Args:
        potential: the potential; it computes in the dtype of its parameters.

    Raises:
        InputError: on calculation, atoms that cannot be matched, or periodic ones.
        CalculationFailed: on calculation, a result that is not finite.
    """

    implemented_properties = ("energy", "free_energy", "forces")

    def __init__(self, potential: Potential, **kwargs):
        super().__init__(**kwargs)
        self.potential = potential
        leaves = jax.tree.leaves(potential.params)
        self._dtype = jnp.result_type(*leaves) if leaves else jnp.result_type(float)
        self._placed: Potential | None = None

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if self._placed is None or "numbers" in system_changes:
            self._placed = match(self.potential, Molecule.from_ase(self.atoms))
        if np.any(self.atoms.pbc):
            raise InputError("periodic structures are not supported: set atoms.pbc = False")
        R = jnp.asarray(self.atoms.positions, self._dtype)
        energy, forces = jax.device_get(self._placed.energy_and_forces(R))
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise CalculationFailed("the potential's energy or a force is not finite here")
        energy = float(energy) / units.EV
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": np.asarray(forces, float) / units.EV,
        }


def match(potential: Potential, molecule: Molecule) -> Potential:
    """The potential in the atom order of `molecule`.

    Atoms are matched by bond graph. If the bonds differ (a stretched bond) but the elements agree
    one by one, the atoms are taken in their order.

    Raises:
        InputError: the potential is of another molecule.
    """
    known = potential.molecule
    try:
        return potential.matched(molecule)
    except InputError:
        if known is not None and np.array_equal(known.numbers, molecule.numbers):
            return potential
        raise
