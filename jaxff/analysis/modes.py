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

# Wavenumber, cm⁻¹, for a force constant of 1 kcal/mol/Å² and a mass of 1 amu.
WAVENUMBER = units.WAVENUMBER_PER_FS / (2.0 * np.pi * units.TIME)
STEP = 0.005  # Å, step of finite differences of forces
NEAR_STRAIGHT = np.radians(2.0)  # closer to π, an angle may be at a cusp of the energy
STRAIGHT = 1e-3  # rad: equilibrium angles closer to π give an energy without a cusp


@dataclass(frozen=True)
class Modes:
    """Normal modes of N atoms in order of increasing frequency.

    Attributes:
        frequencies: (F,) cm⁻¹, F = 3N − 6 or, for linear molecules, 3N − 5.  Imaginary frequencies
            are negative numbers.
        vectors: (F, N, 3) Cartesian displacements with norm one.
        reduced_masses: (F,) amu.
    """

    frequencies: np.ndarray
    vectors: np.ndarray
    reduced_masses: np.ndarray


def normal_modes(surface, positions: ArrayLike, masses: ArrayLike) -> Modes:
    """Compute the harmonic normal modes of a molecule, without translations and rotations.

    Source: E. B. Wilson, J. C. Decius and P. C. Cross, Molecular Vibrations (1955), ch. 2.  The
    Hessian of a `Potential` is exact; other surfaces use central differences of forces.

    Args:
        surface: a `Potential` in the atom order of `positions`, or a function from `as_surface`.
        positions: (N, 3) Å, must be a stationary point.
        masses: (N,) amu.

    Raises:
        InputError: shapes that do not agree, masses that are not positive, or a Hessian that is
            not finite.

    Warns:
        UserWarning: an angle is within 2° of straight, but its equilibrium angle is not straight.
            The energy has a cusp at the straight angle, so frequencies of such bends are wrong.
    """
    R, masses = np.asarray(positions, float), np.asarray(masses, float)
    if R.ndim != 2 or R.shape[1:] != (3,) or masses.shape != R.shape[:1]:
        raise InputError(
            f"positions must have shape (N, 3) (got {R.shape}), and masses (N,) (got "
            f"{masses.shape})"
        )
    if not (masses > 0).all():
        raise InputError(f"masses must be positive, in amu (got {masses.min():g})")
    near = _near_cusps(surface, R) if isinstance(surface, Potential) else []
    if near:
        warnings.warn(
            f"the angles at atoms {', '.join(map(str, near))} (counted from 0) are within 2° of "
            "straight, but their equilibrium angles are not straight: do not use the frequencies "
            "of these bends, or correct the equilibrium angles",
            stacklevel=2,
        )
    return modes_of(hessian(surface, R), R, masses)


def hessian(surface, positions: np.ndarray) -> np.ndarray:
    """Compute second derivatives (N, 3, N, 3) kcal/mol/Å² of a surface at positions (N, 3) Å."""
    if isinstance(surface, Potential):
        params = surface.program.jit_ready(surface.params)
        return np.asarray(_hessian(surface.program, params, jnp.asarray(positions)), float)
    n = len(positions)
    moves = STEP * np.eye(3 * n).reshape(3 * n, n, 3)
    _, forces = surface(np.concatenate([positions + moves, positions - moves]))
    slopes = -(forces[: 3 * n] - forces[3 * n :]) / (2.0 * STEP)
    return slopes.reshape(n, 3, n, 3)


def modes_of(hessian: ArrayLike, positions: ArrayLike, masses: np.ndarray) -> Modes:
    """Compute the normal modes of a Hessian, without translations and rotations.

    Args:
        hessian: (N, 3, N, 3) kcal/mol/Å².
        positions: (N, 3) Å.
        masses: (N,) amu.

    Raises:
        InputError: the Hessian is not finite.
    """
    R = np.asarray(positions, float)
    n = len(R)
    H = np.reshape(hessian, (3 * n, 3 * n))
    if not np.isfinite(H).all():
        raise InputError("the Hessian is not finite at these positions: give another geometry")
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
    """Return the middle atoms of nearly straight angles whose equilibrium angle is not straight."""
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
