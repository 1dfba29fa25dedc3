"""Properties of liquids from the frames of a simulation in a periodic box.

All functions except `molecule_pairs` are differentiable, also with respect to the weights of the
frames.  Standard errors are those of correlated frames; see `mean_and_error`.  Fluctuations of the
volume need a simulation at constant pressure.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxff import units
from jaxff.analysis.averages import Estimate, average, estimate, mean_and_error
from jaxff.analysis.coordinates import floating, is_known
from jaxff.errors import InputError
from jaxff.particles import AMU_PER_A3

Array = jax.Array

# e, largest charge of a molecule that counts as neutral
NEUTRAL = 1e-3


def volumes(boxes: ArrayLike) -> Array:
    """Compute the volumes (...) Å³ of boxes (..., 3, 3) Å."""
    boxes = floating(boxes)
    if boxes.shape[-2:] != (3, 3):
        raise InputError(
            f"boxes must be lattice vectors as rows, shape (..., 3, 3) (got {boxes.shape})"
        )
    return jnp.abs(jnp.linalg.det(boxes))


def mass_densities(boxes: ArrayLike, masses: ArrayLike) -> Array:
    """Compute the densities (...) g/cm³ of frames.

    Args:
        boxes: (..., 3, 3) Å, lattice vectors as rows.
        masses: (N,) amu.
    """
    size = volumes(boxes)
    return AMU_PER_A3 * jnp.asarray(masses, size.dtype).sum() / size


def enthalpies(potential_energies: ArrayLike, boxes: ArrayLike, pressure: ArrayLike) -> Array:
    """Compute the enthalpies U + pV (F,) kcal/mol of frames, without kinetic energies.

    Args:
        potential_energies: (F,) kcal/mol.
        boxes: (F, 3, 3) Å, lattice vectors as rows.
        pressure: () bar.
    """
    energies = floating(potential_energies)
    pressure = units.BAR * jnp.asarray(pressure, energies.dtype)
    return energies + pressure * volumes(boxes).astype(energies.dtype)


def dipole_moments(positions: ArrayLike, charges: ArrayLike, molecules: ArrayLike) -> Array:
    """Compute the dipole moments (..., 3) e Å of boxes of neutral molecules.

    Args:
        positions: (..., N, 3) Å of whole molecules, in any image.
        charges: (N,) e, including those of virtual sites.
        molecules: (N,) index of the molecule of each atom; see `System.molecules`.

    Raises:
        InputError: a molecule is charged, so that the dipole moment depends on its image.
    """
    positions = floating(positions)
    if is_known(charges):
        totals = np.bincount(np.asarray(molecules), np.asarray(charges, float))
        if (np.abs(totals) > NEUTRAL).any():
            wrong = int(np.argmax(np.abs(totals)))
            raise InputError(
                f"molecule {wrong} has the charge {totals[wrong]:+.3f} e, so that the dipole "
                "moment of the box depends on the image of the molecule; select neutral molecules"
            )
    charges = jnp.asarray(charges, positions.dtype)
    return jnp.einsum("n,...nk->...k", charges, positions, precision="highest")


def dielectric_constant(
    dipoles: ArrayLike,
    boxes: ArrayLike,
    temperature: ArrayLike,
    weights: ArrayLike | None = None,
    n_blocks: int | None = None,
) -> Estimate:
    """Compute the static dielectric constant () and its error from dipole fluctuations.

    ε = 1 + 4π (⟨M²⟩ − ⟨M⟩²) / (3 ⟨V⟩ kT), for Ewald sums with conducting ("tin-foil") boundaries.
    Source: Neumann, Mol. Phys. 50, 841 (1983).

    Args:
        dipoles: (F, 3) e Å, dipole moments of the box; see `dipole_moments`.
        boxes: (F, 3, 3) Å, lattice vectors as rows.
        temperature: () K.
        weights: (F,) weights of the frames that sum to one.
        n_blocks: number of blocks or replicas, see `mean_and_error`; None for automatic blocking.

    Raises:
        InputError: fewer than two frames, or invalid weights.
    """
    dipoles = floating(dipoles)
    kT = units.BOLTZMANN * jnp.asarray(temperature, dipoles.dtype)
    factor = 4.0 * jnp.pi / 3.0 * units.COULOMB / kT

    def function(moment, square, volume):
        return 1.0 + factor * (square - jnp.sum(moment**2)) / volume

    squares = jnp.sum(dipoles**2, axis=-1)
    size = volumes(boxes).astype(dipoles.dtype)
    return estimate(function, dipoles, squares, size, weights=weights, n_blocks=n_blocks)


def compressibility(
    boxes: ArrayLike,
    temperature: ArrayLike,
    weights: ArrayLike | None = None,
    n_blocks: int | None = None,
) -> Estimate:
    """Compute the isothermal compressibility () 1/bar and its error: (⟨V²⟩ − ⟨V⟩²) / (⟨V⟩ kT).

    The arguments and errors are those of `dielectric_constant`.
    """
    size = volumes(boxes)
    kT = units.BOLTZMANN * jnp.asarray(temperature, size.dtype)
    x, first = _relative(size, weights)

    def function(mean, square):
        return units.BAR / kT * (square - mean**2) / (first + mean)

    return estimate(function, x, x**2, weights=weights, n_blocks=n_blocks)


def thermal_expansion(
    boxes: ArrayLike,
    enthalpies: ArrayLike,
    temperature: ArrayLike,
    weights: ArrayLike | None = None,
    n_blocks: int | None = None,
) -> Estimate:
    """Compute the thermal expansion () 1/K and its error: (⟨VH⟩ − ⟨V⟩⟨H⟩) / (⟨V⟩ kT²).

    Args:
        boxes, temperature, weights, n_blocks: as for `dielectric_constant`.
        enthalpies: (F,) kcal/mol; see the function `enthalpies`.

    Raises:
        InputError: fewer than two frames, or invalid weights.
    """
    size, heat = volumes(boxes), floating(enthalpies)
    kT2 = units.BOLTZMANN * jnp.asarray(temperature, heat.dtype) ** 2
    (x, first), (h, _) = _relative(size, weights), _relative(heat, weights)

    def function(volume, heat, product):
        return (product - volume * heat) / ((first + volume) * kT2)

    return estimate(function, x, h, x * h, weights=weights, n_blocks=n_blocks)


def enthalpy_of_vaporization(
    enthalpies: ArrayLike,
    n_molecules: int,
    gas_energies: ArrayLike,
    temperature: ArrayLike,
    weights: ArrayLike | None = None,
    gas_weights: ArrayLike | None = None,
) -> Estimate:
    """Compute the enthalpy of vaporisation () kcal/mol and its error.

    ΔH = ⟨U_gas⟩ + kT − ⟨U + pV⟩/N for N molecules of the liquid and an ideal gas.  The kinetic
    energies of liquid and gas are equal.  No corrections for polarisation or quantum effects.

    Args:
        enthalpies: (F,) kcal/mol of the liquid; see the function `enthalpies`.
        n_molecules: number of molecules in the liquid, all of one kind.
        gas_energies: (G,) potential energies of one molecule in the gas phase at this temperature,
            kcal/mol; [0, 0] for rigid molecules without intramolecular energies.
        temperature: () K.
        weights, gas_weights: (F,) and (G,) weights of the frames that sum to one.

    Raises:
        InputError: fewer than two frames, or invalid weights.
    """
    liquid = estimate(lambda mean: mean / n_molecules, enthalpies, weights=weights)
    gas = mean_and_error(gas_energies, weights=gas_weights)
    kT = units.BOLTZMANN * jnp.asarray(temperature)
    return Estimate(gas.mean + kT - liquid.mean, jnp.hypot(gas.error, liquid.error))


def molecule_pairs(
    system: Any, first: Any, second: Any = None, *, intramolecular: bool = False
) -> np.ndarray:
    """Return pairs of atoms of different molecules, (P, 2), for `radial_distribution`.

    Args:
        system: the `System`.
        first, second: chemical symbols, such as "O", or atom indices (n,); None for the second: the
            same atoms as the first.
        intramolecular: whether to include pairs within a molecule.

    Raises:
        InputError: there is no such atom or pair.
    """
    a = _atoms(system, first)
    b = a if second is None else _atoms(system, second)
    i, j = (x.ravel() for x in np.meshgrid(a, b, indexing="ij"))
    keep = i != j
    if not intramolecular:
        keep &= system.molecules[i] != system.molecules[j]
    # A pair of two atoms that are in both groups occurs twice.
    both = np.isin(i, b) & np.isin(j, a)
    keep &= ~both | (i < j)
    if not keep.any():
        raise InputError(
            f"{system.name or 'the system'} has no pairs of {first} and "
            f"{first if second is None else second} in different molecules; choose other atoms"
        )
    return np.stack([i[keep], j[keep]], axis=1).astype(np.int32)


def _atoms(system: Any, which: Any) -> np.ndarray:
    if isinstance(which, str):
        found = np.flatnonzero(np.array(system.symbols) == which)
        if not len(found):
            known = ", ".join(sorted(set(system.symbols)))
            raise InputError(f"{system.name or 'the system'} has no atom {which!r}; use {known}")
        return found
    return np.unique(np.asarray(which, int))


def _relative(series: Array, weights: ArrayLike | None) -> tuple[Array, Array]:
    """Values (F,) relative to their mean, which avoids rounding of fluctuations, and the mean."""
    mean = jax.lax.stop_gradient(average(series, weights))
    return series - mean, mean
