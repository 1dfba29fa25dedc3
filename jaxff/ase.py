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
from jaxff.molecule_files import check_not_periodic
from jaxff.potential import Potential


class ExtrapolationWarning(UserWarning):
    """Warning that a geometry is outside the training data of a potential."""


class Calculator(AseCalculator):
    """ASE calculator of a potential: energy () in eV and forces (N, 3) in eV/Å.

    The atoms may be in any order.  At the first geometry, `match` assigns them to the atoms of the
    potential.  If the training data of the potential are known, ``results["outside_training"]`` is
    True for geometries outside the training data.  The first such geometry causes an
    `ExtrapolationWarning`.

    Args:
        potential: the potential; the calculation uses the dtype of its parameters.
        kwargs: arguments of ASE's `Calculator`.
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
        """Compute energy and forces of `atoms`; ASE calls this method.

        Args:
            atoms: the `ase.Atoms`; by default, those of the last call.
            properties: names of the requested results; all results are always computed.
            system_changes: names of the properties of the atoms that changed since the last call.

        Raises:
            InputError: the atoms are periodic or cannot be matched to those of the potential.
            CalculationFailed: the energy or a force is not finite.
        """
        super().calculate(atoms, list(properties), list(system_changes))
        present: Any = self.atoms
        check_not_periodic(present)
        if self._placed is None or "numbers" in system_changes:
            self._placed = match(self.potential, Molecule.from_ase(present))
        R = jnp.asarray(present.positions, self._dtype)
        energy, forces = jax.device_get(self._placed.energy_and_forces(R))
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise CalculationFailed(
                "the energy or a force is not finite: check the geometry for overlapping atoms"
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
                    f"a geometry is outside the training data of the potential ({found.reason}): "
                    "check its energy with the reference method",
                    ExtrapolationWarning,
                    stacklevel=2,
                )


def match(potential: Potential, molecule: Molecule) -> Potential:
    """The potential with its atoms in the order of `molecule`.

    Atoms are matched by the bond graph.  If the bonds differ, as in a stretched geometry, the
    potential and `molecule` must have the same order of atoms.

    Raises:
        InputError: the potential belongs to another molecule.
    """
    known = potential.molecule
    try:
        return potential.matched(molecule)
    except InputError:
        if known is not None and np.array_equal(known.numbers, molecule.numbers):
            return potential
        raise
