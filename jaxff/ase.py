"""Potentials as ASE calculators, in eV and Å."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ase.calculators.calculator import CalculationFailed, all_changes
from ase.calculators.calculator import Calculator as AseCalculator

from jaxff import units
from jaxff.domain import outside
from jaxff.errors import InputError
from jaxff.molecule import Molecule
from jaxff.potential import Potential


class ExtrapolationWarning(UserWarning):
    """A geometry is outside the training data of a potential."""


class Calculator(AseCalculator):
    """Energy (eV) and forces (eV/Å) of a potential, for any ASE workflow.

    The atoms may be in any order: at the first geometry they are matched to the potential's
    molecule; see `match`.

    Args:
        potential: the potential; results have the dtype of its parameters.

    If the training data of the potential are known, ``results["outside_training"]`` is True for
    geometries outside these data.  The first such geometry causes an `ExtrapolationWarning`.

    Raises:
        InputError: in a calculation, if the atoms are periodic or cannot be matched.
        CalculationFailed: in a calculation, if a result is not finite.
    """

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012 (as in ASE)

    def __init__(self, potential: Potential, **kwargs: Any):
        super().__init__(**kwargs)
        self.potential = potential
        leaves = jax.tree.leaves(potential.params)
        self._dtype = jnp.result_type(*leaves) if leaves else jnp.result_type(float)
        self._placed: Potential | None = None
        self._has_warned = False

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        """Compute the results of the current atoms; see ASE."""
        super().calculate(atoms, list(properties), list(system_changes))
        if self._placed is None or "numbers" in system_changes:
            self._placed = match(self.potential, Molecule.from_ase(self.atoms))
        present: Any = self.atoms
        if np.any(present.pbc):
            raise InputError("periodic structures are not supported: set atoms.pbc = False")
        R = jnp.asarray(present.positions, self._dtype)
        energy, forces = jax.device_get(self._placed.energy_and_forces(R))
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise CalculationFailed(
                "the energy or a force of the potential is not finite: check the geometry"
            )
        energy = float(energy) / units.EV
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": np.asarray(forces, float) / units.EV,
        }
        found = outside(self._placed.trained, np.asarray(R)[None], np.array([energy * units.EV]))
        if found is not None:
            self.results["outside_training"] = bool(found.frames[0])
            if found.frames[0] and not self._has_warned:
                self._has_warned = True
                warnings.warn(
                    "a geometry is outside the training data of the potential, whose energies may "
                    f"be wrong there: {found.reason}",
                    ExtrapolationWarning,
                    stacklevel=2,
                )


def match(potential: Potential, molecule: Molecule) -> Potential:
    """The potential in the atom order of `molecule`.

    Atoms are matched by the bond graph.  If the bonds differ, as in a stretched geometry, but both
    have the same elements in the same order, the order of the atoms is taken to be the same.

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
