"""Potentials as ASE calculators, in eV and Å."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ase.calculators.calculator import (
    CalculationFailed,
    PropertyNotImplementedError,
    all_changes,
)
from ase.calculators.calculator import Calculator as AseCalculator

from jaxff import units
from jaxff.cell import volume
from jaxff.domain import outside
from jaxff.errors import InputError
from jaxff.molecule import Molecule, perceive_bonds
from jaxff.molecule_files import check_not_periodic
from jaxff.potential import Array, Potential


class ExtrapolationWarning(UserWarning):
    """Warning that a geometry is outside the training data of a potential."""


class Calculator(AseCalculator):
    """ASE calculator: energy () in eV, forces (N, 3) in eV/Å, and in boxes stress (6,) in eV/Å³.

    The atoms may be in any order.  At the first geometry, `match` assigns them to the atoms of the
    potential.  If the training data of the potential are known, ``results["outside_training"]`` is
    True for geometries outside the training data.  The first such geometry causes an
    `ExtrapolationWarning`.

    Potentials of systems and periodic kernels take the cell from the atoms, which must be periodic
    along all three axes.  Molecules must be whole, as ``System.positions``, and the atoms,
    including virtual sites (X), must have the order of the system.  Constraints of a system are not
    applied.  The stress has the sign and order of ASE (xx, yy, zz, yz, xz, xy) and is only computed
    on request.

    Args:
        potential: the potential; the calculation uses the dtype of its parameters.
        kwargs: arguments of ASE's `Calculator`.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012 (as in ASE)

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
            properties: names of the requested results; all except the stress are always computed.
            system_changes: names of the properties of the atoms that changed since the last call.

        Raises:
            InputError: the potential needs a cell or has none, or the atoms cannot be matched to
                those of the potential.
            CalculationFailed: the energy or a force is not finite.
        """
        super().calculate(atoms, list(properties), list(system_changes))
        present: Any = self.atoms
        box = _box_of(present, self.potential)
        if self._placed is None or {"numbers", "pbc"} & set(system_changes):
            self._placed = _matched(self.potential, present)
        R = jnp.asarray(present.positions, self._dtype)
        energy, forces = jax.device_get(self._placed.energy_and_forces(R, box))
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
        if "stress" in properties:
            if box is None:
                raise PropertyNotImplementedError("the stress needs periodic atoms")
            self.results["stress"] = stress(self._placed, R, box) / units.EV
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


def stress(potential: Potential, R: Array, box: np.ndarray) -> np.ndarray:
    """Stress (xx, yy, zz, yz, xz, xy), (6,) kcal/mol/Å³, positive if the box tends to shrink.

    It is the derivative of the energy by a strain of positions and box, divided by the volume.

    Args:
        potential: a potential that uses a box.
        R: (N, 3) Å.
        box: (3, 3) Å, lattice vectors as rows.
    """
    arguments = potential.program.found(R, box, None)
    virial = np.asarray(_virial(potential, R, *arguments), float)
    symmetric = 0.5 * (virial + virial.T) / volume(box)
    return symmetric.ravel()[[0, 4, 8, 5, 2, 1]]


@jax.jit
def _virial(potential: Potential, R: Array, box: Array, neighbor) -> Array:
    """Derivative (3, 3) kcal/mol of the energy by the strain."""

    def energy(strain):
        bend = jnp.eye(3, dtype=R.dtype) + strain
        return potential.energy_fn(potential.params, R @ bend, box @ bend, neighbor)

    return jax.grad(energy)(jnp.zeros((3, 3), R.dtype))


def _box_of(atoms: Any, potential: Potential) -> np.ndarray | None:
    """The box (3, 3) Å of an `ase.Atoms`; None if it is not periodic.

    Raises:
        InputError: the potential has no box, or the atoms are not periodic along all axes.
    """
    if not any(atoms.pbc):
        return None
    if "box" not in potential.program.reads(potential.params):
        check_not_periodic(atoms)
    if not all(atoms.pbc) or abs(np.linalg.det(atoms.cell.array)) < 1e-6:
        raise InputError(
            f"the atoms must be periodic along three independent cell vectors (got pbc "
            f"{atoms.pbc.tolist()} and cell {atoms.cell.array.tolist()}); set atoms.pbc = True"
        )
    return atoms.cell.array


def _matched(potential: Potential, atoms: Any) -> Potential:
    """The potential with its atoms in the order of an `ase.Atoms`.

    In a box, a potential without a molecule, such as that of a system, must have the same order.
    """
    if not any(atoms.pbc):
        return match(potential, Molecule.from_ase(atoms))
    if potential.molecule is None:
        return potential
    bonds = perceive_bonds(atoms.numbers, atoms.positions, atoms.cell.array.T)
    return match(potential, Molecule(atoms.numbers, atoms.positions, bonds))


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
