"""Energy surfaces: potentials, ASE calculators and plain functions."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from jaxff.calculation import calculate
from jaxff.errors import InputError
from jaxff.molecule import Molecule
from jaxff.potential import Potential

# A function takes positions (M, N, 3) Å and returns energies (M,) kcal/mol and forces (M, N, 3)
# kcal/mol/Å.
Surface = Potential | Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def as_surface(surface: Any, molecule: Molecule) -> Surface:
    """Convert an argument to an energy surface in the atom order of a molecule.

    Args:
        surface: a `Potential`, an ASE calculator, or a function of positions (M, N, 3) Å that
            returns energies (M,) kcal/mol and forces (M, N, 3) kcal/mol/Å.
        molecule: elements and atom order.

    Returns:
        A potential, or a function as described for `surface`.

    Raises:
        InputError: the potential has another molecule, or `surface` has another type.
    """
    from ase.calculators.calculator import BaseCalculator

    if isinstance(surface, Potential):
        return surface.matched(molecule)
    if isinstance(surface, BaseCalculator):
        return _CalculatorSurface(surface, molecule)
    if not callable(surface):
        raise InputError(
            f"{surface!r} is not an energy surface: give a Potential, an ASE calculator or a "
            "function"
        )
    return cast(Surface, surface)


def evaluate(surface: Surface, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energies (M,) kcal/mol and forces (M, N, 3) kcal/mol/Å; `positions` in Å."""
    energy_and_forces = surface.predict if isinstance(surface, Potential) else surface
    return energy_and_forces(positions)


class _CalculatorSurface:
    """Energies and forces of an ASE calculator; they are NaN if a calculation fails.

    A call raises `InputError` if no calculation has succeeded yet.
    """

    def __init__(self, calculator, molecule: Molecule):
        self.calculator, self.molecule = calculator, molecule
        self._has_succeeded = False
        self._reported: set[str] = set()

    def __call__(self, positions) -> tuple[np.ndarray, np.ndarray]:
        atoms, failure = self.molecule.to_ase(), None
        atoms.calc = self.calculator
        energies, forces = np.full(len(positions), np.nan), np.full(np.shape(positions), np.nan)
        for m, R in enumerate(np.asarray(positions)):
            atoms.positions = R
            try:
                energies[m], forces[m] = calculate(atoms)
                self._has_succeeded = True
            except InputError:
                raise
            except Exception as error:  # the next geometries may succeed
                failure = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if failure is not None and not self._has_succeeded:
            raise InputError(
                f"no calculation has succeeded ({failure}); check the calculator and the geometry"
            )
        if failure is not None and failure not in self._reported:
            self._reported.add(failure)
            warnings.warn(
                f"a calculation failed and is left out ({failure}); check the geometry",
                stacklevel=2,
            )
        return energies, forces
