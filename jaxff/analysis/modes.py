"""Normal modes and harmonic frequencies."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxff import units
from jaxff.analysis.coordinates import angles
from jaxff.errors import InputError
from jaxff.potential import Params, Potential, Program

# The wavenumber, cm⁻¹, for a force constant of 1 kcal/mol/Å² and a mass of 1 amu.
WAVENUMBER = units.WAVENUMBER_PER_FS / (2.0 * np.pi * units.TIME)
STEP = 0.005  # Å, of finite differences of forces
NEAR_STRAIGHT = np.radians(2.0)  # an angle this close to π may be at a cusp of its energy
STRAIGHT = 1e-3  # rad: an equilibrium angle this close to π gives an energy without a cusp


@dataclass(frozen=True)
class Modes:
    """Normal modes in order of increasing frequency: F = 3N − 6, or 3N − 5 if linear.

    Attributes:
        frequencies: (F,) cm⁻¹, with imaginary frequencies as negative numbers.
        vectors: (F, N, 3) Cartesian displacements of norm one.
        reduced_masses: (F,) amu, for these displacements.
    """

    frequencies: np.ndarray
    vectors: np.ndarray
    reduced_masses: np.ndarray


def normal_modes(surface, positions: ArrayLike, masses: ArrayLike) -> Modes:
    """Harmonic normal modes of a free molecule, without translations and rotations.

    E. B. Wilson, J. C. Decius and P. C. Cross, Molecular Vibrations (1955), ch. 2.  The Hessian of
    a `Potential` is exact; that of another surface is made of central differences of forces.  A
    warning names the angles of a potential that are within 2° of straight while their equilibrium
    angle is not straight: the energy has a cusp at the straight angle, and the frequencies of such
    bends have no meaning.

    Args:
        surface: a `Potential` in the atom order of `positions`, or a function made by
            `as_surface`.
        positions: (N, 3) Å, a stationary point; elsewhere the frequencies have no meaning.
        masses: (N,) amu.

    Raises:
        InputError: shapes that do not agree, masses that are not positive, or a Hessian that is
            not finite.
    """
    R, masses = np.asarray(positions, float), np.asarray(masses, float)
    if R.ndim != 2 or R.shape[1:] != (3,) or masses.shape != R.shape[:1]:
        raise InputError(
            f"positions have shape {R.shape} and masses {masses.shape}, expected (N, 3) and (N,)"
        )
    if not (masses > 0).all():
        raise InputError("masses must be positive, in amu")
    near = _near_cusps(surface, R) if isinstance(surface, Potential) else []
    if near:
        warnings.warn(
            f"the angles at atoms {', '.join(map(str, near))} (counted from 0) are within 2° of "
            "straight, but their equilibrium angles are not straight: the frequencies of these "
            "bends depend on how the Hessian is computed",
            stacklevel=2,
        )
    return modes_of(hessian(surface, R), R, masses)


def hessian(surface, positions: np.ndarray) -> np.ndarray:
    """Second derivatives (N, 3, N, 3) kcal/mol/Å² of a surface at positions (N, 3) Å."""
    if isinstance(surface, Potential):
        params = surface.program.jit_ready(surface.params)
        return np.asarray(_hessian(surface.program, params, jnp.asarray(positions)), float)
    n = len(positions)
    moves = STEP * np.eye(3 * n).reshape(3 * n, n, 3)
    _, forces = surface(np.concatenate([positions + moves, positions - moves]))
    slopes = -(forces[: 3 * n] - forces[3 * n :]) / (2.0 * STEP)
    return slopes.reshape(n, 3, n, 3)


def modes_of(hessian: ArrayLike, positions: ArrayLike, masses: np.ndarray) -> Modes:
    """Normal modes of a Hessian, without translations and rotations.

    Args:
        hessian: (N, 3, N, 3) kcal/mol/Å².
        positions: (N, 3) Å.
        masses: (N,) amu.
    """
    R = np.asarray(positions, float)
    n = len(R)
    H = np.reshape(hessian, (3 * n, 3 * n))
    if not np.isfinite(H).all():
        raise InputError("the Hessian is not finite at these positions")
    weights = np.repeat(np.sqrt(masses), 3)
    # `inner` is an orthonormal basis, in mass-weighted coordinates, of all internal motions.
    arms = R - np.average(R, axis=0, weights=masses)
    translations = [np.broadcast_to(axis, (n, 3)) for axis in np.eye(3)]
    rotations = [np.cross(axis, arms) for axis in np.eye(3)]
    rigid = np.reshape(translations + rotations, (6, 3 * n)) * weights
    _, sizes, basis = np.linalg.svd(rigid)
    inner = basis[np.count_nonzero(sizes > 1e-4 * sizes[0]) :]  # a linear molecule has 5
    weighted = 0.5 * (H + H.T) / np.outer(weights, weights)
    curvatures, mixing = np.linalg.eigh(inner @ weighted @ inner.T)
    frequencies = WAVENUMBER * np.sign(curvatures) * np.sqrt(np.abs(curvatures))
    vectors = (mixing.T @ inner) / weights
    lengths = np.linalg.norm(vectors, axis=1)
    return Modes(frequencies, (vectors / lengths[:, None]).reshape(-1, n, 3), lengths**-2)


def _near_cusps(potential: Potential, R) -> list[int]:
    """Middle atoms of nearly straight angles at R (N, 3) Å with a bent equilibrium."""
    atoms_near: set[int] = set()
    for placed in potential.program.placed:
        term = placed.term
        for field, (_, columns) in term.tables.items():
            atoms = getattr(term, "atoms" if field == "rows" else "angles", None)
            if "angle" not in columns or atoms is None or np.shape(atoms)[1:] != (3,):
                continue
            if placed.atoms is not None:
                atoms = np.asarray(placed.atoms)[atoms]
            rest = np.asarray(potential.params[placed.name]["angle"])[getattr(term, field)]
            near = np.asarray(angles(R, atoms)) > np.pi - NEAR_STRAIGHT
            atoms_near.update(atoms[near & (np.abs(rest - np.pi) > STRAIGHT), 1].tolist())
    return sorted(atoms_near)


@partial(jax.jit, static_argnames="program")
def _hessian(program: Program, params: Params, R):
    return jax.hessian(program.energy, argnums=1)(params, R)
